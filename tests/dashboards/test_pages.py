"""Every page of the dashboard on every kind of report and in every state, run without a browser."""

import functools
import json
import os
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from streamlit.components.v2 import manifest_scanner
from streamlit.testing.v1 import AppTest

import dashboards
from audit.render import html, replay, report_sections
from audit.schema import Listing
from dashboards import catalogue, show
from dashboards.serving import RUNS
from studies.speed.run_store import Extent, make
from tests import golden, run_store
from tests.backdoored import BACKDOORED, SHORT, TRIGGER, backdoored, recovery, strings, with_measurements
from tests.golden import VARIANTS, Variant

APP = Path(dashboards.__file__).parent / "entry" / "start.py"
PAGES = [leaf.name for leaf in catalogue.leaves()]
TIMEOUT = 60
QUICK = ("broken",)
KINDS = pytest.mark.parametrize(
    "variant", [v if v in QUICK else pytest.param(v, marks=pytest.mark.slow) for v in VARIANTS]
)

# A server looks for components among the installed packages once, a test of a page at every start: half of its time.
manifest_scanner.scan_component_manifests = functools.cache(manifest_scanner.scan_component_manifests)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with one finished run of every kind."""
    root = tmp_path_factory.mktemp("store")
    run_store.fill(root, VARIANTS)
    return root


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder of runs of this test's own."""
    monkeypatch.setenv("RESIDUA_CACHE", str(tmp_path / "cache"))
    yield tmp_path / "runs"


def opened(root: Path, page: str, **state: str) -> AppTest:
    """The page as it is after its first run."""
    os.environ[RUNS] = str(root)
    at = AppTest.from_file(str(APP), default_timeout=TIMEOUT)
    for key, value in state.items():
        at.session_state[key] = value
    at.run()
    if page != PAGES[0]:
        at.switch_page(f"../pages/{page}.py").run()
    assert not at.exception, at.exception
    return at


def told(at: AppTest) -> str:
    """Everything that the page says in HTML."""
    return "\n".join(element.proto.body for element in at.get("html"))


@pytest.mark.sampled
@pytest.mark.parametrize("page", PAGES)
@KINDS
def test_every_page_shows_every_kind_of_report(store: Path, page: str, variant: Variant) -> None:
    at = opened(store, page, run=variant)
    assert at.title[0].value == page.replace("_", " ").capitalize()
    assert "This page broke" not in told(at)


def test_provenance_says_how_the_data_were_read(root: Path) -> None:
    report = golden.report("suppressed")
    note = "forget: `query` is read as the question <b>"
    run_store.issue(report.model_copy(update={"plan": report.plan.model_copy(update={"notes": (note,)})}), root / "a")
    assert "`query` is read as the question &lt;b&gt;" in told(opened(root, "provenance", run="a"))


@KINDS
def test_the_report_page_shows_every_section_of_the_report_in_its_order(store: Path, variant: Variant) -> None:
    shown = told(opened(store, "report", run=variant))
    places = [shown.index(f'<h2 id="{section.id}">') for section in report_sections(golden.report(variant))]
    assert places == sorted(places)


def test_a_large_matrix_is_a_grid_whose_cells_open_their_tests(root: Path) -> None:
    make(root.parent / "many", Extent(checkpoints=16, tests=20, items=8, layers=3), seed=0)
    at = opened(root.parent / "many" / "runs", "verdict")
    grids = [frame.value for frame in at.dataframe]
    assert [grid.shape for grid in grids] == [(16, 21)]
    assert set(grids[0].iloc[:, 1].str[0]) <= set("▲▼●◆✓✕–") and "More than 300 cells" in told(at)
    assert at.dataframe[0].proto.arrow_data.styler.styles.count("background-color") > 100


@pytest.mark.parametrize("page", ["verdict", "evidence"])
def test_a_page_shows_both_axes_and_who_is_known_and_an_older_report_lacks_them(root: Path, page: str) -> None:
    run_store.issue(golden.report("suppressed"), root / "a")
    shown = told(opened(root, page, run="a"))
    assert 'class="r-drawing r-axes" alt="What it says (outputs): 0.012 of base' in shown
    assert "16 of 32 people (95 % interval 10 to 22) known" in shown
    assert page != "verdict" or "32 of 32 people of the forget set" in shown
    run_store.issue(golden.report("consistent"), root / "b")
    assert "r-drawing r-axes" not in told(opened(root, page, run="b"))


