"""How far a run is, from its plan and its event log alone, and how long it may still take, as a range."""

import json
import re
from collections.abc import Sequence
from contextlib import suppress
from datetime import datetime
from typing import NamedTuple

from pydantic import ValidationError

from audit.schema import Interval, Plan, PlannedTest, Report
from audit.wording import CELL, visible
from dashboards.runs import PLAN_CAP
from dashboards.vault import MB, Refused, Vault

DONE = ("measured", "reused", "failed")


class Event(NamedTuple):
    """One line of an event log."""

    at: str
    event: str
    detail: str


class Progress(NamedTuple):
    """How far a run is: tests done of those planned, the one in hand, what went wrong, and the last events."""

    done: int
    total: int
    current: str
    failed: int
    elapsed_s: float
    left: Interval | None
    last: tuple[Event, ...]
    ended: str


def events(vault: Vault, run: str) -> tuple[Event, ...]:
    """The event log from the last start on; half a line at its end is passed over."""
    with suppress(Refused):
        lines = vault.tail(f"{run}/events.jsonl", MB).decode("utf-8", "replace").splitlines()
        logged = [event for line in lines if (event := _event(line)) is not None]
        starts = [i for i, event in enumerate(logged) if event.event == "started"]
        return tuple(logged[starts[-1] :] if starts else logged)
    return ()


def _event(line: str) -> Event | None:
    with suppress(ValueError, TypeError, KeyError, RecursionError):
        entry = json.loads(line)
        return Event(
            visible(str(entry["at"]), 40), visible(str(entry["event"]), 40), visible(str(entry["detail"]), CELL)
        )
    return None


def plan_of(vault: Vault, run: str) -> Plan | None:
    """The plan that a run wrote down before it began."""
    with suppress(Refused, ValidationError):
        return Plan.model_validate_json(vault.read(f"{run}/plan.json", PLAN_CAP))
    return None


def progress(vault: Vault, run: str, timed: Sequence[Report], now: datetime) -> Progress | None:
    """How far the run is; None before it has written a plan. ``timed`` are finished reports whose times are known."""
    plan = plan_of(vault, run)
    if plan is None:
        return None
    logged = events(vault, run)
    running = [t for t in plan.tests if t.will_run]
    names = {re.split(r"\s", e.detail, maxsplit=1)[0] for e in logged if e.event in DONE}
    waiting = [t for t in running if t.probe not in names]
    kinds = [e.event for e in logged]
    ended = next((k for k in reversed(kinds) if k in ("finished", "cancelled", "interrupted")), "")
    current = (
        "" if ended else "reading states" if "prefetched" not in kinds else waiting[0].probe if waiting else "judging"
    )
    begun = _moment(logged[0].at) if logged else None
    end = _moment(logged[-1].at) if ended else now
    elapsed = (end - begun).total_seconds() if begun and end else 0.0
    return Progress(
        len(running) - len(waiting), len(running), current, kinds.count("failed"), max(elapsed, 0.0),
        estimate(waiting, timed), logged[-5:], ended,
    )  # fmt: skip


def _moment(text: str) -> datetime | None:
    with suppress(ValueError):
        return datetime.fromisoformat(text)
    return None


def work(test: PlannedTest) -> int:
    """The size of a test in tokens; a backward token costs about as much as two forward ones."""
    return max(1, test.cost.fwd_tokens + 2 * test.cost.bwd_tokens)


def estimate(tests: Sequence[PlannedTest], timed: Sequence[Report]) -> Interval | None:
    """How long these tests take: what they took elsewhere, scaled by their tokens; None if one was timed nowhere."""
    low = high = 0.0
    for test in tests:
        rates = [t.wall_s / work(p) for r in timed for t in r.timings for p in r.plan.tests
                 if t.unit == test.probe == p.probe]  # fmt: skip
        if not rates:
            return None
        low, high = low + min(rates) * work(test), high + max(rates) * work(test)
    return Interval(lo=low, hi=high)


def span(seconds: float) -> str:
    """Seconds in words."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
