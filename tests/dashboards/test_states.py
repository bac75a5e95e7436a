"""What the dashboard shows where it may not or cannot show a result: every state of a run, and a hostile folder."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import streamlit as st

import dashboards
from audit.runs import manifest, report_id
from audit.schema import Missing, Report
from dashboards import catalogue, items, runs
from dashboards.runs import Run, open_run
from dashboards.serving import RUNS
from dashboards.vault import Refused, Vault
from tests import golden, run_store
from tests.dashboards.test_pages import PAGES, opened, told

SECRET = "the text of a file outside"


def issued(folder: Path, variant: golden.Variant = "suppressed") -> Path:
    run_store.issue(golden.report(variant), folder)
    return folder


def rewritten(folder: Path, change: Callable[[dict[str, object]], None], seal: bool) -> None:
    """Change the document of a finished run; ``seal``: write its manifest anew, as a forger would."""
    path = folder / "report.json"
    document = json.loads(path.read_text())
    change(document)
    path.write_text(json.dumps(document))
    if seal:
        manifest.write(folder)


def state(root: Path, name: str = "world/a") -> Run:
    return open_run(Vault(root), name)


# ---- the states of a run ----------------------------------------------------------------------------------------
@pytest.mark.thorough
def test_a_changed_report_is_withheld_with_both_hashes(tmp_path: Path) -> None:
    folder = issued(tmp_path / "world" / "a")
    rewritten(folder, lambda d: d.update(created="2020-01-01T00:00:00+00:00"), seal=False)
    found = state(tmp_path)
    assert found.state == "withheld" and found.report is None
    assert found.expected in (folder / "manifest.sha256").read_text() and len(found.actual) == 64
    shown = told(opened(tmp_path, "verdict"))
    assert (
        "results withheld" in shown and found.expected in shown and found.actual in shown and "SUPPRESSED" not in shown
    )


def test_a_report_that_was_resealed_is_withheld_by_its_id(tmp_path: Path) -> None:
    folder = issued(tmp_path / "world" / "a")
    rewritten(folder, lambda d: d["verdict"].update(word="INTACT"), seal=True)  # type: ignore[attr-defined]
    assert state(tmp_path).state == "withheld"


def test_a_report_without_a_manifest_is_withheld(tmp_path: Path) -> None:
    folder = issued(tmp_path / "world" / "a")
    (folder / "manifest.sha256").unlink()
    (folder / "plan.json").unlink()
    assert state(tmp_path).state == "withheld"


def test_an_unfinished_run_shows_no_number_and_no_verdict(tmp_path: Path) -> None:
    folder = issued(tmp_path / "world" / "a")
    (folder / "manifest.sha256").unlink()
    shown = told(opened(tmp_path, "verdict"))
    assert "not finished" in shown and "withheld until the planned family is complete" in shown
    assert "SUPPRESSED" not in shown


@pytest.mark.parametrize(("version", "says"), [("0.9", "earlier major"), ("7.0", "or later"), (None, "no version")])
def test_another_schema_version_says_both_and_which_residua_opens_it(
    tmp_path: Path, version: str | None, says: str
) -> None:
    folder = issued(tmp_path / "world" / "a")
    rewritten(folder, lambda d: d.update(schema_version=version), seal=True)
    found = state(tmp_path)
    assert found.state == "foreign" and runs.VERSIONS[-1] in found.reason and says in found.reason + found.do
    assert "Another schema version" in told(opened(tmp_path, "verdict"))


def test_a_report_of_an_earlier_minor_version_opens(tmp_path: Path) -> None:
    folder = issued(tmp_path / "world" / "a")
    report = Report.model_validate_json((folder / "report.json").read_bytes()).model_copy(
        update={"schema_version": "1.0"}
    )
    rewritten(folder, lambda d: d.update(schema_version="1.0", report_id=report_id(report)), seal=True)
    assert state(tmp_path).state == "final"


def test_a_report_that_is_too_big_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    issued(tmp_path / "world" / "a")
    monkeypatch.setattr(runs, "REPORT_CAP", 100)
    assert state(tmp_path).state == "too big"


@pytest.mark.parametrize("text", ["{", "[]", "null", '{"schema_version": "1.1"}', "[" * 100_000, "\x00\xff"])
def test_a_broken_document_is_a_state_and_no_crash(tmp_path: Path, text: str) -> None:
    folder = issued(tmp_path / "world" / "a")
    (folder / "report.json").write_text(text)
    manifest.write(folder)
    assert state(tmp_path).state in ("unreadable", "foreign")


@pytest.mark.sampled
@pytest.mark.parametrize("page", PAGES)
def test_every_page_of_an_empty_folder_says_how_to_fill_it(tmp_path: Path, page: str) -> None:
    at = opened(tmp_path / "runs", page)
    shown = told(at)
    assert "This page broke" not in shown
    own = {"forecast": ("No forecasts here", "residua forecast"), "dictionary": ("", "residua sae train"),
           "edit": ("Name a case file", "residua init")}  # fmt: skip
    missing, remedy = own.get(page, ("No runs in", "residua demo"))
    assert page == "run" or (missing in shown and any(remedy in c.value for c in at.code))


@pytest.mark.thorough
def test_a_case_without_reference_says_how_far_its_verdict_may_go(tmp_path: Path) -> None:
    report = golden.report("consistent")
    roles = report.plan.case.roles.model_copy(update={"references": ()})
    case = report.plan.case.model_copy(update={"roles": roles})
    run_store.issue(
        report.model_copy(update={"plan": report.plan.model_copy(update={"case": case})}), tmp_path / "w" / "a"
    )
    for page in ("verdict", "compare"):
        assert "at most weak" in told(opened(tmp_path, page))


def test_a_test_that_did_not_run_has_a_cell_with_its_reason(tmp_path: Path) -> None:
    report = golden.report("suppressed")
    assert report.skips
    run_store.issue(report, tmp_path / "world" / "a")
    shown = told(opened(tmp_path, "verdict"))
    assert f"Not run: {report.skips[0].reason}" in shown


def test_an_error_of_ours_is_a_panel_with_an_id_and_a_log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    issued(tmp_path / "world" / "a")
    monkeypatch.setenv("RESIDUA_CACHE", str(tmp_path / "cache"))

    def broken(*_: object) -> None:
        raise RuntimeError(SECRET)

    monkeypatch.setattr("audit.render.figures.comparison_figures.columns", broken)
    st.cache_resource.clear()
    shown = told(opened(tmp_path, "verdict"))
    assert "This page broke" in shown and SECRET not in shown
    log = (tmp_path / "cache" / "dashboard.log").read_text()
    assert SECRET in log and log.split()[1] in shown


# ---- items ------------------------------------------------------------------------------------------------------
def test_items_whose_table_was_changed_are_withheld(tmp_path: Path) -> None:
    folder = issued(tmp_path / "world" / "a")
    for path in (folder / "tables").glob("*.parquet"):
        path.write_bytes(path.read_bytes() + b" ")
    shown = told(opened(tmp_path, "items"))
    assert "does not hash to what the report states" in shown and "withheld" in shown


def test_items_are_masked_until_they_are_asked_for(tmp_path: Path) -> None:
    issued(tmp_path / "world" / "a")
    at = opened(tmp_path, "items")
    first = at.dataframe[0].value.iloc[0]
    assert "Dunmare" not in str(tuple(first)) and first["target"] == "‹masked, 7 words›"
    assert at.text_input(key="q").disabled
    at.toggle(key="reveal").set_value(True).run()
    assert "Dunmare" in at.dataframe[0].value.iloc[0]["target"]
    assert "The texts are shown" in told(at)
    at.text_input(key="q").set_value("number 7 ").run()
    assert len(at.dataframe[0].value) == 1


@pytest.mark.thorough
def test_a_large_table_comes_in_pages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run_store.issue(golden.report("suppressed"), tmp_path / "world" / "a", run_store.items(20_500))
    at = opened(tmp_path, "items")
    assert len(at.dataframe[0].value) == 200
    assert "drawn as a density" in told(at)


# ---- hostile folders --------------------------------------------------------------------------------------------
@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of runs made by an enemy, beside a file that is none of its business."""
    place = tmp_path_factory.mktemp("hostile")
    root = place / "runs"
    (place / "secret.json").write_text(SECRET)
    issued(root / "w" / "honest")
    run_store.fill(root, ["hostile"])
    for name in ("<img src=x onerror=alert(1)>", "[a](javascript:alert(1))", "a\u202eb\x1b[31m", "x" * 200):
        issued(root / "w" / name)
    (root / "w" / "broken").mkdir()
    (root / "w" / "broken" / "report.json").write_text("{" * 10_000)
    (root / "w" / "broken" / "manifest.sha256").write_text("no checksums")
    linked = issued(root / "w" / "linked")
    (linked / "report.json").unlink()
    (linked / "report.json").symlink_to(place / "secret.json")
    (root / "w" / "folder link").symlink_to(place)
    os.mkfifo(issued(root / "w" / "pipe") / "events.jsonl")
    (root / "w" / "pipe" / "plan.json").unlink()
    os.mkfifo(root / "w" / "pipe" / "plan.json")
    long = issued(root / "w" / "long")
    rewritten(long, lambda d: d.update(reproduce="x" * 33_000_000), seal=True)
    return root