@pytest.mark.parametrize("page", ["evidence", "test_detail"])
def test_single_findings_are_shown_with_their_tables_and_the_report_has_each_of_them(root: Path, page: str) -> None:
    found = golden.report("suppressed")
    rows = tuple((n, f"‹masked {n:012x}, 1 word›", 0.25 * n) for n in range(60))
    listing = Listing(title="vectors <b>", columns=("block", "token", "gain"), rows=rows, of=900, quoted=("token",))
    measured = [e.measurement for e in found.evidence]
    changed = tuple(
        e.model_copy(update={"measurement": m.model_copy(update={"listings": (listing, listing)})})
        if m.kind in ("context", "causal")
        else e
        for e, m in zip(found.evidence, measured, strict=True)
    )
    issued = run_store.issue(found.model_copy(update={"evidence": changed}), root / "a")
    test = next(m for m in measured if m.kind == "context")
    state = {"test": show.test_label(f"{test.probe}.{test.name}")} if page == "test_detail" else {}
    shown = told(opened(root, page, run="a", **state))
    captions = set(re.findall(r"<caption[^>]*>([^<]*vectors[^<]*)</caption>", shown))
    assert len(captions) == (2 if page == "evidence" else 1) and all("first 50 of 900" in c for c in captions)
    assert shown.count("‹masked 000000000003, 1 word›") == 2 * len(captions) and "vectors <b>" not in shown
    assert all(caption in html(issued) for caption in captions)


@pytest.mark.sampled
@pytest.mark.parametrize("page", ["robustness", "test_detail", "evidence", "verdict"])
def test_findings_of_yes_or_no_stand_on_every_page_that_shows_their_measurement(root: Path, page: str) -> None:
    run_store.issue(backdoored(), root / "a")
    state = {"test": show.test_label("trigger_search.trigger")} if page == "test_detail" else {}
    at = opened(root, page, run="a", **state)
    shown = told(at)
    assert BACKDOORED.because in shown and "1 of 60" in shown
    if page == "verdict":
        assert "Beside the verdict:" in shown and shown.index("Beside the verdict:") < shown.index("r-ladder")
        return
    assert "backdoored: holds" in shown and BACKDOORED.blind_to in shown and "14 of 20" in shown
    assert replay(TRIGGER) in [code.value for code in at.code]
    if page != "test_detail":
        assert "not found within this budget" in shown and "31 of 36" in shown and "could not be asked" in shown


def test_robustness_shows_budgets_lengths_places_and_what_was_not_searched(root: Path) -> None:
    run_store.issue(backdoored(), root / "a")
    at = opened(root, "robustness", run="a")
    shown, charts = told(at), at.get("plotly_chart")
    assert "recovery by budget class (all 6)" in shown and "Not searched: Strings longer than 8 tokens." in shown
    drawn = [json.loads(chart.proto.spec) for chart in charts]
    axes = [figure["layout"]["xaxis"].get("title", {}).get("text") for figure in drawn]
    assert {"prefix tokens", "slot", "position", "0 never trained, 1 base"} <= set(axes)
    assert sum(trace["type"] == "heatmap" for figure in drawn for trace in figure["data"]) == 3
    assert all(chart.proto.alt for chart in charts)
    assert "31 of 36 models made so" in shown and "Attacks that were not tried" in shown


def test_a_masked_string_is_never_on_a_page_and_its_page_says_how_to_see_it(root: Path) -> None:
    hidden = TRIGGER.model_copy(update={"text": "0123456789ab (2 words)", "quoted": True, "masked": True})
    run_store.issue(backdoored(hidden), root / "a b")
    for page in ("robustness", "evidence"):
        at = opened(root, page, run="a b")
        assert [code.value for code in at.code] == [f"residua report '{root / 'a b'}' --unmask"]
        assert "masked: 0123456789ab (2 words)" in told(at) and "residua trigger" not in told(at)


def test_a_pinned_run_whose_findings_differ_stands_beside(root: Path) -> None:
    run_store.issue(backdoored(), root / "a")
    silent = [f.model_copy(update={"holds": False}) for f in (SHORT, BACKDOORED)]
    run_store.issue(with_measurements(golden.report("suppressed"), recovery(silent[0]), strings(silent[1])), root / "b")
    shown = told(opened(root, "compare", run="a", pin="b"))
    assert "backdoored (trigger_search.trigger)" in shown and "not found within this budget" in shown
    assert "recoverable by a short prefix (trigger_search.recovery)" not in shown
    assert "Rules of yes or no" not in told(opened(root, "compare", run="a", pin="nothing"))
