"""The dashboard in a real browser, in every state, with every request recorded: it asks this machine alone, and answers
its own names and its own pages alone."""

import json
import os
import shutil
import signal
import subprocess
import threading
import urllib.error
import urllib.request
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import psutil
import pyarrow as pa
import pytest

from audit.schema import Report
from audit.storage import write_atomic
from audit.wording import IMAGE, counted
from dashboards import workers
from dashboards.serving import free_port
from dashboards.workers import Worker
from tests import golden, run_store
from tests.browsing import CHROMIUM, FLAGS
from tests.dashboards.recorded import Outside, Served, outside, serving
from tests.dashboards.test_browser import Heard, rest, until, visit

pytestmark = pytest.mark.skipif(not CHROMIUM, reason="no Chromium here; set CHROME_PATH to one")

FORGER = """<body><iframe src="ADDRESS/run"></iframe><img src="ADDRESS/favicon.png"><script>
const said = {};
const asked = new WebSocket("ADDRESS/_stcore/stream".replace("http", "ws"), ["streamlit"]);
const ended = word => { said.socket = said.socket || word; document.title = JSON.stringify(said); };
asked.onopen = () => ended("opened"); asked.onerror = () => ended("refused");
fetch("ADDRESS/_stcore/agent/interact", {method: "POST", mode: "no-cors", credentials: "include", body: "{}"});
fetch("ADDRESS/", {credentials: "include"}).then(r => r.text()).then(t => said.page = t).catch(() => said.page = null);
</script></body>"""
STATES = {
    "": "What was audited, and what came out?",
    "verdict?set=world&run=consistent": "Suspect checkpoint",
    "report?set=world&run=consistent": "Report",
    "compare?set=sweep&run=b": "tests shown",
    "verdict?set=world&run=tampered": "Integrity failure: results withheld",
    "items?set=world&run=items_changed": "does not hash to what the report states",
    "items?set=world&run=images": "ids and images are masked",
    "verdict?set=world&run=running": "This audit is not finished",
    "run": "run is running",
    "edit": "Name a case file",
}
"""Pages by their address, and words by which each is known to have come."""


def of_images() -> tuple[Report, pa.Table]:
    """A report whose items are images, and its rows."""
    report = golden.report("suppressed")
    evidence = tuple(e.model_copy(update={"measurement": counted(e.measurement, IMAGE)}) for e in report.evidence)
    rows = [{"item": f"forget-{i}", "group": f"forget-{i}", "role": role, "prompt": "", "target": "3", "output": "",
             "score": float(i), "axis_value": 0} for i in range(1, 7) for role in run_store.ROLES]  # fmt: skip
    return report.model_copy(update={"evidence": evidence, "masked": True}), pa.Table.from_pylist(rows)


@pytest.fixture
def sleeper() -> Iterator[psutil.Process]:
    """A process that stands for an audit that is still running."""
    with subprocess.Popen(["sleep", "600"]) as process:
        try:
            yield psutil.Process(process.pid)
        finally:
            process.kill()


