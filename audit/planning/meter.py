"""What the units of a run really cost: measured as they are made, kept for the next estimate, and said of the rest."""

import time
from collections.abc import Generator, Iterable
from contextlib import contextmanager, nullcontext

from audit.planning import timings
from audit.planning.pricing import Pricer, Prices, conditions
from audit.planning.timings import Spent
from audit.planning.unit_profiles import UnitProfiles
from audit.schema import Interval


class Meter:
    """Measures the units of one run against their prices, and profiles them where that is wished for."""

    def __init__(self, pricer: Pricer, prices: Prices, profiles: UnitProfiles | None = None) -> None:
        self._pricer, self._prices, self._profiles = pricer, prices, profiles

    def left(self, units: Iterable[str]) -> Interval:
        """How long these units and the report still take."""
        return self._prices.left({*units, "report"})

    @contextmanager
    def unit(self, name: str) -> Generator[None]:
        """Measure a block, and keep what it cost if it ends well."""
        bench, price = self._pricer.bench, self._prices.of(name)
        cost = price.cost
        tokens, cpu, wall = bench.fwd_tokens, time.process_time(), time.perf_counter()
        with nullcontext() if self._profiles is None else self._profiles.unit(name):
            yield
        timings.record(
            Spent(
                unit=name, how=conditions(self._pricer.settings), parameters=self._pricer.parameters,
                fwd_tokens=cost.fwd_tokens, bwd_tokens=cost.bwd_tokens, run_tokens=bench.fwd_tokens - tokens,
                cpu_s=time.process_time() - cpu, wall_s=time.perf_counter() - wall, said_s=price.expected_s,
            )
        )  # fmt: skip
