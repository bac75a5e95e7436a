"""The report in a real browser: no message, no request, nothing runs; it fits, and it can be read, in every look."""

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from audit.render.html import html
from tests.golden import Variant, report

CHROMIUM = os.environ.get("CHROME_PATH") or shutil.which("chromium") or shutil.which("google-chrome") or ""
FLAGS = [
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
]  # fmt: skip
SHOWN: tuple[Variant, ...] = ("suppressed", "broken", "hostile")

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


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """One headless Chromium for this module."""
    driver = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    with driver.sync_playwright() as playwright:
        found = playwright.chromium.launch(executable_path=CHROMIUM, headless=True, args=FLAGS)
        yield found
        found.close()


@pytest.fixture(params=SHOWN)
def page_file(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    path = tmp_path / "report.html"
    path.write_text(html(report(request.param)), encoding="utf-8")
    return path


def test_no_console_message_no_request_no_dialog_and_nothing_too_faint(browser: Any, page_file: Path) -> None:
    for scheme in ("light", "dark"):
        page = browser.new_page(color_scheme=scheme, viewport={"width": 1100, "height": 1400})
        heard: list[str] = []
        page.on("console", lambda message, heard=heard: heard.append(message.text))
        page.on("pageerror", lambda error, heard=heard: heard.append(str(error)))
        page.on("dialog", lambda dialog, heard=heard: heard.append(dialog.message))
        page.on("request", lambda request, heard=heard: heard.append(request.url))
        page.goto(page_file.as_uri())
        assert heard == [page_file.as_uri()]
        assert page.evaluate(CONTRAST) == []
        assert page.evaluate("document.querySelectorAll('script, img').length") == 0
        page.close()


@pytest.mark.parametrize("width", [390, 1280])
def test_the_page_never_scrolls_sideways(browser: Any, page_file: Path, width: int) -> None:
    page = browser.new_page(viewport={"width": width, "height": 900})
    page.goto(page_file.as_uri())
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    page.close()


def test_print_opens_every_table_of_data(browser: Any, page_file: Path) -> None:
    page = browser.new_page()
    page.goto(page_file.as_uri())
    hidden = "[...document.querySelectorAll('details table')].filter(t => !t.checkVisibility()).length"
    assert page.evaluate(hidden) > 0, "folded on the screen"
    page.emulate_media(media="print")
    assert page.evaluate(hidden.replace("checkVisibility()", "getClientRects().length")) == 0
    assert len(page.pdf()) > 10_000
    page.close()


def test_chromium_alone_reads_the_page_to_its_end(page_file: Path, tmp_path: Path) -> None:
    done = subprocess.run(
        [CHROMIUM, "--headless", *FLAGS, f"--user-data-dir={tmp_path / 'profile'}", "--dump-dom", page_file.as_uri()],
        capture_output=True, text=True, timeout=120, check=True,
    )  # fmt: skip
    assert "End of report UA-" in done.stdout and "<img" not in done.stdout