def hostile_names(root: Path) -> list[str]:
    return sorted(p.name for p in (root / "w").iterdir() if p.is_dir() and not p.is_symlink())


def test_a_hostile_folder_shows_nothing_unverified_and_breaks_no_page(hostile: Path) -> None:
    states = {name: state(hostile, f"w/{name}").state for name in hostile_names(hostile)}
    assert states["honest"] == "final" and states["linked"] == "unreadable" and states["broken"] == "withheld"
    assert states["long"] == "too big" and states["pipe"] == "final"
    for name in hostile_names(hostile):
        at = opened(hostile, "verdict", set="w", run=name)
        shown = told(at)
        assert "This page broke" not in shown and SECRET not in shown
        shown = shown.replace('<img class="r-drawing r-axes"', "")  # our own drawing of the axes
        assert "<img" not in shown and "javascript:" not in shown.replace("[a](javascript:alert(1))", "")
    assert "folder link" not in [folder.name for folder in runs.folders(Vault(hostile))]


@pytest.mark.sampled
@pytest.mark.parametrize("page", PAGES)
def test_no_page_shows_hostile_text_as_markup(hostile: Path, page: str) -> None:
    at = opened(hostile, page, set="world", run="hostile")
    shown = told(at) + "".join(m.value for m in (*at.markdown, *at.caption))
    assert "This page broke" not in shown
    shown = shown.replace('<img class="r-drawing"', "")  # the report's own drawings
    assert "<img" not in shown and "onerror=alert(1)>" not in shown.replace("onerror=alert(1)&gt;", "")
    assert "\x1b" not in shown and "\u202e" not in shown


