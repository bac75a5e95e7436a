"""The check of shapes and types at run time: where it hangs, and that it bites."""

import importlib
from pathlib import Path

import numpy as np
import pytest
from jaxtyping import TypeCheckError

from audit import stats
from tests.shapes import NUMERICAL

ROOT = Path(__file__).resolve().parents[2]


def test_every_module_that_names_a_shape_is_checked() -> None:
    paths = [path for folder in ("audit", "probes") for path in (ROOT / folder).rglob("*.py")]
    shaped = [path.relative_to(ROOT) for path in paths if "from jaxtyping import" in path.read_text(encoding="utf-8")]
    modules = [".".join(path.with_suffix("").parts) for path in shaped]
    assert len(modules) > 50
    assert not [m for m in modules if not any(m == name or m.startswith(f"{name}.") for name in NUMERICAL)]


@pytest.mark.parametrize("name", NUMERICAL)
def test_every_checked_name_is_a_module_of_ours(name: str) -> None:
    module = importlib.import_module(name)
    assert type(module.__loader__).__module__.startswith("jaxtyping")


def test_a_vector_where_a_matrix_belongs_is_refused() -> None:
    with pytest.raises(TypeCheckError):
        stats.sign_flip_max_t(np.zeros(3), 0)
