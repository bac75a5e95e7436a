"""The report in a real browser: no message, no request, nothing runs; it fits, and it can be read, in every look."""

import re
import subprocess
from pathlib import Path
from typing import Any

import pytest

from audit.engine import run
from audit.planning import RunSettings
from audit.render import html, interactive
from audit.schema import Report
from audit.zoo import Built
from tests.browsing import CHROMIUM, FLAGS, PATIENCE_MS
from tests.golden import VARIANTS, Variant, report

SHOWN: tuple[Variant, ...] = ("calibrated", "broken", "hostile")
MOST_PAGES = 12
A4 = {"width": 688, "height": 1016}
"""The printed area of a page in pixels, at 96 to the inch, inside the margins of the style sheet."""

pytestmark = pytest.mark.skipif(not CHROMIUM, reason="no Chromium here; set CHROME_PATH to one")

CONTRAST = """() => {
  const channel = v => { v /= 255; return v <= .03928 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4 };
  const luminance = c => .2126 * channel(c[0]) + .7152 * channel(c[1]) + .0722 * channel(c[2]);
  const parse = s => (s.match(/[\\d.]+/g) || []).map(Number);
  const ground = e => { for (; e; e = e.parentElement) { const c = parse(getComputedStyle(e).backgroundColor);
    if (c.length === 3 || c[3] > 0) return c } return [255, 255, 255] };
  const low = [];
  for (const e of document.querySelectorAll('body *')) {
    const own = [...e.childNodes].some(n => n.nodeType === 3 && n.textContent.trim());
    if (!own || !e.getClientRects().length) continue;
    const style = getComputedStyle(e), ink = parse(e.closest('svg') ? style.fill : style.color);
    const [a, b] = [luminance(ink), luminance(ground(e))].sort((x, y) => y - x);
    if ((a + .05) / (b + .05) < 4.5) low.push(e.tagName + ': ' + e.textContent.trim().slice(0, 40));
  }
  return low;
}"""


