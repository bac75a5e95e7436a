"""What a world of decoys takes, from the plan of its passes: before anything is taught or written.

An audit of decoys is planned and priced as any audit is, on data files of decoys that are gone afterwards. The audits
of a world share what they read of base and of the others, so that all but the first read the suspect alone. Teaching
and edits are priced by the tokens of their batches.
"""

import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final

from audit.case import CaseFile, open_case
from audit.planning import START_UNIT, Planner, Pricer, RunSettings
from audit.pools.decoy_facts import Decoys
from audit.pools.decoy_models import EDIT_BATCH, EDIT_STEPS, Pupil
from audit.pools.decoy_teaching import BATCH
from audit.pools.decoy_world import by_these, case_references, suspects_of, write_data
from audit.schema import Cost, Interval

USUAL_STEPS: Final = 40
"""Steps in which a set is usually taught; how many they are is found when the first one is."""
DESCENTS: Final = 2.2
"""Edits of a world that train, on average: last-layer fakes, and what unlearns."""
SETS_TAUGHT: Final = 1.5
"""Sets that a world teaches, on average: its own, and a half of two in every other world."""
OTHER_EDITS: Final = 1.5
"""What else an edit takes, as a share of its steps: how well it keeps is looked at, and fakes are made gentler."""


def world_seconds(file: CaseFile, pupil: Pupil, first: Decoys, tests: Sequence[str], settings: RunSettings) -> Interval:
    """About how long a world takes: seconds, from the lower ends of its units' ranges to the upper ones. Teaching is
    priced as that of whole copies, whatever is taught."""
    case = pupil.case.case
    with tempfile.TemporaryDirectory() as scratch:
        data = write_data(first, pupil.case, Path(scratch))
        decoy_case = file.case.model_copy(update={"data": data, "edited": "all"})
        opened = open_case(decoy_case, file.root, Path(scratch))
        priced = replace(settings, store=Path(scratch))
        planner = by_these(Planner(opened, pupil.bench.supports, settings.package), tests, settings.package)
        pricer = Pricer(opened, pupil.bench, priced)
        prices = pricer.prices(planner)
    once = [price.seconds for price in prices.units if price.unit != START_UNIT]
    reads = prices.of("reads").seconds
    roles = 2 + len(case.roles.never_trained) + (case.roles.ancestor is not None)
    referenced = bool(case_references(file, file.root))
    models = sum(len(suspects_of(world, 2, referenced)) for world in range(4)) / 4
    rows = pupil.rows(first.forget)
    length = float(rows.lengths.float().mean())
    teaching = pricer.price("decoys", _trained(USUAL_STEPS, BATCH * length)).seconds
    edits = pricer.price("decoys", _trained(EDIT_STEPS, 2 * EDIT_BATCH * length)).seconds

    def summed(end: str) -> float:
        audit, shared = sum(getattr(span, end) for span in once), getattr(reads, end) * (roles - 1) / roles
        trained = SETS_TAUGHT * getattr(teaching, end) + DESCENTS * OTHER_EDITS * getattr(edits, end)
        return shared + models * (audit - shared) + trained

    return Interval(lo=summed("lo"), hi=summed("hi"))


def _trained(steps: int, tokens: float) -> Cost:
    """So many steps on batches of so many tokens."""
    return Cost(fwd_tokens=round(steps * tokens), bwd_tokens=round(steps * tokens), steps=steps)
