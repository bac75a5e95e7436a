"""Formats of a report: build servers, spreadsheets, live figures, and what `residua report` writes."""

import csv
import io
import json
import re
from pathlib import Path
from xml.etree import ElementTree

import pytest

from audit.cli import main
from audit.render import html, interactive, junit, report_sections, sheets
from audit.render.wording.posterior import posterior
from audit.runs import report_id
from audit.runs.masking import KEY
from audit.schema import Report
from tests import run_store
from tests.golden import HOSTILE, RATIO, VARIANTS, Variant, report
from tests.runs.test_masking import numbered, with_tables

SUITES: dict[Variant, tuple[str, ...]] = {
    "suppressed": ("failure", "skipped", "system-out", "failure", "failure", "skipped"),
    "consistent": ("system-out", "skipped", "system-out", "system-out", "system-out"),
    "inconclusive": ("skipped", "skipped", "system-out", "skipped", "skipped"),
    "invalid": ("skipped", "skipped", "system-out", "system-out", "system-out"),
    "broken": ("skipped", "skipped", "system-out", "system-out", "error", "skipped"),
}


# ---- JUnit ------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("variant", SUITES)
def test_junit_has_the_verdict_and_every_planned_test_as_a_case(variant: Variant) -> None:
    found = report(variant)
    suite = ElementTree.fromstring(junit(found))[0]
    assert [case.get("name") for case in suite] == ["verdict", *(t.probe for t in found.plan.tests)]
    assert tuple(case[0].tag for case in suite) == SUITES[variant]
    tags = [case[0].tag for case in suite]
    counts = {"tests": len(tags), "failures": tags.count("failure"), "errors": tags.count("error")}
    assert {name: int(suite.get(name) or -1) for name in counts} == counts
    assert all(case[0].get("message") or case[0].text for case in suite)


# ---- CSV --------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("variant", VARIANTS)
def test_every_table_of_every_section_is_a_sheet_and_no_cell_is_a_formula(variant: Variant) -> None:
    found = report(variant)
    files = sheets(found)
    grids = [b for s in report_sections(found) for b in s.blocks if b.kind in ("grid", "figure")]
    assert len(files) == len(grids)
    for name, text in files.items():
        rows = list(csv.reader(io.StringIO(text)))
        assert re.fullmatch(r"[a-z0-9-]+\.csv", name) and len({len(row) for row in rows}) == 1, name
        assert not [cell for row in rows for cell in row if cell.startswith(("=", "+", "-", "@"))]


# ---- live figures -----------------------------------------------------------------------------------------------
def test_the_live_page_holds_the_library_once_and_the_static_sections_all() -> None:
    found = report("calibrated")
    page = interactive(found)
    assert page == interactive(found)
    assert page.count("plotly.js v") == 1 and len(page.encode()) < 8_000_000
    assert "script-src 'unsafe-inline'" in page and "https://cdn" not in page.split("<body>")[1]
    assert [s.id for s in report_sections(found)] == re.findall(r'<section id="([a-z-]+)"', page)
    ids = re.findall(r'id="(live-\d+)"', page)
    assert len(ids) == len(set(ids)) == 5, "four families that can be placed, and one profile"


# ---- a reader's prior -------------------------------------------------------------------------------------------
def test_a_posterior_is_shown_only_with_a_prior_and_then_both() -> None:
    from audit.render import html, markdown

    found = report("calibrated")
    for view in (html, markdown):
        assert "osterior" not in view(found)
        shown = view(found, 0.1)
        assert "Prior odds of 0.10" in shown and "posterior odds of 5.2 (95 % interval 1.4 to ≥ 6.1)" in shown
        assert "a probability of 9 %" in shown and "a probability of 84 %" in shown
        assert "No likelihood ratio is given" in view(report("suppressed"), 0.1)
    capped = RATIO.model_copy(update={"value": RATIO.ceiling})
    assert "posterior odds of ≥ 6100000" in posterior(capped, 1e5).replace("6.1×10⁶", "6100000")
    assert "a probability of ≥ 86 %" in posterior(capped, 0.1)
    assert "above 99 %" in posterior(capped, 1e5) and "below 1 %" in posterior(capped, 1e-6)


