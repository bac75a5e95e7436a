"""Limits of a run: what is left out to keep within time and memory, and how limits are written."""

import re

from audit.planning.planner import Dropped, Planner
from audit.planning.pricing import Pricer
from audit.schema import AuditError, Plan
from audit.wording import lasting, told_bytes


def limited(planner: Planner, pricer: Pricer, registered: Plan | None) -> Planner:
    """The plan without the tests that --max-mem or --max-time leave out: what needs too much, then the longest first.

    A run that was begun under the same limits leaves out the same tests, whatever this machine has learnt since.
    """
    memory, seconds = pricer.how.max_mem, pricer.how.max_time
    asked = {*([] if memory is None else [_by_memory(memory)]), *([] if seconds is None else [_by_time(seconds)])}
    if not asked:
        return planner
    if registered is not None and {test.dropped_by for test in registered.tests} - {""} <= asked:
        kept = {t.probe: Dropped(t.dropped_by, t.reason) for t in registered.tests if t.dropped_by}
        return planner.without(kept)
    dropped: dict[str, Dropped] = {}
    if memory is not None:
        prices = pricer.prices(planner)
        for one in planner.running:
            if (needed := prices.of(one.name).peak_bytes) > memory:
                reason = f"needs about {told_bytes(needed)}, more than the {told_bytes(memory)} of --max-mem"
                dropped[one.name] = Dropped(_by_memory(memory), reason)
        planner = planner.without(dropped)
    while seconds is not None and planner.running and (prices := pricer.prices(planner)).seconds.hi > seconds:
        longest = max((prices.of(one.name) for one in planner.running), key=lambda price: price.seconds.hi)
        took = lasting(*longest.seconds.ends)
        reason = f"takes about {took}; without it the run keeps to the {seconds:g} s of --max-time"
        dropped[longest.unit] = Dropped(_by_time(seconds), reason)
        planner = planner.without(dropped)
    return planner


def _by_memory(limit: int) -> str:
    return f"--max-mem {limit}"


def _by_time(limit: float) -> str:
    return f"--max-time {limit:g}"


def parse_time(text: str) -> float:
    """``90``, ``90s``, ``15m`` or ``2h`` in seconds. AuditError (code 2) for anything else."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)([smh]?)", text)
    if found is None or float(found[1]) <= 0:
        raise AuditError(f"--max-time {text!r} is no time", "give seconds, or such as 15m or 2h")
    return float(found[1]) * {"": 1, "s": 1, "m": 60, "h": 3600}[found[2]]


def parse_bytes(text: str) -> int:
    """``500M``, ``4G`` or a number of bytes. AuditError (code 2) for anything else."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)([KMGT]?)B?", text, re.IGNORECASE)
    if found is None:
        raise AuditError(f"{text!r} is no amount of memory", "give such as 500M or 4G")
    return int(float(found[1]) * {"": 1, "K": 1e3, "M": 1e6, "G": 1e9, "T": 1e12}[found[2].upper()])
