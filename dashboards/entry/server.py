"""The dashboard as a web application: Streamlit's own, behind a first page that knows two things more.

It knows where its server is: Streamlit's guesses that from its own address, so that every page but the first would
begin with two requests that fail, and with two errors in the console. And it knows that charts will come, and loads the
code that draws them while its reader reads the first page.
"""

from functools import cache
from pathlib import Path
from typing import Final

import streamlit
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import HTMLResponse
from starlette.routing import Route
from streamlit.starlette import App

from dashboards import catalogue
from dashboards.same_origin import SameOrigin
from dashboards.serving import own_names

STATIC: Final = Path(streamlit.__file__).parent / "static"
HEAD: Final = "<head>"


CHARTS: Final = """
(function rest() {
  const drawn = document.querySelector('[data-test-script-state="notRunning"] h1');
  setTimeout(drawn ? () => requestIdleCallback(() => import("./static/js/NAME")) : rest, 800);
})();"""


@cache
def first_page() -> str:
    """Streamlit's first page with both in its head; without the second where this Streamlit has no such file."""
    script = "window.__streamlit = {BACKEND_BASE_URL: window.location.origin};"
    for chart in sorted((STATIC / "static" / "js").glob("PlotlyChart.*.js")):
        script += CHARTS.replace("NAME", chart.name)
    return (STATIC / "index.html").read_text(encoding="utf-8").replace(HEAD, f"{HEAD}<script>{script}</script>", 1)


async def answer(_: Request) -> HTMLResponse:
    """The first page, under the address of any page of the catalogue."""
    return HTMLResponse(first_page(), headers={"Cache-Control": "no-cache"})


ADDRESSES: Final = ("/", *(f"/{leaf.name}" for leaf in catalogue.leaves()))
app = App(
    Path(__file__).parent / "start.py", routes=[Route(address, answer) for address in ADDRESSES],
    middleware=[Middleware(SameOrigin, names=own_names())],
)  # fmt: skip