# ---- the verb ---------------------------------------------------------------------------------------------------
@pytest.fixture
def run(tmp_path: Path) -> Path:
    folder = tmp_path / "run"
    folder.mkdir()
    found = with_tables(folder, numbered(12))
    (folder / "report.json").write_text(found.model_dump_json())
    (folder / KEY).write_text("0" * 64)
    run_store.sign(found, folder)
    return folder


def test_report_writes_a_folder_with_every_format_and_no_key(run: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert main(["report", str(run), "-o", str(out)]) == 0
    written = {path.relative_to(out).as_posix() for path in out.rglob("*") if path.is_file()}
    assert {"report.json", "report.html", "report.md", "junit.xml"} <= written and KEY not in written
    assert sum(name.startswith("sheets/") for name in written) > 10
    before = {name: (out / name).read_bytes() for name in written}
    assert main(["report", str(out), "-o", str(out)]) == 0
    assert {name: (out / name).read_bytes() for name in written} == before


def test_unmasking_is_asked_for_warns_and_names_its_parent(run: Path, tmp_path: Path) -> None:
    parent = Report.model_validate_json((run / "report.json").read_bytes())
    for name in ("clear.html", "clear.md", "clear.json"):
        assert main(["report", str(run), "-o", str(tmp_path / name), "--unmask"]) == 0
        assert main(["report", str(run), "-o", str(tmp_path / f"masked-{name}")]) == 0
        clear, masked = (tmp_path / name).read_text(), (tmp_path / f"masked-{name}").read_text()
        assert "number 3 of them" in clear and "number 3 of them" not in masked
        assert parent.report_id in clear and ("nmasked" in clear or "masked" in json.loads(clear))
        assert name == "clear.json" or ("Unmasked." in clear and "Unmasked." not in masked)
    derived = Report.model_validate_json((tmp_path / "clear.json").read_bytes())
    assert derived.parent == parent.report_id != derived.report_id == report_id(derived)
    assert Report.model_validate_json((run / "report.json").read_bytes()) == parent


@pytest.mark.parametrize(
    ("flags", "told"),
    [
        (["-o", "x.docx"], "no such format"),
        (["-o", "x.md", "--interactive"], "only a page can be interactive"),
        (["-o", "x.json", "--prior-odds", "2"], "a prior is the reader's"),
    ],
)
def test_what_cannot_be_written_is_said(
    run: Path, flags: list[str], told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["report", str(run), *flags]) == 2
    assert told in capsys.readouterr().err


def test_a_refused_format_names_all_those_that_the_help_does(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["report", "--help"])
    offered = set(re.findall(r"(?:_EVAL|\.model-index)?\.(?:html|pdf|md|json|xml|yml)\b", capsys.readouterr().out))
    assert main(["report", str(run), "-o", "x.csv"]) == 2
    refusal = capsys.readouterr().err
    assert len(offered) >= 6 and all(ending in refusal for ending in offered), offered


@pytest.mark.parametrize("odds", ["0", "-1", "inf", "nan", "much"])
def test_odds_are_above_zero(run: Path, odds: str) -> None:
    with pytest.raises(SystemExit):
        main(["report", str(run), "--prior-odds", odds])


def test_the_footers_of_a_printed_page_are_of_one_font() -> None:
    footers = re.findall(r"@(?:bottom|top)-[a-z]+\{[^}]*font:([^;}]+)", html(report("suppressed")))
    assert len(footers) == 2 and len(set(footers)) == 1, footers


def test_hostile_text_is_harmless_to_build_servers_and_spreadsheets() -> None:
    found = report("hostile")
    hidden = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u200b-\u200f\u202a-\u202e\u2060-\u2069\ufeff]")
    for name, text in {"junit": junit(found), **sheets(found)}.items():
        assert not hidden.search(text) and HOSTILE not in text and len(text) < 200_000, name
    ElementTree.fromstring(junit(found))
    page = interactive(found)
    assert "<img src" not in page.split("<body>")[1] and not hidden.search(page.split("<body>")[1])
