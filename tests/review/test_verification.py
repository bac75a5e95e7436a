"""A finished run is held against everything that can be computed again; each fault is told on its own.

The folder is made by hand from judged measurements, so that one thing at a time can be changed and signed again: the
manifest alone never finds these, because whoever changes a file can write a new manifest.
"""

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from audit.calibration import zoo_floors
from audit.judging import decision_rule, given, heard, judge, taking_part, verdict
from audit.render import html, interactive
from audit.review import verify_run
from audit.review.verification import ALONE, Verification
from audit.runs import code_version, custody, documents, manifest, report_id
from audit.schema import AuditError, Missing, Report, Table
from tests import golden

TABLE = "tables/forget_likelihood.parquet"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run as the engine leaves it."""
    folder = tmp_path_factory.mktemp("made") / "run"
    whole_run.make(folder)
    return folder


@pytest.fixture
def folder(made: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(made, tmp_path / "run"))


@pytest.fixture
def issued(made: Path) -> Report:
    return Report.model_validate_json((made / "report.json").read_bytes())


def named(report: Report) -> Report:
    """The report with the id that its content gives it."""
    return report.model_copy(update={"report_id": report_id(report)})


def verified(folder: Path, document: object) -> Verification:
    """Write another report into a run folder, sign it, and verify it."""
    text = document.model_dump_json(indent=1) if isinstance(document, Report) else document
    (folder / "report.json").write_text(text if isinstance(text, str) else json.dumps(text))
    for name in ("report.html", "report.md", "junit.xml"):
        (folder / name).unlink(missing_ok=True)
    made = document if isinstance(document, Report) else Report.model_validate_json(SEEN["issued"])
    whole_run.sign(folder, made)
    return verify_run(folder)


def outcome(report: Report) -> Report:
    changed = report.evidence[1].model_copy(update={"outcome": "trace found"})
    return report.model_copy(update={"evidence": (report.evidence[0], changed, *report.evidence[2:])})


def value(report: Report) -> Report:
    changed = report.evidence[0].measurement.model_copy(update={"value": 0.31})
    return report.model_copy(
        update={"evidence": (report.evidence[0].model_copy(update={"measurement": changed}), *report.evidence[1:])}
    )


def rung(report: Report) -> Report:
    return report.model_copy(update={"verdict": report.verdict.model_copy(update={"word": "PARTIAL"})})


def rule(report: Report) -> Report:
    return report.model_copy(update={"decision_rule": ("INTACT if it suits.",)})


CHANGES: dict[str, tuple[Callable[[Report], Report], str]] = {
    "an outcome": (outcome, "evidence forget_likelihood.probability: states 'trace found', its numbers give"),
    "a number": (value, "evidence utility.retain probability: states"),
    "the verdict": (rung, "verdict: states PARTIAL, the numbers give SUPPRESSED"),
    "the rule": (rule, "the decision rule printed is not the one in force"),
}


def test_a_run_as_it_was_issued_is_accepted(tmp_path: Path) -> None:
    found = verified(tmp_path, issued())
    assert found.accepted and found.problems == found.remarks == ()
    assert verify_run(tmp_path / "report.json") == found


@pytest.mark.parametrize("what", CHANGES)
def test_what_was_changed_and_signed_again_is_told(tmp_path: Path, what: str) -> None:
    change, told = CHANGES[what]
    found = verified(tmp_path, named(change(issued())))
    assert not found.accepted
    assert any(problem.startswith(told) for problem in found.problems), found.problems
    assert not any("report_id" in problem for problem in found.problems)


@pytest.mark.parametrize("what", CHANGES)
def test_numbers_judged_by_another_version_are_a_remark_and_no_problem(tmp_path: Path, what: str) -> None:
    change, told = CHANGES[what]
    changed = change(issued())
    other = changed.model_copy(update={"plan": changed.plan.model_copy(update={"code_version": "0.0.1+0"})})
    found = verified(tmp_path, named(other))
    assert found.accepted
    assert found.remarks[0].startswith("made by code 0.0.1+0")
    assert any(remark.startswith(told) for remark in found.remarks[1:])


def test_an_id_that_the_document_does_not_give_is_told(tmp_path: Path) -> None:
    found = verified(tmp_path, issued().model_copy(update={"demo": False}))
    (problem,) = found.problems
    assert problem.startswith("report.json, report_id: states UA-")


def test_times_are_no_part_of_the_id(tmp_path: Path) -> None:
    found = verified(tmp_path, issued().model_copy(update={"created": "2031-01-01T00:00:00Z", "timings": ()}))
    assert found.accepted


@pytest.mark.parametrize(
    ("table", "told"),
    [(None, "tables/gate.parquet is missing"), (b"another", "tables/gate.parquet does not hash to what")],
)
def test_a_table_of_items_is_held_against_the_report(tmp_path: Path, table: bytes | None, told: str) -> None:
    (problem,) = verified(tmp_path, issued(), table).problems
    assert problem.startswith(told)


def test_a_file_that_changed_after_signing_is_told(tmp_path: Path) -> None:
    verified(tmp_path, issued())
    (tmp_path / "tables" / "gate.parquet").write_bytes(b"another")
    assert "tables/gate.parquet: changed" in verify_run(tmp_path).problems


def test_what_the_schema_refuses_is_told_with_its_place(tmp_path: Path) -> None:
    document: dict[str, Any] = json.loads(issued().model_dump_json())
    document["verdict"]["word"] = "ERASED"
    found = verified(tmp_path, document)
    assert any(problem.startswith("report.json, $.verdict.word: 'ERASED'") for problem in found.problems)
    assert found.problems[-1] == "report.json cannot be read: 1 problems"


def test_what_is_no_json_is_told(tmp_path: Path) -> None:
    assert any("is not JSON" in problem for problem in verified(tmp_path, "{").problems)


# ---- the pages --------------------------------------------------------------------------------------------------
def test_a_page_that_shows_another_report_is_told_with_its_line(tmp_path: Path) -> None:
    report = issued()
    for name, content in documents(report).items():
        (tmp_path / name).write_bytes(content)
    page = (tmp_path / "report.md").read_text().split("\n")
    page[4] += " and more"
    (tmp_path / "report.md").write_text("\n".join(page))
    found = verified(tmp_path, report)
    assert found.problems == ("report.md, line 5: is not what report.json gives",)


def test_a_report_of_its_own_is_verified_as_far_as_it_goes_and_that_is_said(tmp_path: Path) -> None:
    lone = tmp_path / "sent.json"
    lone.write_bytes(documents(issued())["report.json"])
    assert verify_run(lone).accepted and verify_run(lone).remarks == (ALONE,)
    lone.write_text(json.dumps(json.loads(named(rung(issued())).model_dump_json())))
    assert verify_run(lone).problems == ("verdict: states PARTIAL, the numbers give SUPPRESSED",)


def test_a_page_of_its_own_is_verified_by_the_data_in_it(tmp_path: Path) -> None:
    page, report = tmp_path / "sent.html", issued()
    for text in ("<html>nothing inside</html>", html(report) + html(report)):
        page.write_text(text)
        with pytest.raises(AuditError, match="holds no report as data"):
            verify_run(page)
    for text in (html(report), interactive(report)):
        page.write_text(text)
        assert verify_run(page).accepted and verify_run(page).remarks == (ALONE,)
        page.write_text(text.replace("SUPPRESSED", "INTACT", 1))
        (problem,) = verify_run(page).problems
        assert problem.startswith("report.html, line ") and problem.endswith("is not what report.json gives")
    page.write_text(html(named(rung(report))))
    assert verify_run(page).problems == ("verdict: states PARTIAL, the numbers give SUPPRESSED",)


# ---- custody ----------------------------------------------------------------------------------------------------
def test_a_report_without_its_custody_log_is_told_unless_it_is_older_than_that(tmp_path: Path) -> None:
    verified(tmp_path, issued())
    (tmp_path / custody.NAME).unlink()
    assert verify_run(tmp_path).problems == ("custody.jsonl: no line says that the report was issued",)
    old = named(issued().model_copy(update={"schema_version": "1.1"}))
    (tmp_path / "report.json").write_text(old.model_dump_json())
    manifest.write(tmp_path)
    found = verify_run(tmp_path)
    assert found.accepted and "before there was a custody log" in found.remarks[0]


def test_a_manifest_written_anew_is_not_the_one_that_was_issued(tmp_path: Path) -> None:
    verified(tmp_path, issued())
    (tmp_path / "slipped_in.txt").write_text("x")
    manifest.write(tmp_path)
    (problem,) = verify_run(tmp_path).problems
    assert problem.startswith("manifest.sha256: does not hash to what custody.jsonl, line ")


def test_an_exhibit_that_nobody_received_is_told(tmp_path: Path) -> None:
    report = issued()
    verified(tmp_path, report)
    (tmp_path / custody.NAME).unlink()
    custody.issue(tmp_path, report.report_id, tmp_path / manifest.NAME, "test")
    problems = verify_run(tmp_path).problems
    assert len(problems) == len(report.exhibits)
    assert problems[0].startswith(f"custody.jsonl: no line received {report.exhibits[0].role} ")


def test_a_folder_without_a_report_is_no_run(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(AuditError) as caught:
            verify_run(path)
        assert caught.value.code == 2
