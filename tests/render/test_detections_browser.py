"""A report with findings and maps in a real browser: quiet, readable in every look, and page one still one page."""

from pathlib import Path
from typing import Any

import pytest

from audit.render import html, interactive
from tests.backdoored import BACKDOORED, SHORT, UNASKED, recovery, sinks, strings, with_measurements
from tests.browsing import CHROMIUM, PATIENCE_MS
from tests.golden import Variant, report
from tests.render.test_report_browser import A4, CONTRAST, WIDE

pytestmark = pytest.mark.skipif(not CHROMIUM, reason="no Chromium here; set CHROME_PATH to one")

ON_PAGE = CONTRAST.replace("if (!own ||", "if (e.style.fill || !own ||")
"""Numbers in the cells of a map stand on the colour of their cell and not on the page's: another test reads those."""


def page_of(folder: Path, variant: Variant, live: bool = False) -> str:
    """The address of a page of such a report."""
    shown = with_measurements(report(variant), recovery(SHORT), strings(BACKDOORED), sinks(UNASKED))
    path = folder / f"{variant}-{live}.html"
    path.write_text(interactive(shown) if live else html(shown), encoding="utf-8")
    return path.as_uri()


@pytest.mark.thorough
def test_it_is_quiet_readable_and_never_scrolls_sideways(browser: Any, tmp_path: Path) -> None:
    address = page_of(tmp_path, "suppressed")
    for scheme, width in (("light", 1100), ("dark", 1100), ("light", 390)):
        page = browser.new_page(color_scheme=scheme, viewport={"width": width, "height": 1400})
        heard: list[str] = []
        page.on("console", lambda message, heard=heard: heard.append(message.text))
        page.on("pageerror", lambda error, heard=heard: heard.append(str(error)))
        page.goto(address, timeout=PATIENCE_MS)
        assert heard == [] and page.evaluate(ON_PAGE) == []
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        page.close()


def test_every_map_has_words_for_those_who_do_not_see_it(browser: Any, tmp_path: Path) -> None:
    page = browser.new_page()
    page.goto(page_of(tmp_path, "suppressed"), timeout=PATIENCE_MS)
    names = page.evaluate("[...document.querySelectorAll('svg[role=img]')].map(e => e.getAttribute('aria-label'))")
    assert sum(" by block and position" in name for name in names) == 2 and all(names)
    cut = "[...document.querySelectorAll('figure svg text')].filter(e => { const b = e.getBBox(); return b.x < 0 || " \
          "b.x + b.width > e.ownerSVGElement.viewBox.baseVal.width }).map(e => e.textContent)"  # fmt: skip
    assert page.evaluate(cut) == []
    page.close()


@pytest.mark.thorough
@pytest.mark.parametrize("variant", ["suppressed", "calibrated", "consistent"])
def test_page_one_is_one_page_with_a_finding_beside_the_verdict(browser: Any, tmp_path: Path, variant: Variant) -> None:
    page = browser.new_page(viewport=A4)
    page.emulate_media(media="print")
    page.goto(page_of(tmp_path, variant), timeout=PATIENCE_MS)
    assert page.evaluate(WIDE) == 0
    assert page.evaluate("document.querySelector('.page-one').getBoundingClientRect().bottom") <= A4["height"]
    assert page.evaluate("document.querySelector('.beside').getClientRects().length") > 0
    page.close()


@pytest.mark.thorough
def test_live_maps_are_drawn_and_quiet(browser: Any, tmp_path: Path) -> None:
    page = browser.new_page(viewport={"width": 1100, "height": 900})
    heard: list[str] = []
    page.on("console", lambda message: heard.append(message.text))
    page.on("pageerror", lambda error: heard.append(str(error)))
    page.goto(page_of(tmp_path, "suppressed", live=True), timeout=PATIENCE_MS)
    page.wait_for_function("document.querySelectorAll('.js-plotly-plot .hm').length >= 3", timeout=PATIENCE_MS)
    assert heard == []
    page.close()
