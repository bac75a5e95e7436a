"""The dashboard in a real browser: the main path clicked through, in light and dark, silent, and asking nobody else."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from audit.zoo import Built
from dashboards import catalogue
from dashboards.serving import free_port
from tests import run_store
from tests.backdoored import backdoored
from tests.browsing import CHROMIUM
from tests.dashboards.recorded import Served, serving
from tests.dashboards.test_dictionary_page import put, view
from tests.golden import HOSTILE

pytestmark = pytest.mark.skipif(not CHROMIUM, reason="no Chromium here; set CHROME_PATH to one")

TITLES = [leaf.title for leaf in catalogue.leaves()]
IDLE = """() => { const app = document.querySelector('[data-testid="stApp"]');
  return app && app.getAttribute('data-test-script-state') === 'notRunning'
    && !document.querySelector('[data-testid="stSkeleton"]') }"""
WORDLESS = """[...document.querySelectorAll('[data-testid=stPlotlyChart]')].filter(
  chart => !(chart.closest('[role=figure][aria-label]') || chart.querySelector('[role=figure][aria-label]'))).length"""
SIDEWAYS = "document.documentElement.scrollWidth - document.documentElement.clientWidth"
PATIENCE_MS = 90_000


class Heard(NamedTuple):
    """A page, what its console said, and what it asked of other hosts."""

    page: Any
    console: list[str]
    foreign: list[str]


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """One server for all tests: finished runs of several kinds, and a case of the tiny world to start."""
    runs = tmp_path_factory.mktemp("runs")
    run_store.fill(runs, ["calibrated", "consistent", "hostile"])
    run_store.issue(backdoored(), runs / "zoo" / "backdoored")
    put(runs, view(f"<b>pears</b> {HOSTILE}"))
    with serving(runs, free_port(0), tmp_path_factory.mktemp("home"), runs.parent) as server:
        yield server
        assert server.elsewhere() == set()


def visit(browser: Any, served: Served, scheme: str = "light", width: int = 1280, **more: object) -> Heard:
    """A new visitor at the front door; ``more`` of the browser's own settings."""
    size = {"width": width, "height": 1600}
    look = {"color_scheme": scheme, "reduced_motion": "reduce", "locale": "en-GB"}
    context = browser.new_context(viewport=size, **look, **more)
    page = context.new_page()
    page.set_default_timeout(PATIENCE_MS)
    heard = Heard(page, [], [])
    page.on("console", lambda m: heard.console.append(m.text) if m.type == "error" else None)
    page.on("pageerror", lambda e: heard.console.append(str(e)))
    page.on("dialog", lambda d: heard.console.append(f"dialog: {d.message}"))
    own = (served.address, served.address.replace("http", "ws"), "data:", "blob:")
    for asked in ("request", "websocket"):
        page.on(asked, lambda r: None if r.url.startswith(own) else heard.foreign.append(r.url))
    page.goto(served.address)
    rest(page)
    return heard


def rest(page: Any) -> None:
    """Wait until the script has run and everything is drawn."""
    page.wait_for_timeout(250)
    page.wait_for_function(IDLE)


def turn_to(page: Any, title: str) -> None:
    """Open a page by the list."""
    page.locator('[data-testid="stSidebarNavLink"]', has_text=re.compile(f"^{title}$")).click()
    page.locator("h1", has_text=re.compile(f"^{title}$")).wait_for()
    rest(page)


def choose(page: Any, label: str, option: str) -> None:
    """Choose from a list by its label."""
    page.get_by_label(label, exact=True).click()
    page.get_by_role("option", name=option, exact=True).click()
    rest(page)


def click_point(page: Any, chart: str, index: int) -> None:
    """Click a point of a chart where a person would: on its place."""
    point = page.locator(f".st-key-{chart} .scatterlayer .points path").nth(index)
    point.scroll_into_view_if_needed()
    box = point.bounding_box()
    page.mouse.click(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)


def address(page: Any) -> str:
    """The address as it stands in the browser now."""
    return page.evaluate("location.href")


def until(page: Any, words: str, seconds: float = 120) -> None:
    """Wait until the page says something."""
    page.get_by_text(words).first.wait_for(timeout=seconds * 1000)