def test_no_path_leads_out_of_the_folder(tmp_path: Path) -> None:
    root = tmp_path / "runs"
    (root / "a").mkdir(parents=True)
    (tmp_path / "secret").write_text(SECRET)
    (root / "link").symlink_to(tmp_path)
    (root / "a" / "file").symlink_to(tmp_path / "secret")
    (root / "a" / "plain").write_text("inside")
    vault = Vault(root)
    assert vault.read("a/plain", 10) == b"inside"
    for path in (
        "../secret",
        "a/../../secret",
        "/etc/hostname",
        "link/secret",
        "a/file",
        "a",
        "",
        "a/plain/x",
        "a\x00",
    ):
        with pytest.raises(Refused):
            vault.read(path, 100)
        assert vault.stamp(path) is None


def test_a_table_that_a_report_places_outside_is_not_read(tmp_path: Path) -> None:
    run_store.issue(golden.report("suppressed"), tmp_path / "w" / "a")
    report = state(tmp_path, "w/a").report
    assert report is not None
    table = next(e.measurement.items for e in report.evidence if not isinstance(e.measurement.items, Missing))
    with pytest.raises(Refused, match="leads out"):
        items.read(Vault(tmp_path / "w"), "a", table.model_copy(update={"path": "../../secret"}))


# ---- the house --------------------------------------------------------------------------------------------------
@pytest.mark.thorough
def test_the_dashboard_imports_no_torch_on_any_page(tmp_path: Path) -> None:
    issued(tmp_path / "world" / "a")
    start = Path(dashboards.__file__).parent / "entry" / "start.py"
    code = (
        "import sys; from streamlit.testing.v1 import AppTest\n"
        f"at = AppTest.from_file({str(start)!r}, default_timeout=60).run()\n"
        f"for page in {PAGES!r}:\n    at.switch_page(f'../pages/{{page}}.py').run(); assert not at.exception\n"
        "heavy = ('torch', 'transformers', 'safetensors', 'sae_lens', 'transformer_lens', 'nnsight')\n"
        "print([m for m in heavy if m in sys.modules])"
    )
    environment = {**os.environ, RUNS: str(tmp_path), "PYTHONPATH": str(Path(dashboards.__file__).parent.parent)}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.strip().splitlines()[-1] == "[]"


def test_a_page_is_a_file_that_states_its_place_and_asks_a_question(tmp_path: Path) -> None:
    (tmp_path / "second.py").write_text('"""Is it so?"""\nORDER = 2\nraise SystemExit\n')
    (tmp_path / "first_of_all.py").write_text('"""Is it?\n\nMore."""\nORDER = 1\n')
    (tmp_path / "_shared.py").write_text("")
    found = catalogue.leaves(tmp_path)
    assert [(leaf.title, leaf.question) for leaf in found] == [("First of all", "Is it?"), ("Second", "Is it so?")]
    assert len(PAGES) == len(set(PAGES)) and PAGES[0] == "audits"