@pytest.fixture
def store(tmp_path: Path, sleeper: psutil.Process, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of runs in every state, one of them still going on."""
    monkeypatch.setenv("RESIDUA_CACHE", str(tmp_path / "cache"))
    runs = tmp_path / "runs"
    run_store.fill(runs, ["consistent"])
    for name in ("a", "b"):
        run_store.issue(golden.report("suppressed"), runs / "sweep" / name)
    changed = runs / "world" / "tampered"
    run_store.issue(golden.report("suppressed"), changed)
    document = json.loads((changed / "report.json").read_text())
    document["verdict"]["word"] = "INTACT"
    (changed / "report.json").write_text(json.dumps(document))
    run_store.issue(golden.report("suppressed"), runs / "world" / "items_changed")
    for path in (runs / "world" / "items_changed" / "tables").glob("*.parquet"):
        path.write_bytes(path.read_bytes() + b" ")
    run_store.issue(of_images()[0], runs / "world" / "images", of_images()[1])
    running = runs / "world" / "running"
    run_store.issue(golden.report("suppressed"), running)
    for name in ("manifest.sha256", "report.json"):
        (running / name).unlink()
    record = Worker(id="w", verb="run", arguments=("case.toml",), out="world/running", started="2026-01-01T00:00:00",
                    pid=sleeper.pid, born=sleeper.create_time())  # fmt: skip
    sealed = record.sealed(workers.own_key()).model_dump_json().encode()
    write_atomic(runs / workers.PLACE / "w" / "worker.json", sealed)
    return runs


@contextmanager
def another_site(address: str) -> Generator[int]:
    """A site of somebody else on this machine, whose page tries to use the dashboard at ``address``; its port."""

    class Page(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "text/html")
            self.end_headers()
            self.wfile.write(FORGER.replace("ADDRESS", address).encode())

        def log_message(self, format: str, *args: object) -> None:
            """Nobody reads it."""

    with ThreadingHTTPServer(("", 0), Page) as site:
        threading.Thread(target=site.serve_forever, daemon=True).start()
        yield site.server_port
        site.shutdown()


def read_by_all(page: Any, axe: str, where: str) -> None:
    """No page of any state is closed to anybody."""
    page.evaluate(axe)
    found = page.evaluate("axe.run({runOnly: ['wcag2a', 'wcag2aa', 'wcag21a', 'wcag21aa']})")
    assert [(v["id"], v["nodes"][0]["html"][:120]) for v in found["violations"]] == [], where


def visit_behind(browser: Any, served: Served, proxy: Outside) -> Heard:
    """A visitor whose browser reaches this machine directly and everything else through the recorder."""
    return visit(browser, served, proxy={"server": proxy.address, "bypass": "127.0.0.1"})


@pytest.mark.thorough
def test_pages_of_another_site_and_foreign_names_start_nothing_and_make_nobody_ask_elsewhere(
    browser: Any, tmp_path: Path, axe: str
) -> None:
    (tmp_path / "runs").mkdir()
    settings = tmp_path / ".streamlit"
    settings.mkdir()
    (settings / "config.toml").write_text('[theme]\nbase = "http://themes.example/theme.toml"\n')
    home, port = tmp_path / "home", free_port(0)
    with outside() as proxy, serving(tmp_path / "runs", port, home, tmp_path) as served:
        page, console, foreign = visit_behind(browser, served, proxy)
        until(page, "No runs in")
        read_by_all(page, axe, "empty folder")
        assert page.get_by_text("Deploy", exact=True).count() == 0, "the dashboard's own settings hold"
        assert (console, foreign) == ([], [])
        with another_site(served.address) as other:
            for place in ("127.0.0.1", "localhost"):
                forged = page.context.new_page()
                forged.goto(f"http://{place}:{other}/")
                forged.wait_for_function("document.title.includes('socket')")
                forged.wait_for_timeout(300)
                assert json.loads(forged.title())["socket"] == "refused"
                assert forged.evaluate("said.page") is None
                assert "Residua" not in "".join(frame.title() for frame in forged.frames if frame != forged.main_frame)
        page.context.close()
        rebound = ["--host-resolver-rules=MAP rebound.example 127.0.0.1"]
        renamed = browser.browser_type.launch(executable_path=CHROMIUM, headless=True, args=[*FLAGS, *rebound])
        foreign_page = renamed.new_page()
        refused = foreign_page.goto(f"http://rebound.example:{port}/run")
        assert refused.status == 421 and "Streamlit" not in foreign_page.content()
        renamed.close()
        assert served.elsewhere() == set() and served.addresses() <= {"127.0.0.1"}
    assert proxy.of_pages() == [] and not (tmp_path / "runs" / workers.PLACE).exists()


@pytest.mark.slow
def test_every_state_asks_this_machine_alone_and_can_be_read_by_all(
    browser: Any, store: Path, tmp_path: Path, axe: str
) -> None:
    home, port = tmp_path / "home", free_port(0)
    serve = partial(serving, store, port, home, tmp_path)
    with outside() as proxy:
        with serve() as served:
            page, console, foreign = visit_behind(browser, served, proxy)
            for place, words in STATES.items():
                page.goto(f"{served.address}/{place}")
                until(page, words)
                rest(page)
                read_by_all(page, axe, place)
            page.goto(f"{served.address}/verdict?set=world&run=consistent")
            until(page, "Suspect checkpoint")
            page.reload()
            until(page, "Suspect checkpoint")
            assert (console, foreign) == ([], [])
            page.goto(f"{served.address}/nowhere")
            until(page, "Page not found")
            read_by_all(page, axe, "no such page")
            os.kill(served.process.pid, signal.SIGTERM)
            served.process.wait(30)
            page.wait_for_timeout(4000)
            read_by_all(page, axe, "server gone")
        with serve() as again:
            page.wait_for_function("!document.querySelector('[data-testid=stConnectionStatus]')")
            page.get_by_role("link", name="Provenance").click()
            page.locator("h1", has_text="Provenance").wait_for()
            (tmp_path / "cache" / "dashboard" / "mask.key").write_text("damaged")
            page.goto(f"{again.address}/run")
            until(page, "This cannot be shown")
            rest(page)
            read_by_all(page, axe, "page with an error")
            shutil.rmtree(store)
            page.goto(again.address)
            until(page, "No runs in")
            assert again.elsewhere() == set()
            page.context.close()
        assert foreign == [] and proxy.of_pages() == []


def test_a_recorder_hears_what_is_asked_elsewhere(browser: Any) -> None:
    with outside() as proxy:
        page = browser.new_context(proxy={"server": proxy.address, "bypass": "127.0.0.1"}).new_page()
        page.goto("data:text/html,<img src='http://pictures.example/x.png'>")
        page.wait_for_timeout(300)
        page.context.close()
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({"http": proxy.address}))
        with pytest.raises(urllib.error.HTTPError, match="502"):
            opener.open("http://words.example/", timeout=5)
    assert [line.split()[1] for line in proxy.asked] == ["http://pictures.example/x.png", "http://words.example/"]
