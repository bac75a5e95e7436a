"""A finished run is held against everything that can be computed again; each fault is told on its own.

The folder is made by hand from judged measurements, so that one thing at a time can be changed and signed again: the
manifest alone never finds these, because whoever changes a file can write a new manifest.
"""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from audit.render import html, interactive
from audit.review import verify_run
from audit.review.verification import Verification
from audit.runs import ALONE, custody, documents, manifest, plan_hash_of, report_id
from audit.schema import AuditError, Plan, Report
from tests import whole_run

TABLE = "tables/forget_likelihood.parquet"


@pytest.fixture
def issued(made: Path) -> Report:
    return Report.model_validate_json((made / "report.json").read_bytes())


def named(report: Report) -> Report:
    """The report with the id that its content gives it."""
    return report.model_copy(update={"report_id": report_id(report)})


def verified(folder: Path, report: Report, document: str | None = None) -> Verification:
    """Write another report, or another document, into a run folder, without pages, sign it, and verify it."""
    (folder / "report.json").write_text(document or report.model_dump_json(indent=1))
    for name in ("report.html", "report.md", "junit.xml"):
        (folder / name).unlink(missing_ok=True)
    whole_run.sign(folder, report)
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


CONCLUSIONS: dict[str, tuple[Callable[[Report], Report], str]] = {
    "an outcome": (outcome, 'evidence.forget_likelihood.probability.outcome: states "trace found", its numbers give'),
    "the verdict": (rung, 'verdict.word: states "PARTIAL", its numbers give "SUPPRESSED"'),
    "the rule": (rule, 'decision_rule[0]: states "INTACT if it suits.", its numbers give'),
}
CHANGES = CONCLUSIONS | {
    "a number": (value, "measurements.utility.retain probability.value: states 0.31, what the folder")
}


def test_a_run_as_it_was_issued_is_accepted(folder: Path) -> None:
    found = verify_run(folder)
    assert found.accepted and found.problems == found.remarks == ()
    assert verify_run(folder / "report.json") == found


@pytest.mark.parametrize("what", CHANGES)
def test_what_was_changed_and_signed_again_is_told(folder: Path, issued: Report, what: str) -> None:
    change, told = CHANGES[what]
    found = verified(folder, named(change(issued)))
    assert not found.accepted
    assert any(problem.startswith(told) for problem in found.problems), found.problems
    assert not any("report_id" in problem for problem in found.problems)


def of_another_version(folder: Path, report: Report) -> Report:
    """The report and its plan, as a version of another name would have left them."""
    plan = Plan.model_validate_json((folder / "plan.json").read_bytes()).model_copy(update={"code_version": "0.0.1+0"})
    renamed = plan.model_copy(update={"plan_hash": plan_hash_of(plan)})
    (folder / "plan.json").write_text(renamed.model_dump_json(indent=1))
    changes = {"code_version": renamed.code_version, "plan_hash": renamed.plan_hash}
    tool = report.tool | {"version": "0.0.1", "code": renamed.code_version}
    return report.model_copy(update={"plan": report.plan.model_copy(update=changes), "tool": tool})


@pytest.mark.parametrize("what", CONCLUSIONS)
def test_what_another_version_concluded_is_a_remark_and_no_problem(folder: Path, issued: Report, what: str) -> None:
    change, told = CONCLUSIONS[what]
    found = verified(folder, named(of_another_version(folder, change(issued))))
    assert found.accepted, found.problems
    assert found.remarks[0].startswith("made by code 0.0.1+0")
    assert any(remark.startswith(told) for remark in found.remarks[1:])


def test_a_number_that_no_unit_gives_is_a_problem_whatever_version_wrote_it(folder: Path, issued: Report) -> None:
    found = verified(folder, named(of_another_version(folder, value(issued))))
    assert [p for p in found.problems if p.startswith(CHANGES["a number"][1])]


def test_an_id_that_the_document_does_not_give_is_told(folder: Path, issued: Report) -> None:
    found = verified(folder, issued.model_copy(update={"demo": False}))
    (problem,) = found.problems
    assert problem.startswith("report.json, report_id: states UA-")


def test_the_date_is_no_part_of_the_id(folder: Path, issued: Report) -> None:
    assert verified(folder, issued.model_copy(update={"created": "2031-01-01T00:00:00Z"})).accepted


@pytest.mark.parametrize(
    ("table", "told"),
    [
        (None, "tables/forget_likelihood.parquet is missing"),
        (b"another", "tables/forget_likelihood.parquet does not hash to what"),
    ],
)
def test_a_table_of_items_is_held_against_the_report(
    folder: Path, issued: Report, table: bytes | None, told: str
) -> None:
    (folder / TABLE).unlink() if table is None else (folder / TABLE).write_bytes(table)
    assert any(problem.startswith(told) for problem in verified(folder, issued).problems)


def test_a_file_that_changed_after_signing_is_told(folder: Path) -> None:
    (folder / TABLE).write_bytes(b"another")
    assert f"{TABLE}: changed" in verify_run(folder).problems


def test_what_the_schema_refuses_is_told_with_its_place(folder: Path, issued: Report) -> None:
    document: dict[str, Any] = json.loads(issued.model_dump_json())
    document["verdict"]["word"] = "ERASED"
    found = verified(folder, issued, json.dumps(document))
    assert any(problem.startswith("report.json, $.verdict.word: 'ERASED'") for problem in found.problems)
    assert found.problems[-1] == "report.json cannot be read: 1 problems"


