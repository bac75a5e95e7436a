"""The effect over a family of attacks: the people who are asked all of them, and what the assessment says."""

from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple

import numpy as np

from audit.probing import Count, Design, Measurement, Naming, Panel, Sides, assess, blank
from probes._attack_rows import Attacked, AttackSheet, Told
from probes._attack_tables import Attempts
from probes._form_tables import shared_people
from probes._leak_rates import Drawn

NO_ATTACK: Final = "no attack under which base knows the facts"


class Asking(NamedTuple):
    """What was asked, what every model gave, and what was drawn of each (by temperature; empty: nothing)."""

    sheet: AttackSheet
    told: Mapping[str, Told]
    drawn: Mapping[float, Mapping[str, Drawn]]
    sampled: Sequence[Attacked]
    found: Attempts


class EffectDesign(NamedTuple):
    """How effects are assessed: the case's seed, by how much base must know, and how many draws p rests on."""

    seed: int
    least_gap: float
    permutations: int


def over_attacks(
    found: Attempts, naming: Naming, places: Sequence[int], design: EffectDesign
) -> tuple[Measurement, str]:
    """The largest effect over some attacks, tested by max-T over them, and under which attack it is ("": none)."""
    chosen, people = shared_people(found.means["base"], list(places))
    scored = int(np.isfinite(found.excess["base"][:, list(places)]).sum())
    empty = blank(naming, NO_ATTACK, Count(scored=scored), len(people), design.seed)
    if not chosen:
        return empty, ""
    sides = {name: Sides(mean[np.ix_(people, chosen)]) for name, mean in found.means.items()}
    null = sides.get("null", Sides(np.zeros_like(sides["base"].forget)))
    floors = tuple(side for name, side in sides.items() if name.startswith("floor"))
    panel = Panel(sides["suspect"], sides["base"], null, floors, tuple(found.people[n] for n in people))
    assessed = assess(panel, Design(design.seed, design.least_gap, draws=design.permutations, name=naming.key))
    return assessed.onto(empty), "" if assessed.layer < 0 else found.attacks[chosen[assessed.layer]]
