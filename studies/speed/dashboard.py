"""How long does the dashboard take? ``python -m studies.speed.dashboard --out studies/speed/dashboard.json``.

A server of its own reads a store of 50 checkpoints x 20 tests x 10 000 items, and a headless Chromium (found as
``chromium`` or by ``CHROME_PATH``) looks at it as a person does. Wall seconds on whatever machine this is; the load
before the run is recorded, and nothing else should run meanwhile.
"""

import argparse
import importlib
import logging
import os
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Any, Final, NamedTuple

import psutil
from rich.console import Console
from rich.table import Table

from audit.schema import Record
from audit.storage import write_atomic
from dashboards.serving import free_port
from studies.provenance import Stamp, stamp
from studies.speed.run_store import FULL_EXTENT, Extent, make

log = logging.getLogger(__name__)
COLD, NEW, WARM = "first paint, cold", "first paint, new browser", "first paint, warm"
GOALS: Final = {COLD: 8.0, NEW: 3.0, WARM: 3.0, "page switch": 2.0}
"""Cold: server and browser begin. New browser: the server has shown the page. Warm: the browser saw it too."""
READING_MS: Final = 3000
"""How long the first page is looked at before the next is asked for."""
MEMORY_GOAL_MB: Final = 1000.0
FLAGS: Final = ("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking")
DRAWN: Final = """() => { const app = document.querySelector('[data-testid="stApp"]');
  return app && app.getAttribute('data-test-script-state') === 'notRunning'
    && !document.querySelector('[data-testid="stSkeleton"]') }"""


class Row(NamedTuple):
    """What is timed, on which page, and how long it took."""

    event: str
    page: str
    seconds: float


class Timed(Record):
    """Wall seconds of one thing: median, and range over repeats; ``goal_s`` is to be met by the median."""

    what: str
    page: str
    median_s: float
    min_s: float
    max_s: float
    repeats: int
    goal_s: float

    @property
    def met(self) -> bool:
        """Does the median keep the goal?"""
        return self.median_s <= self.goal_s


class Measured(Record):
    """All of it: the store's size, times, and the server's largest resident memory, one figure a server."""

    stamp: Stamp
    command: str
    checkpoints: int
    tests: int
    items: int
    times: tuple[Timed, ...]
    server_mb: tuple[float, ...]
    memory_goal_mb: float = MEMORY_GOAL_MB


@contextmanager
def served(runs: Path) -> Iterator[tuple[str, psutil.Process]]:
    """The dashboard of a folder in a process of its own; yields its address and the process."""
    port = free_port(0)
    command = [sys.executable, "-m", "audit.cli", "dashboard", str(runs), "--port", str(port)]
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    address = f"http://127.0.0.1:{port}"
    try:
        while True:
            try:
                urllib.request.urlopen(f"{address}/_stcore/health", timeout=5)
                break
            except (urllib.error.URLError, ConnectionError):
                if server.poll() is not None:
                    raise RuntimeError("the dashboard did not start") from None
                time.sleep(0.1)
        yield address, psutil.Process(server.pid)
    finally:
        server.terminate()
        server.wait()


def first_paint(page: Any, address: str) -> float:
    """Seconds from the address to the table of all audits drawn."""
    begin = time.perf_counter()
    page.goto(address)
    page.wait_for_selector(".r-audits tbody tr")
    page.wait_for_function(DRAWN)
    return time.perf_counter() - begin


def switches(page: Any) -> Iterator[Row]:
    """Seconds from a click in the list to the page of that title, drawn; every page once."""
    titles = page.locator('[data-testid="stSidebarNavLink"]').all_inner_texts()
    for title in [*titles[1:], titles[0]]:
        begin = time.perf_counter()
        page.locator('[data-testid="stSidebarNavLink"]', has_text=title).first.click()
        page.locator("h1", has_text=title).wait_for()
        page.wait_for_function(DRAWN)
        yield Row("page switch", title, time.perf_counter() - begin)


