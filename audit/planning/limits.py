"""Limits of a run: what is left out to keep within time and memory."""

from audit.planning.planner import Dropped, Planner
from audit.planning.pricing import Pricer
from audit.schema import Plan
from audit.wording import lasting, told_bytes


def limited(planner: Planner, pricer: Pricer, registered: Plan | None) -> Planner:
    """The plan without the tests that --max-mem or --max-time leave out: what needs too much, then the longest first.

    A run that was begun under the same limits leaves out the same tests, whatever this machine has learnt since.
    """
    memory, seconds = pricer.settings.max_mem, pricer.settings.max_time
    limits = {*([] if memory is None else [_by_memory(memory)]), *([] if seconds is None else [_by_time(seconds)])}
    if not limits:
        return planner
    if registered is not None and {test.dropped_by for test in registered.tests} - {""} <= limits:
        dropped_before = {t.probe: Dropped(t.dropped_by, t.reason) for t in registered.tests if t.dropped_by}
        return planner.without(dropped_before)
    dropped: dict[str, Dropped] = {}
    if memory is not None:
        prices = pricer.prices(planner)
        for planned in planner.running:
            if (needed := prices.of(planned.name).peak_bytes) > memory:
                reason = f"needs about {told_bytes(needed)}, more than the {told_bytes(memory)} of --max-mem"
                dropped[planned.name] = Dropped(_by_memory(memory), reason)
        planner = planner.without(dropped)
    while seconds is not None and planner.running and (prices := pricer.prices(planner)).seconds.hi > seconds:
        longest = max((prices.of(planned.name) for planned in planner.running), key=lambda price: price.seconds.hi)
        took = lasting(*longest.seconds.ends)
        reason = f"takes about {took}; without it the run keeps to the {seconds:g} s of --max-time"
        dropped[longest.unit] = Dropped(_by_time(seconds), reason)
        planner = planner.without(dropped)
    return planner


def _by_memory(limit: int) -> str:
    return f"--max-mem {limit}"


def _by_time(limit: float) -> str:
    return f"--max-time {limit:g}"
