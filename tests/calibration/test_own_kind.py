"""Calibrations of a model's own kind: found beside the case, and refused where they are another's or changed."""

from pathlib import Path

import pytest

from audit.calibration import SEAL, SUBJECTS, Bound, OwnKind, find_own, own_folder, refusal, seal
from audit.pools.fit import write_all
from audit.schema import Template
from tests.known_truth import made

BASE = "b" * 64
BOUND = Bound.of(BASE, Template())
OWN = OwnKind(base=BASE, template=BOUND.template, people=16, questions=32, steps=30, share=0.3)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A sealed calibration of this base, beside a case."""
    out = own_folder(tmp_path, BASE)
    fitted = made()
    write_all(out, fitted._replace(subjects=fitted.subjects.model_copy(update={"own": OWN})))
    seal(out)
    return out


def test_a_sealed_calibration_of_this_base_is_found_beside_the_case(folder: Path, tmp_path: Path) -> None:
    found = find_own(tmp_path, BOUND)
    assert found is not None
    assert (found.path, found.refused) == (folder, "")


def test_where_no_calibration_of_any_own_kind_lies_nothing_is_said(tmp_path: Path) -> None:
    assert find_own(tmp_path, BOUND) is None


def test_a_calibration_of_another_base_or_template_is_refused(folder: Path, tmp_path: Path) -> None:
    other = Bound.of("c" * 64, Template())
    found = find_own(tmp_path, other)
    assert found is not None
    assert "another base" in found.refused
    assert "another base" in refusal(folder, other)
    assert "another prompt template" in refusal(folder, Bound.of(BASE, Template(prompt="Q: {question}")))


@pytest.mark.parametrize("name", ["inside.json", SUBJECTS, "joint.json"])
def test_a_changed_file_is_seen_and_its_calibration_judges_nothing(folder: Path, name: str) -> None:
    path = folder / name
    path.write_text(path.read_text().replace("1", "2", 1))
    assert refusal(folder, BOUND)


def test_what_was_not_finished_judges_nothing(folder: Path) -> None:
    (folder / SEAL).unlink()
    assert "not finished" in refusal(folder, BOUND)
    (folder / SUBJECTS).unlink()
    (folder / "scores").mkdir()
    assert "not finished" in refusal(folder, BOUND)


def test_calibrations_of_a_pool_are_nobodys_own_kind(tmp_path: Path) -> None:
    write_all(tmp_path, made())
    assert refusal(tmp_path, BOUND) == ""