@pytest.mark.thorough
@pytest.mark.parametrize("scheme", ["light", pytest.param("dark", marks=pytest.mark.slow)])
def test_every_page_opens_silently_asks_no_other_host_and_can_be_read_by_all(
    browser: Any, served: Served, axe: str, scheme: str
) -> None:
    page, console, foreign = visit(browser, served, scheme)
    turn_to(page, "Verdict")
    choose(page, "Suspect checkpoint", "calibrated")
    for title in TITLES:
        turn_to(page, title)
        assert page.evaluate(WORDLESS) == 0
        assert not page.get_by_text("This page broke").count()
        page.evaluate(axe)
        found = page.evaluate("axe.run({runOnly: ['wcag2a', 'wcag2aa', 'wcag21a', 'wcag21aa']})")
        assert [(v["id"], v["nodes"][0]["html"][:120]) for v in found["violations"]] == [], title
    assert (console, foreign) == ([], [])
    page.context.close()


@pytest.mark.thorough
@pytest.mark.parametrize(("scheme", "width"), [
    ("light", 1280), pytest.param("dark", 390, marks=pytest.mark.slow),
])  # fmt: skip
def test_findings_and_maps_can_be_read_by_all(browser: Any, served: Served, axe: str, scheme: str, width: int) -> None:
    page, console, foreign = visit(browser, served, scheme, width)
    for place in ("robustness?", "test_detail?test=attention+sink:+value+norms&"):
        page.goto(f"{served.address}/{place}set=zoo&run=backdoored")
        until(page, "backdoored at a sink: could not be asked")
        rest(page)
        assert page.locator(".heatmaplayer .hm").count() >= 2 and page.evaluate(WORDLESS) == 0
        assert page.evaluate(SIDEWAYS) <= 0
        page.evaluate(axe)
        found = page.evaluate("axe.run({runOnly: ['wcag2a', 'wcag2aa', 'wcag21a', 'wcag21aa']})")
        assert [(v["id"], v["nodes"][0]["html"][:120]) for v in found["violations"]] == [], place
    assert (console, foreign) == ([], [])
    page.context.close()


def test_the_address_of_a_finding_opens_its_page_silently(browser: Any, served: Served) -> None:
    page, console, foreign = visit(browser, served)
    page.goto(f"{served.address}/test_detail?run=calibrated")
    page.locator("h1", has_text="Test detail").wait_for()
    rest(page)
    page.reload()
    page.locator("h1", has_text="Test detail").wait_for()
    rest(page)
    until(page, "Hypothesis")
    assert "test_detail" in address(page)
    assert (console, foreign) == ([], [])
    page.context.close()


@pytest.mark.thorough
def test_the_first_page_is_the_table_of_audits_and_a_key_opens_a_verdict(browser: Any, served: Served) -> None:
    page, console, foreign = visit(browser, served)
    assert page.locator("h1").inner_text() == "Audits" and page.title() == "Audits · Residua"
    assert page.locator(".r-audits tbody tr").count() == 4
    page.get_by_label("Search names and reasons").fill("compatibility")
    page.keyboard.press("Enter")
    until(page, "No audit of this choice")
    page.get_by_label("Search names and reasons").fill("received")
    page.keyboard.press("Enter")
    page.wait_for_function("document.querySelectorAll('.r-audits tbody tr').length === 1")
    page.locator(".r-audits tbody th a").focus()
    page.keyboard.press("Enter")
    page.locator("h1", has_text="Verdict").wait_for()
    rest(page)
    assert page.title() == "Verdict of received · Residua" and "run=consistent" in address(page)
    turn_to(page, "Audits")
    turn_to(page, "Evidence")
    assert page.title() == "Evidence of received · Residua"
    assert (console, foreign) == ([], [])
    page.context.close()


@pytest.mark.slow
def test_hostile_text_runs_nothing_on_any_page(browser: Any, served: Served) -> None:
    page, console, foreign = visit(browser, served)
    turn_to(page, "Verdict")
    choose(page, "Suspect checkpoint", "hostile")
    for title in TITLES:
        turn_to(page, title)
    assert (console, foreign) == ([], [])
    page.context.close()