def measure(runs: Path, servers: int, visits: int) -> tuple[list[Row], list[float]]:
    """Every row of every repeat, and each server's memory after all pages were visited."""
    rows, memory = list[Row](), list[float]()
    driver = importlib.import_module("playwright.sync_api")
    chromium = os.environ.get("CHROME_PATH") or shutil.which("chromium") or ""
    with driver.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, headless=True, args=FLAGS)
        for number in range(servers):
            with served(runs) as (address, process):
                for visit in range(visits + 1):
                    context = browser.new_context(viewport={"width": 1280, "height": 1600}, reduced_motion="reduce")
                    context.set_default_timeout(120_000)
                    rows.append(Row(NEW if visit else COLD, "Audits", first_paint(context.new_page(), address)))
                    if visit:
                        page = context.new_page()
                        rows.append(Row(WARM, "Audits", first_paint(page, address)))
                        page.wait_for_timeout(READING_MS)
                        rows += switches(page)
                    context.close()
                memory.append(process.memory_info().rss / 1e6)
                log.info("server %d of %d: %.0f MB", number + 1, servers, memory[-1])
        browser.close()
    return rows, memory


def summaries(rows: list[Row]) -> tuple[Timed, ...]:
    """The spread of every row."""
    kinds = dict.fromkeys((row.event, row.page) for row in rows)
    seconds = {kind: [row.seconds for row in rows if (row.event, row.page) == kind] for kind in kinds}
    return tuple(
        Timed(
            what=event, page=page, median_s=median(s), min_s=min(s), max_s=max(s), repeats=len(s), goal_s=GOALS[event]
        )
        for (event, page), s in seconds.items()
    )


def run(extent: Extent, servers: int, visits: int, out: Path) -> Measured:
    """Make the store, measure, and write the results to ``out``."""
    provenance = stamp(0)
    with tempfile.TemporaryDirectory(prefix="residua-dashboard-") as name:
        rows, memory = measure(make(Path(name), extent, seed=0), servers, visits)
    command = "python -m studies.speed.dashboard " + " ".join(sys.argv[1:])
    measured = Measured(
        stamp=provenance, command=command, checkpoints=extent.checkpoints, tests=extent.tests, items=extent.items,
        times=summaries(rows), server_mb=tuple(round(mb, 1) for mb in memory),
    )  # fmt: skip
    write_atomic(out, (measured.model_dump_json(indent=1) + "\n").encode())
    return measured


def show(measured: Measured, console: Console) -> None:
    """Print the table."""
    table = Table(
        title=f"{measured.checkpoints} checkpoints x {measured.tests} tests x {measured.items:,} items, wall seconds"
    )
    for column in ("what", "page", "median", "range", "repeats", "goal", "met"):
        table.add_column(column)
    for t in measured.times:
        spread = f"{t.min_s:.2f} to {t.max_s:.2f}"
        table.add_row(
            t.what, t.page, f"{t.median_s:.2f}", spread, str(t.repeats), f"{t.goal_s:g}", "yes" if t.met else "no"
        )
    console.print(table)
    console.print(
        f"server memory, MB: {', '.join(f'{mb:.0f}' for mb in measured.server_mb)} (goal {measured.memory_goal_mb:.0f})"
    )


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--out", type=Path, required=True, help="where the results go (JSON)")
    parser.add_argument("--servers", type=int, default=5, help="cold starts (default: 5)")
    parser.add_argument("--visits", type=int, default=2, help="warm visits a server (default: 2)")
    for name, value in FULL_EXTENT._asdict().items():
        parser.add_argument(f"--{name}", type=int, default=value, help=f"of the store (default: {value})")
    args = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    extent = Extent(args.checkpoints, args.tests, args.items, args.layers)
    show(run(extent, args.servers, args.visits, args.out), Console())


if __name__ == "__main__":
    main()
