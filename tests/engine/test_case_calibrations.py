"""Which calibrations judge a case: those of its base's own kind beside it, and what is said of those that may not."""

import re
from functools import cache
from pathlib import Path
from typing import Any, cast

import pytest

from audit.calibration import SUBJECTS, Bound, OwnKind, ProbeIdentity, own_folder, seal
from audit.case import OpenCase
from audit.engine import case_calibrations
from audit.engine.case_calibrations import OWN_COMMAND, standing_of
from audit.judging import ApplicableCalibrations, Given, decide, judge, validation
from audit.pools.fit import CalibrationSet, calibrate, write_all
from audit.review.verification import restood
from audit.schema import Case, Checkpoint, DataFiles, Roles, Source, Template
from tests.known_truth import DOMAIN, KINDS, ZOO, gate, made, measured, pool, same

BASE = Checkpoint(source="/models/base", family="llama", fingerprint="f" * 64)
RAN = {probe: ProbeIdentity(1, {}) for probe in KINDS}
WORLDS = 16


class _Case:
    """As much of an opened case as is asked for."""

    modality = "text"

    def __init__(self, root: Path) -> None:
        source = Source(path="base")
        self.case = Case(name="own", roles=Roles(base=source, suspect=source), data=DataFiles(forget="f", retain="r"))
        self.root, self.base = root, BASE


@pytest.fixture(autouse=True)
def _nothing_stored(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """What comes with the probes is of another kind of model: a pool in which no case of these lies."""
    out = tmp_path / "stored"
    fitted = made()
    far = {name: c.model_copy(update={"scope": c.scope.model_copy(update={"architectures": ("gpt2",)})})
           for name, c in fitted.calibrations.items()}  # fmt: skip
    write_all(out, fitted._replace(calibrations=far))
    monkeypatch.setattr(case_calibrations, "stored", lambda modality: out)


@cache
def _own(base: str) -> CalibrationSet:
    """The simulated pool, as if one base had been taught all its worlds."""
    own = OwnKind(base=base, template=Bound.of(base, Template()).template, people=16, questions=32, steps=30, share=0.3)
    return calibrate(pool(WORLDS), ZOO._replace(own=own))


def written(root: Path, base: str = BASE.key) -> Path:
    out = own_folder(root, base)
    write_all(out, _own(base))
    seal(out)
    return out


def stands(root: Path, stated: Path | None = None) -> ApplicableCalibrations:
    return standing_of(cast(OpenCase, cast(Any, _Case(root))), stated, RAN, DOMAIN, same)


def test_a_case_is_judged_by_its_bases_own_kind_and_says_so(tmp_path: Path) -> None:
    written(tmp_path)
    found = stands(tmp_path)
    assert set(found.holding) == set(KINDS)
    assert all(use.own and f"this model's own kind, {WORLDS} decoy worlds" in use.because for use in found.uses)
    evidence = tuple(judge(m) for m in (gate(1.0), *(measured(p, 1.0, 12.0) for p in KINDS)))
    weighed, verdict = decide(evidence, Given(references=2, ancestor=True, holdout=True), found)
    because = " ".join(verdict.because)
    assert f"In {WORLDS} decoy worlds its own base was taught 16 invented people (32 questions)" in because
    assert "share one base and are no independent draws of models" in because
    assert f"no ratio can pass {WORLDS + 1}." in because
    assert f"this design cannot show more than {WORLDS + 1}" in verdict.sentence
    texts = next(text for text in verdict.because if "no independent draws" in text)
    assert max(len(sentence.split()) for sentence in re.split(r"[.:] ", texts)) <= 25
    decoys = validation(weighed, verdict, found).decoys  # type: ignore[union-attr]
    assert decoys is not None
    assert (decoys.people, decoys.questions) == (16, 32)
    assert 1 > decoys.false_alarms > verdict.ratio.false_alarms.upper95  # type: ignore[union-attr]


def test_without_one_the_report_names_the_command_that_makes_it(tmp_path: Path) -> None:
    found = stands(tmp_path)
    assert not found.holding
    assert {use.renew for use in found.uses} == {OWN_COMMAND}


@pytest.mark.parametrize("fault", ["changed", "of another base", "unfinished"])
def test_what_may_not_judge_judges_nothing_and_the_report_says_why(tmp_path: Path, fault: str) -> None:
    folder = written(tmp_path, "c" * 64 if fault == "of another base" else BASE.key)
    if fault == "changed":
        (folder / "inside.json").write_text((folder / "inside.json").read_text().replace("1", "2", 1))
    if fault == "unfinished":
        (folder / "files.sha256").unlink()
    texts = {"changed": "have changed", "of another base": "of another base", "unfinished": "not finished"}[fault]
    for found in (stands(tmp_path), stands(tmp_path, folder)):
        assert not found.holding
        assert all(texts in use.because for use in found.uses)


def test_a_finished_run_is_judged_again_by_its_own_kind_where_that_lies_above_it(tmp_path: Path) -> None:
    own, run = written(tmp_path), tmp_path / "runs" / "own"
    run.mkdir(parents=True)
    uses = stands(tmp_path).uses
    nowhere = tmp_path / "stored"
    (own_folder(tmp_path, "0" * 64)).mkdir()
    (own_folder(tmp_path, "0" * 64) / SUBJECTS).write_text("broken, and another model's")
    again = restood(uses, run, nowhere)
    assert again is not None
    assert (again.shelf.folder, set(again.holding)) == (own, set(KINDS))
    others = tuple(use.model_copy(update={"own": False}) for use in uses)
    assert restood(others, run, nowhere) is None
    assert restood(uses, tmp_path.parent, nowhere) is None
    assert restood(uses, tmp_path.parent, own) is not None