def test_what_is_no_json_is_told(folder: Path, issued: Report) -> None:
    assert any("is not JSON" in problem for problem in verified(folder, issued, "{").problems)


def test_a_unit_that_cannot_be_read_is_told(folder: Path, issued: Report) -> None:
    path = next((folder / "units").iterdir())
    path.write_text("{}")
    assert f"units/{path.name} cannot be read" in verified(folder, issued).problems


def test_of_two_units_of_a_probe_the_one_is_meant_whose_times_the_report_states(folder: Path, issued: Report) -> None:
    path = next(p for p in (folder / "units").iterdir() if "reverse_patch" in p.read_text())
    other = json.loads(path.read_text())
    other["timing"]["cpu_s"], other["measurements"][0]["value"] = 9.0, 0.1
    for key in ("0" * 31 + "9", "f" * 32):
        (folder / "units" / f"{key}.json").write_text(json.dumps(other | {"key": key}))
    assert verified(folder, issued).accepted


# ---- the pages --------------------------------------------------------------------------------------------------
def test_a_page_that_shows_another_report_is_told_with_its_line(folder: Path, issued: Report) -> None:
    page = (folder / "report.md").read_text().split("\n")
    page[4] += " and more"
    (folder / "report.md").write_text("\n".join(page))
    whole_run.sign(folder, issued)
    assert verify_run(folder).problems == ("report.md, line 5: is not what report.json gives",)


def test_a_report_of_its_own_is_verified_as_far_as_it_goes_and_that_is_said(tmp_path: Path, issued: Report) -> None:
    lone = tmp_path / "sent.json"
    lone.write_bytes(documents(issued)["report.json"])
    assert verify_run(lone).accepted and verify_run(lone).remarks == (ALONE,)
    lone.write_text(named(rung(issued)).model_dump_json())
    assert verify_run(lone).problems == (CONCLUSIONS["the verdict"][1],)
    lone.write_text(named(issued.model_copy(update={"limits": issued.limits[1:]})).model_dump_json())
    assert verify_run(lone).problems[0].startswith("limits[0]: states")


def test_a_page_of_its_own_is_verified_by_the_data_in_it(tmp_path: Path, issued: Report) -> None:
    page = tmp_path / "sent.html"
    for text in ("<html>nothing inside</html>", html(issued) + html(issued)):
        page.write_text(text)
        with pytest.raises(AuditError, match="holds no report as data"):
            verify_run(page)
    for text in (html(issued), interactive(issued)):
        page.write_text(text)
        assert verify_run(page).accepted and verify_run(page).remarks == (ALONE,)
        page.write_text(text.replace("SUPPRESSED", "INTACT", 1))
        (problem,) = verify_run(page).problems
        assert problem.startswith("report.html, line ") and problem.endswith("is not what report.json gives")
    page.write_text(html(named(rung(issued))))
    assert verify_run(page).problems == (CONCLUSIONS["the verdict"][1],)


# ---- custody ----------------------------------------------------------------------------------------------------
def test_a_report_without_its_custody_log_is_told_unless_it_is_older_than_that(folder: Path, issued: Report) -> None:
    (folder / custody.NAME).unlink()
    assert "custody.jsonl: no line says that the report was issued" in verify_run(folder).problems
    old = named(of_another_version(folder, issued.model_copy(update={"schema_version": "1.1"})))
    (folder / "report.json").write_text(old.model_dump_json())
    plan = json.loads((folder / "plan.json").read_text())
    plan["settings_sha256"] = ""  # as plans were before the log held what was received
    (folder / "plan.json").write_text(json.dumps(plan))
    for name in ("report.html", "report.md", "junit.xml"):
        (folder / name).unlink()
    manifest.write(folder)
    found = verify_run(folder)
    assert "before there was a custody log" in found.remarks[0]
    assert [p for p in found.problems if "plan.settings_sha256" not in p] == []


def test_a_manifest_written_anew_is_not_the_one_that_was_issued(folder: Path) -> None:
    (folder / "slipped_in.txt").write_text("x")
    manifest.write(folder)
    (problem,) = verify_run(folder).problems
    assert problem.startswith("manifest.sha256: does not hash to what custody.jsonl, line ")


def test_an_exhibit_that_nobody_received_is_told(folder: Path, issued: Report) -> None:
    (folder / custody.NAME).unlink()
    custody.issue(folder, issued.report_id, folder / manifest.NAME, "test")
    problems = [p for p in verify_run(folder).problems if "no line received" in p]
    assert len(problems) == len(issued.exhibits)
    assert problems[0].startswith(f"custody.jsonl: no line received {issued.exhibits[0].role} ")


def test_a_folder_without_a_report_is_no_run(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(AuditError) as caught:
            verify_run(path)
        assert caught.value.code == 2


def test_reading_a_finished_run_loads_neither_torch_nor_the_heavy_half_of_scipy(made: Path) -> None:
    code = "import sys; from audit.cli import main\ncode = main(['report', sys.argv[1]])\nassert code in (0, 4)\n"
    code += "print([m for m in ('torch', 'transformers', 'scipy.stats', 'scipy.optimize') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code, str(made)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "[]"
