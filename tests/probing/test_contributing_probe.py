"""The probe on the page for contributors, as a stranger would take it: one file in a package of its own."""

import re
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from audit.bench import Bench
from audit.case import open_case
from audit.plugins import describe, discover
from audit.probing import Probe
from audit.schema import Interval, Measurement, Missing, Table
from tests import planted_world
from tests.house.test_probe_imports import breaches

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = "contributed"


def page() -> str:
    """The one Python block of the page."""
    (block,) = re.findall(r"^```python\n(.*?)^```", (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8"), re.M | re.S)
    return block


@pytest.fixture(scope="module")
def probe() -> Iterator[type[Probe]]:
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / PACKAGE).mkdir()
        (Path(folder) / PACKAGE / "__init__.py").touch()
        (Path(folder) / PACKAGE / "answer_rank.py").write_text(page())
        sys.path.insert(0, folder)
        try:
            yield discover(PACKAGE, Probe)["answer_rank"]
        finally:
            sys.path.remove(folder)
            for name in [name for name in sys.modules if name.split(".")[0] == PACKAGE]:
                del sys.modules[name]


def measured(probe: type[Probe], suspect: str, out: Path, *, holdout: bool = True, known: bool = True) -> Measurement:
    case = planted_world.case(suspect, references=("null", "floor") if known else (), holdout=holdout)
    (found,) = probe().measure(Bench(), open_case(case, planted_world.root(), out))
    assert Measurement.model_validate_json(found.model_dump_json()) == found
    return found


@pytest.mark.thorough
def test_probe_of_the_page_tells_planted_from_clean(probe: type[Probe], tmp_path: Path) -> None:
    base, clean = (measured(probe, suspect, tmp_path) for suspect in ("base", "clean"))
    assert isinstance(base.value, float) and isinstance(clean.value, float)
    assert base.value == pytest.approx(1.0) and abs(clean.value) < 0.2
    assert isinstance(base.p, float) and base.p < 0.01
    assert isinstance(clean.p, float) and clean.p > 0.01
    assert isinstance(clean.ci95, Interval) and clean.ci95.lo <= 0.0 <= clean.ci95.hi
    assert isinstance(clean.items, Table) and (tmp_path / clean.items.path).is_file()


def test_probe_of_the_page_says_what_is_missing(probe: type[Probe], tmp_path: Path) -> None:
    differenced = measured(probe, "base", tmp_path, known=False)
    assert differenced.value == pytest.approx(1.0)
    nothing = measured(probe, "base", tmp_path, holdout=False, known=False)
    assert isinstance(nothing.value, Missing) and "no holdout people" in nothing.value.missing


def test_page_shows_one_short_file_that_keeps_to_the_rules() -> None:
    text = page()
    assert len(text.splitlines()) <= 70
    assert breaches(text) == []
    assert max(map(len, text.splitlines())) <= 120


def test_probe_of_the_page_describes_itself(probe: type[Probe]) -> None:
    (described,) = describe(PACKAGE)
    assert described.class_name == probe.__name__ == "AnswerRank" and described.question.endswith("?")
    for part in ("Null:", "Positive control:", "Blind to:", "Cite:"):
        assert part in described.docstring
