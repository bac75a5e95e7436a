"""What there is to tell of a prompt template is told by `plan`, and kept in the report of a run."""

import logging
from pathlib import Path

import pytest

from audit.case import CaseFile, load_case
from audit.cli.answer import Answer
from audit.cli.commands.plan import shown
from audit.engine import run, runner
from audit.planning import RunSettings
from audit.probing import Recall, recollection
from audit.runs import run_files
from audit.schema import Case, Texts
from tests.case.test_opened import opened
from tests.case.test_opened import root as root
from tests.planted import planted_package

TWO = "begins with a BOS token"


def _of_the_template(answer: Answer) -> list[str]:
    notes = answer.document["notes"]
    assert isinstance(notes, list)
    return [str(note) for note in notes if "prompt template" in str(note)]


def test_a_literal_bos_is_counted_once_and_told_by_plan(root: Path, caplog: pytest.LogCaptureFixture) -> None:
    plain, stated = opened(root), root / "case.toml"
    stated.write_text(stated.read_text() + '[template]\nprompt = "<bos> {question}"\n')
    with caplog.at_level(logging.WARNING):
        answer = shown(CaseFile.read(stated), root / "out", RunSettings(store=None))
    notes = _of_the_template(answer)
    assert len(notes) == 1 and TWO in str(notes[0]) and "in 14 of 14 items" in str(notes[0])
    assert any(TWO in str(line) for line in answer.shown) and TWO in caplog.text
    texts, literal = Texts(cohort="forget"), opened(root)
    assert plain.notes == () and literal.rows(texts).ids.tolist() == plain.rows(texts).ids.tolist()


def test_a_plan_has_nothing_to_tell_of_an_ordinary_template(root: Path) -> None:
    answer = shown(CaseFile.read(root / "case.toml"), root / "out", RunSettings(store=None))
    assert not _of_the_template(answer) and not any("prompt template" in str(line) for line in answer.shown)


@pytest.mark.thorough
def test_a_report_keeps_what_the_plan_told(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recollection, "recall", lambda *_: Recall(0.9, 0.1, "the null"))  # these models know nothing
    changes = {"template": {"prompt": "<bos> {question}"}}
    case = Case.model_validate(load_case(root / "case.toml").model_dump() | changes)
    with planted_package(root, "planted_template_notes") as package:
        report = run(CaseFile(case, root), root / "out", RunSettings(package=package.name))
    assert [TWO in note for note in report.plan.notes] == [True]
    assert TWO in (root / "out" / run_files.PAGE).read_text()


@pytest.mark.thorough
def test_a_template_under_which_base_recalls_more_is_among_the_limits_of_the_report(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    note = "base recalls more under another prompt template: seam apart"
    monkeypatch.setattr(runner, "check_recall", lambda *_: Recall(0.9, 0.1, "the null", note))
    with planted_package(root, "planted_template_limits") as package:
        report = run(CaseFile.read(root / "case.toml"), root / "out", RunSettings(package=package.name))
    assert report.limits[-1] == note and note in (root / "out" / run_files.PAGE).read_text()
