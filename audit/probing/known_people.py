"""What a panel's test would find, and which of its people are known: from person means to records."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from audit import stats
from audit.schema import ALPHA, POWER, TRACE_EFFECT, Interval, Missing, PeopleKept, Power
from audit.stats import Noise, Rule

Pair = tuple[ndarray, ndarray | None]
"""Person means of forget people [person layer], and of holdout people [other layer] where there are any."""
NO_NULL_PEOPLE = Missing(
    missing="no six people who are unknown to some model: another reference or holdout people would say how they differ"
)


class Gaps(NamedTuple):
    """Differences from the null: the suspect's, base's, and those of models that never knew, at usable layers.

    ``scale`` [layer] is base's effect, ``shared`` the standard error, in its unit, of what all people have in common.
    ``names`` are the groups' in the order of people; empty where they are not given. ``draws``: randomisations of the
    test.
    """

    suspect: Pair
    base: Pair
    floors: tuple[Pair, ...]
    scale: Float[ndarray, " layer"]
    differenced: bool
    shared: float = 0.0
    names: tuple[str, ...] = ()
    draws: int = 9999


def _noise(gaps: Gaps) -> list[Noise]:
    """Who stands for people of whom nothing is known: everybody in other references, holdout people in the suspect.

    Without either it is the suspect's own people about their mean, which knowledge of a few of them makes wider.
    """
    people, others = gaps.suspect
    sources = [Noise(forget, held, signed=True) for forget, held in gaps.floors]
    if others is not None and len(others) > 1:
        sources.append(Noise(others - others.mean(0)))
    return sources or [Noise(people - people.mean(0))]


def power_of(gaps: Gaps, floor: float | None, seed: int, decide: stats.Decision | None = None) -> Power | Missing:
    """The least of base's excess that is found with probability .8 at this case's own people and noise.

    It counts as found where the test rejects at .01 and the effect is at least .05 and above the floor. ``decide``
    replaces that rule.
    """
    (excess, held), (people, others) = gaps.base, gaps.suspect
    n, m = len(people), 0 if others is None else len(others)
    if n < 2:
        return Missing(missing="what one person's noise is nobody knows: power needs at least two")
    if gaps.differenced and held is not None:
        excess = excess - held.mean(0)
    sources = _noise(gaps)
    rule = Rule(gaps.scale, max(TRACE_EFFECT, floor or 0.0), ALPHA, gaps.differenced, gaps.draws)
    decide = decide or stats.max_t_decision(sources, (n, m), rule, seed)
    least = stats.planted_power(excess, sources, m, decide, POWER, seed)
    silent = Missing(missing=f"even all of it is not found with probability {POWER}")
    return Power(
        share=silent if least.share is None else least.share,
        people=silent if least.people is None else least.people,
        of=n,
        power=POWER,
    )


def _weighted(means: ndarray | None, total: float) -> Float[ndarray, " person"]:
    """Person effects, layers weighted as in the overall effect."""
    return np.zeros(0) if means is None else means.sum(1) / total


def people_of(gaps: Gaps) -> PeopleKept | Missing:
    """Of how many people is how much known, and who stands out above people of whom nothing is known?"""
    total = float(gaps.scale.sum())
    (people, others), (base, held) = [[_weighted(x, total) for x in pair] for pair in (gaps.suspect, gaps.base)]
    away = [[_weighted(x, total) for x in pair] for pair in gaps.floors]
    groups = [stats.null_people([x for pair in away for x in pair], signed=True), stats.null_people([others], False)]
    nulls = [_widened(null, gaps.shared / float(gaps.scale.mean())) for null in groups if null is not None]
    if not nulls:
        return NO_NULL_PEOPLE
    if gaps.differenced and len(held):
        base = base - held.mean()
    fit = stats.mixture(people, base, nulls)
    chosen: Sequence[int] = stats.standing_out(people, nulls).tolist()
    n = len(people)
    names = gaps.names or tuple(str(place) for place in range(1, n + 1))
    return PeopleKept(
        kept=fit.known / n,
        ci95=Interval(lo=fit.lower / n, hi=fit.upper / n),
        level=fit.level,
        log10_ratio=fit.log10_ratio,
        named=tuple(names[place] for place in chosen),
        fdr=stats.FDR,
        of=n,
    )


def _widened(null: stats.NullPeople, shared: float) -> stats.NullPeople:
    return null._replace(shift=float(np.hypot(null.shift, shared)))
