"""One pytest session whose tests were collected once, and forks of it that each run a few of them.

A fork has a limit of processor time, which does not depend on what else the machine does; what it started ends with it.
"""

import contextlib
import json
import os
import resource
import signal
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pytest

SWITCHES = ("-q", "--no-header", "--no-summary", "--tb=line", "-p", "no:cacheprovider", "-m", "not slow")
WALL = 40
"""So many times its processor time a fork may take by the clock: one that only sleeps ends, too."""

Serve = Callable[[list[pytest.Item]], None]


class Ran(NamedTuple):
    """What came of tests: those that failed, and the processor seconds of each."""

    failed: list[str]
    seconds: dict[str, float]


class Ended(NamedTuple):
    """How a fork ended: 0, or the signal below 0; its processor seconds, and what it wrote down."""

    status: int
    seconds: float
    notes: dict[str, Any]


class _Serving:
    """A plugin of pytest: once the tests are collected, somebody else runs them."""

    def __init__(self, serve: Serve) -> None:
        self._serve = serve
        self.reports: list[pytest.TestReport] = []

    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        self._serve(session.items)
        return True

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        self.reports.append(report)


def collected(tests: Sequence[str], scratch: Path, serve: Serve) -> int:
    """Collects the tests of these files or folders and hands them on; pytest's status."""
    return int(pytest.main([*SWITCHES, "--basetemp", str(scratch / "pytest"), *tests], plugins=[_Serving(serve)]))


def run(items: Sequence[pytest.Item], stop: bool, around: Callable[[str], object] = lambda name: None) -> Ran:
    """Runs these tests in this process; ``stop``: until the first that fails. ``around`` is told which one runs."""
    failed: list[str] = []
    seconds: dict[str, float] = {}
    for item, following in zip(items, [*items[1:], None], strict=True):
        plugin = next(p for p in item.config.pluginmanager.get_plugins() if isinstance(p, _Serving))
        started, plugin.reports = time.process_time(), []
        around(item.nodeid)
        item.config.hook.pytest_runtest_protocol(item=item, nextitem=following)
        around("")
        seconds[item.nodeid] = round(time.process_time() - started, 3)
        if any(report.failed for report in plugin.reports):
            failed.append(item.nodeid)
            if stop:
                break
    return Ran(failed, seconds)


def in_fork(work: Callable[[], dict[str, Any]], scratch: Path, limit: float) -> Ended:
    """What ``work`` returns, done in a fork within ``limit`` seconds of processor time."""
    notes, started = scratch / f"notes-{os.getpid()}.json", time.monotonic()
    notes.unlink(missing_ok=True)
    child = os.fork()
    if not child:
        _child(work, notes, limit)
    done, status, usage = 0, 0, None
    while not done:
        done, status, usage = os.wait4(child, os.WNOHANG)
        if not done and time.monotonic() > started + WALL * limit:
            os.kill(child, signal.SIGKILL)
        time.sleep(0.02)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(child, signal.SIGKILL)
    assert usage is not None
    found = json.loads(notes.read_text(encoding="utf-8")) if notes.is_file() else {}
    return Ended(os.waitstatus_to_exitcode(status), round(usage.ru_utime + usage.ru_stime, 2), found)


def _child(work: Callable[[], dict[str, Any]], notes: Path, limit: float) -> None:
    """The fork's own life. It ends here, whatever happens."""
    with contextlib.suppress(PermissionError):
        os.setpgid(0, 0)
    resource.setrlimit(resource.RLIMIT_CPU, (int(limit) + 1, int(limit) + 5))
    code = 98
    try:
        notes.write_text(json.dumps(work()), encoding="utf-8")
        code = 0
    finally:
        sys.stdout.flush()
        os._exit(code)