@pytest.mark.slow
def test_no_page_scrolls_sideways_on_a_telephone(browser: Any, served: Served) -> None:
    page, _, _ = visit(browser, served, width=390)
    for leaf in catalogue.leaves():
        page.goto(f"{served.address}/{'' if leaf.name == 'audits' else leaf.name}?run=calibrated")
        page.locator("h1").wait_for()
        rest(page)
        assert page.evaluate(SIDEWAYS) <= 0, leaf.name
    page.context.close()


@pytest.mark.thorough
def test_from_verdict_to_test_to_layer_to_items_to_download(browser: Any, served: Served) -> None:
    page, console, foreign = visit(browser, served)
    turn_to(page, "Verdict")
    choose(page, "Suspect checkpoint", "calibrated")
    until(page, "52 times more probable")
    turn_to(page, "Compare")
    shown = page.get_by_text(re.compile(r"\d+ of \d+ tests shown"))
    some = int(shown.inner_text().split()[0])
    page.get_by_text("Only what differs from a model that never knew").click()
    page.get_by_text(re.compile(r"tests shown\.$")).wait_for()
    assert int(shown.inner_text().split()[0]) > some
    turn_to(page, "Verdict")
    click_point(page, "matrix", 3)
    page.locator("h1", has_text="Test detail").wait_for()
    rest(page)
    assert "test=reverse" in address(page)
    until(page, "Base's later blocks")
    turn_to(page, "Where")
    choose(page, "Test", "reverse patch: answer positions")
    click_point(page, "depth-reverse_patch-answer-positions", 3)
    page.locator("h1", has_text="Items").wait_for()
    rest(page)
    assert re.search(r"layer=[1-3]", address(page))
    until(page, "24 of 24 items")
    page.get_by_text("Reveal the texts").click()
    until(page, "The texts are shown")
    rest(page)
    page.get_by_label("Search in the texts (only when revealed)").fill("number 7 ")
    page.keyboard.press("Enter")
    until(page, "1 of 24 items")
    turn_to(page, "Report")
    choose(page, "Format", "JSON")
    with page.expect_download() as waiting:
        page.get_by_role("button", name="Download JSON").click()
    document = json.loads(Path(waiting.value.path()).read_text())
    assert document == json.loads((served.runs / "world" / "calibrated" / "report.json").read_text())
    assert (console, foreign) == ([], [])
    page.context.close()


@pytest.mark.slow
def test_a_run_is_planned_started_cancelled_resumed_and_opened(browser: Any, served: Served, zoo: Built) -> None:
    case = zoo.cases["base"]
    page, console, foreign = visit(browser, served)
    turn_to(page, "Run")
    box = page.get_by_label("Case file", exact=True)
    box.click()
    box.fill(str(case))
    page.keyboard.press("Enter")
    rest(page)
    page.get_by_label("Folder of the run, below the folder of runs").fill("tiny/mine")
    page.keyboard.press("Enter")
    rest(page)
    page.get_by_role("button", name="Plan", exact=True).click()
    until(page, "Tests that will run")
    page.get_by_role("button", name="Start", exact=True).click()
    page.get_by_role("button", name="Cancel", exact=True).click()
    rest(page)  # a click that the server has not heard yet is lost with the page
    turn_to(page, "Verdict")
    turn_to(page, "Run")
    until(page, "run was cancelled")
    assert not (served.runs / "tiny" / "mine" / "manifest.sha256").exists()
    page.get_by_role("button", name="Resume", exact=True).click()
    until(page, "run is running")
    page.context.close()

    page, later, elsewhere = visit(browser, served)  # another browser, while the audit goes on
    turn_to(page, "Run")
    until(page, "run is finished", 1200)  # a whole audit, as long as that takes on a busy machine
    page.get_by_role("button", name="Open its verdict").click()
    until(page, "INTACT")
    assert (served.runs / "tiny" / "mine" / "manifest.sha256").exists()
    assert (console + later, foreign + elsewhere) == ([], [])
    page.context.close()