@pytest.fixture(params=SHOWN)
def page_file(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    path = tmp_path / "report.html"
    path.write_text(html(report(request.param)), encoding="utf-8")
    return path


@pytest.mark.thorough
def test_no_console_message_no_request_no_dialog_and_nothing_too_faint(browser: Any, page_file: Path) -> None:
    for scheme in ("light", "dark"):
        page = browser.new_page(color_scheme=scheme, viewport={"width": 1100, "height": 1400})
        heard: list[str] = []
        page.on("console", lambda message, heard=heard: heard.append(message.text))
        page.on("pageerror", lambda error, heard=heard: heard.append(str(error)))
        page.on("dialog", lambda dialog, heard=heard: heard.append(dialog.message))
        page.on("request", lambda request, heard=heard: heard.append(request.url))
        page.goto(page_file.as_uri(), timeout=PATIENCE_MS)
        assert heard == [page_file.as_uri()]
        assert page.evaluate(CONTRAST) == []
        assert page.evaluate("document.querySelectorAll('script:not([type=\"application/json\"]), img').length") == 0
        page.close()


@pytest.mark.sampled
@pytest.mark.parametrize("width", [390, 1280])
def test_the_page_never_scrolls_sideways(browser: Any, page_file: Path, width: int) -> None:
    page = browser.new_page(viewport={"width": width, "height": 900})
    page.goto(page_file.as_uri(), timeout=PATIENCE_MS)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    page.close()


@pytest.mark.thorough
def test_print_leaves_out_what_is_closed_and_keeps_what_a_reader_opened(browser: Any, page_file: Path) -> None:
    page = browser.new_page()
    page.goto(page_file.as_uri(), timeout=PATIENCE_MS)
    page.emulate_media(media="print")
    shown = "[...document.querySelectorAll('details table')].filter(t => t.checkVisibility()).length"
    assert page.evaluate(shown) == 0
    short = page.pdf(prefer_css_page_size=True, tagged=True, outline=True)
    assert len(short) > 10_000 and b"/StructTreeRoot" in short and b"/Marked true" in short
    page.evaluate("document.querySelectorAll('details.part').forEach(d => { d.open = true })")
    assert page.evaluate(shown) > 0
    assert pages(page.pdf(prefer_css_page_size=True)) > pages(short)
    page.close()


def pages(pdf: bytes) -> int:
    """How many pages a PDF has that Chromium wrote."""
    return len(re.findall(rb"/Type /Page\b", pdf))


@pytest.mark.thorough
def test_a_link_of_the_contents_opens_its_part_of_the_appendix(browser: Any, page_file: Path) -> None:
    page = browser.new_page()
    page.goto(f"{page_file.as_uri()}#excerpts", timeout=PATIENCE_MS)
    page.wait_for_function("document.querySelectorAll('details.part[open]').length === 1")
    assert page.locator("#excerpts").is_visible() and not page.locator("#items").is_visible()
    page.close()


@pytest.mark.sampled
@pytest.mark.parametrize("variant", VARIANTS)
def test_every_answer_of_page_one_stands_above_the_fold(browser: Any, tmp_path: Path, variant: Variant) -> None:
    path = tmp_path / "report.html"
    path.write_text(html(report(variant)), encoding="utf-8")
    page = browser.new_page(viewport={"width": 1280, "height": 900})
    page.goto(path.as_uri(), timeout=PATIENCE_MS)
    if variant != "hostile":
        assert page.evaluate("document.querySelector('.verdict .lines').getBoundingClientRect().bottom") <= 900
    page.close()


WIDE = "[...document.querySelectorAll('table')].filter(t => t.getBoundingClientRect().right > innerWidth + 1).length"
LONELY = """[...document.querySelectorAll('thead, caption, h2, h3')].filter(
  e => !['avoid', 'avoid-page'].includes(getComputedStyle(e).breakAfter)
    || (e.tagName == 'THEAD' && getComputedStyle(e).display != 'table-header-group')).length"""
"""How many heads may be left alone at the foot of a printed page, or are not repeated on the next."""
LINES = """[...document.querySelectorAll('#conclusion dt')].filter(d => d.textContent === 'How sure?').map(
  d => d.nextElementSibling).map(d => d.getBoundingClientRect().height / parseFloat(getComputedStyle(d).lineHeight))"""


@pytest.mark.sampled
@pytest.mark.parametrize("variant", VARIANTS)
def test_page_one_is_one_page_and_no_table_is_cut_off_in_print(browser: Any, tmp_path: Path, variant: Variant) -> None:
    path = tmp_path / "report.html"
    path.write_text(html(report(variant)), encoding="utf-8")
    page = browser.new_page(viewport=A4)
    page.emulate_media(media="print")
    page.goto(path.as_uri(), timeout=PATIENCE_MS)
    assert page.evaluate(WIDE) == 0
    assert page.evaluate(LONELY) == 0 and page.locator("thead").count() > 0
    if variant != "hostile":
        assert page.evaluate("document.querySelector('.page-one').getBoundingClientRect().bottom") <= A4["height"]
        assert page.evaluate(LINES)[0] <= 8.2
    page.close()


# ---- a real audit -----------------------------------------------------------------------------------------------
@pytest.fixture(scope="module")
def audited(zoo: Built, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run folder of a model that only refuses: it seems to have forgotten."""
    out = tmp_path_factory.mktemp("audited") / "run"
    run(zoo.cases["refusal"], out, RunSettings(threads=1, store=tmp_path_factory.mktemp("store"), demo=True))
    return out


@pytest.mark.slow
def test_a_full_audit_is_small_silent_and_the_same_bytes_when_it_is_made_again(browser: Any, audited: Path) -> None:
    path = audited / "report.html"
    found = Report.model_validate_json((audited / "report.json").read_bytes())
    assert html(found).encode() == path.read_bytes() and len(path.read_bytes()) <= 1_000_000
    page = browser.new_page()
    heard: list[str] = []
    page.on("console", lambda message: heard.append(message.text))
    page.on("request", lambda request: heard.append(request.url))
    page.goto(path.as_uri(), timeout=PATIENCE_MS)
    assert heard == [path.as_uri()]
    page.close()


@pytest.mark.slow
def test_page_one_of_a_fake_unlearning_answers_and_the_whole_is_short(browser: Any, audited: Path) -> None:
    """The scripted rubric, above the fold of a real audit; and its printed body."""
    page = browser.new_page(viewport={"width": 1280, "height": 900})
    page.goto((audited / "report.html").as_uri(), timeout=PATIENCE_MS)
    assert page.evaluate("document.querySelector('.verdict .lines').getBoundingClientRect().bottom") <= 900
    box = page.locator(".verdict .lines").inner_text()
    answers = dict(re.findall(r"^([^\n]+)\n+([^\n]+)$", box, re.M))
    assert re.match(r"False alarms in|No error rate is known|No likelihood ratio", answers["How sure"])
    assert "optimised prompts" in answers["Not tested"] and answers["May it be called erased?"].startswith("No")
    assert answers["How to repeat it"].startswith("residua run case.toml")
    assert pages(page.pdf(prefer_css_page_size=True)) <= MOST_PAGES
    page.close()


# ---- accessibility ----------------------------------------------------------------------------------------------
@pytest.mark.thorough
@pytest.mark.parametrize("scheme", ["light", pytest.param("dark", marks=pytest.mark.slow)])
def test_axe_finds_nothing_serious(browser: Any, axe: str, page_file: Path, scheme: str) -> None:
    page = browser.new_page(color_scheme=scheme, viewport={"width": 1100, "height": 1400}, bypass_csp=True)
    page.goto(page_file.as_uri(), timeout=PATIENCE_MS)
    page.evaluate("document.querySelectorAll('details').forEach(d => { d.open = true })")
    page.evaluate(axe)
    found = page.evaluate("axe.run({runOnly: ['wcag2a', 'wcag2aa', 'wcag21a', 'wcag21aa', 'best-practice']})")
    assert [(v["id"], v["nodes"][0]["html"][:120]) for v in found["violations"]] == []
    assert len(found["passes"]) > 10
    page.close()


@pytest.mark.thorough
def test_live_figures_are_drawn_without_a_request_or_a_message(browser: Any, tmp_path: Path) -> None:
    path = tmp_path / "live.html"
    path.write_text(interactive(report("calibrated")), encoding="utf-8")
    page = browser.new_page(color_scheme="dark")
    heard: list[str] = []
    page.on("console", lambda message: heard.append(message.text))
    page.on("pageerror", lambda error: heard.append(str(error)))
    page.on("request", lambda request: heard.append(request.url))
    page.goto(path.as_uri(), timeout=PATIENCE_MS)
    page.wait_for_selector(".js-plotly-plot .main-svg")
    assert page.evaluate("document.querySelectorAll('.js-plotly-plot .main-svg').length") >= 5
    assert [x for x in heard if not x.startswith("blob:")] == [path.as_uri()]
    page.close()


@pytest.mark.thorough
def test_chromium_alone_reads_the_page_to_its_end(page_file: Path, tmp_path: Path) -> None:
    done = subprocess.run(
        [CHROMIUM, "--headless", *FLAGS, f"--user-data-dir={tmp_path / 'profile'}", "--dump-dom", page_file.as_uri()],
        capture_output=True, text=True, timeout=120, check=True,
    )  # fmt: skip
    assert "End of report UA-" in done.stdout and "<img" not in done.stdout
