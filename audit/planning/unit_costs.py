"""What a unit takes beside the tokens that it declares: shares and constants, fitted on runs of one machine.

A unit's seconds are a sum of five products: of a constant, in small steps of the machine; of so many short passes; of
its declared tokens through the blocks (a backward pass counts twice), and through the head; and of its optimiser
steps. The factors lie in ``unit_costs.json``, fitted by ``python -m studies.speed.price --fit``; a unit that is not
there, such as a test of somebody else's, has those of :data:`USUAL`.
"""

from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Final, NamedTuple

from audit.bench import PassTimes
from audit.schema import Cost, Record

UNIT_COSTS: Final = Path(__file__).with_name("unit_costs.json")


class Workload(NamedTuple):
    """What of a unit takes time, each in seconds on this machine: small steps beside passes, short passes, declared
    tokens through blocks and through the head, optimiser steps."""

    beside: float
    passes: float
    tokens: float
    head: float
    steps: float

    @classmethod
    def of(cls, cost: Cost, times: PassTimes, small_s: float) -> "Workload":
        """The same of a declared cost."""
        declared = cost.fwd_tokens + 2 * cost.bwd_tokens
        return cls(small_s, times.per_pass, declared * times.per_token, declared * times.per_position,
                   cost.steps * times.per_pass)  # fmt: skip


class UnitCost(Record):
    """The factors of one unit, in the order of :class:`Workload`."""

    unit: str
    factors: tuple[float, float, float, float, float]

    def seconds(self, work: Workload) -> float:
        """What the unit takes."""
        return sum(factor * part for factor, part in zip(self.factors, work, strict=True))


class UnitCosts(Record):
    """Every unit that was fitted."""

    units: tuple[UnitCost, ...] = ()

    def of(self, unit: str) -> UnitCost | None:
        """The factors of a unit, where they were fitted."""
        return next((cost for cost in self.units if cost.unit == unit), None)


USUAL: Final = UnitCost(unit="", factors=(3000.0, 20.0, 1.0, 0.3, 3.0))
"""Of a unit of which nothing is known."""


@cache
def fitted() -> UnitCosts:
    """What comes with the code."""
    return UnitCosts.model_validate_json(UNIT_COSTS.read_bytes()) if UNIT_COSTS.is_file() else UnitCosts()


class Observed(NamedTuple):
    """A unit of a run, its work as it was declared, and what it took."""

    unit: str
    work: Workload
    seconds: float


def fit_unit_costs(observed: Sequence[Observed], pull: float = 0.05) -> UnitCosts:
    """Factors of at least 0 by which the relative errors of each unit are least (non-negative least squares; Lawson and
    Hanson 1974); ``pull`` keeps them small where the runs do not tell them apart (ridge)."""
    import numpy as np
    from scipy.optimize import nnls

    units = list[UnitCost]()
    for name in dict.fromkeys(row.unit for row in observed):
        rows = [row for row in observed if row.unit == name and row.seconds > 0]
        if not rows:
            continue
        work = np.array([[part / row.seconds for part in row.work] for row in rows])
        scale = np.where(work.max(0) > 0, work.max(0), 1.0)
        design = np.concatenate([work / scale, pull * np.eye(len(scale))])
        target = np.concatenate([np.ones(len(rows)), np.zeros(len(scale))])
        factors, _ = nnls(design, target)
        rounded = (float(f"{factor:.4g}") for factor in factors / scale)
        units.append(UnitCost(unit=name, factors=tuple(rounded)))  # type: ignore[arg-type]
    return UnitCosts(units=tuple(units))
