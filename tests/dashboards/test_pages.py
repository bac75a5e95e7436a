"""Every page of the dashboard on every kind of report and in every state, run without a browser."""

import functools
import os
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from streamlit.components.v2 import manifest_scanner
from streamlit.testing.v1 import AppTest

import dashboards
from audit.render import html, report_sections
from audit.schema import Listing
from dashboards import catalogue, show
from dashboards.serving import RUNS
from studies.speed.run_store import Extent, make
from tests import golden, run_store
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
