"""The check of shapes and types at run time: where it hangs, and that it bites."""

import dataclasses
import importlib
from pathlib import Path

import numpy as np
import pytest
from beartype.roar import BeartypeException
from jaxtyping import Float

from audit import stats
from audit.stats import clustered
from tests import toy
from tests.shapes import NUMERICAL, checked

ROOT = Path(__file__).resolve().parents[2]


def test_every_module_that_names_a_shape_is_checked() -> None:
    paths = [path for folder in ("audit", "probes", "saes") for path in (ROOT / folder).rglob("*.py")]
    shaped = [path.relative_to(ROOT) for path in paths if "from jaxtyping import" in path.read_text(encoding="utf-8")]
    modules = [".".join(path.with_suffix("").parts) for path in shaped]
    assert len(modules) > 50
    assert not [m for m in modules if not any(m == name or m.startswith(f"{name}.") for name in NUMERICAL)]


@pytest.mark.parametrize("name", NUMERICAL)
def test_every_checked_name_is_a_module_of_ours(name: str) -> None:
    loader = importlib.import_module(name).__loader__
    assert loader is not None and type(loader).__module__ == "tests.shapes"


def test_a_vector_where_a_matrix_belongs_is_refused() -> None:
    with pytest.raises(BeartypeException):
        stats.sign_flip_max_t(np.zeros(3), 0)


def test_an_axis_has_one_size_within_a_call_and_may_have_another_in_the_next() -> None:
    for n in (4, 5):
        stats.contrast(np.zeros((n, 2)), np.arange(n) > 1)
    with pytest.raises(BeartypeException):
        stats.contrast(np.zeros((4, 2)), np.arange(5) > 1)


def test_a_result_of_another_shape_is_refused() -> None:
    @checked
    def turned(x: Float[np.ndarray, "a b"]) -> Float[np.ndarray, "a b"]:
        return x.T

    turned(np.zeros((2, 2)))
    with pytest.raises(BeartypeException):
        turned(np.zeros((2, 3)))


def test_a_dataclass_with_fields_that_do_not_fit_one_another_is_refused() -> None:
    rows = toy.rows(3)
    with pytest.raises(BeartypeException):
        dataclasses.replace(rows, mask=rows.mask[:2])


def test_what_is_no_array_is_checked_in_a_numerical_module_too() -> None:
    with pytest.raises(BeartypeException):
        clustered.approximate("percentile", "many")  # type: ignore[arg-type]
