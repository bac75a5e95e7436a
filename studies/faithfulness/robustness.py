"""Robustness: does a metric stay what it was when the model is trained again on what it forgot, or rounded?

All levels here are knowledge: higher is more left. One-sided forms are as published and punish only what comes back;
symmetric forms punish destruction too. Sources: arXiv 2506.12618, section 4; arXiv 2605.24614.
"""

from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple

import numpy as np

from audit.schema import Missing, Number
from audit.stats import harmonic_mean
from studies.faithfulness.metrics import METRICS
from studies.faithfulness.readings import AttackedWorld, Reading, State

EPSILON = 1e-6
LEAST_UTILITY = 0.8
RETRAINED = "retrain"
Form = Literal["one_sided", "symmetric"]
FORMS: tuple[Form, ...] = ("one_sided", "symmetric")
NONE = Missing(missing="no unlearned model counts")
LESSONS: tuple[State, ...] = ("relearned", "relearned others")


class Change(NamedTuple):
    """A level of knowledge before an attack and after it."""

    before: float
    after: float

    @property
    def rise(self) -> float:
        """By how much the attack brought knowledge back."""
        return self.after - self.before


def _share(x: float) -> float:
    return min(max(x, 0.0), 1.0)


def relearned(unlearned: Change, retrained: Change) -> float:
    """R, one-sided: min(rise of the retrained model / rise of the unlearned one, 1), in [0, 1].

    1: the unlearned model gains no more than one that never knew. Where it gains nothing there is nothing to punish: 1.
    Where it gains and the retrained model does not: 0.
    """
    if unlearned.rise <= 0:
        return 1.0
    return _share(retrained.rise / unlearned.rise)


def relearned_both_ways(unlearned: Change, retrained: Change) -> float:
    """R, symmetric: 1 - |rise of one - rise of the other| / (|one| + |other|); gaining less than retrained counts."""
    rise, other = unlearned.rise, retrained.rise
    return _share(1.0 - abs(rise - other) / (abs(rise) + abs(other) + EPSILON))


def quantised(change: Change) -> float:
    """Q, one-sided: min(before / after, 1), in [0, 1]: only a rise of knowledge by rounding is punished."""
    before, after = max(change.before, 0.0), max(change.after, 0.0)
    return 1.0 if after <= before else before / after


def quantised_both_ways(change: Change) -> float:
    """Q, symmetric: 1 - |after - before| / (|after| + |before|): a fall by rounding is punished like a rise."""
    before, after = max(change.before, 0.0), max(change.after, 0.0)
    return _share(1.0 - abs(after - before) / (after + before + EPSILON))


class Attacked(NamedTuple):
    """One unlearned model under one metric, before and after the attacks, and the retrained model of its world.

    ``utility`` is relative to base, before any attack. A level is Missing where the metric had no number.
    """

    world: int
    model: str
    utility: float
    before: Number
    relearned: Number
    rounded: Number
    retrained_before: Number
    retrained_relearned: Number


class Pair(NamedTuple):
    """R and Q of one model."""

    r: float
    q: float


class Robust(NamedTuple):
    """Mean R and Q over the models that count, their harmonic mean, and how many counted.

    ``models``: unlearned models in all; ``useful``: of enough utility; ``passing``: of these, those that the metric
    itself calls unlearned before any attack; ``counting``: of these, those with every number; ``unread``: useful models
    without a number before an attack or after one.
    """

    r: Number
    q: Number
    robust: Number
    models: int
    useful: int
    passing: int
    counting: int
    unread: int
    by_world: dict[int, tuple[Number, Number]]


def robust(models: Sequence[Attacked], cut: float, form: Form) -> Robust:
    """Robustness of one metric over models of utility >= .8 that lie at or below its cut before the attacks."""
    useful = [model for model in models if model.utility >= LEAST_UTILITY]
    passing = [model for model in useful if not isinstance(model.before, Missing) and model.before <= cut]
    scored = [(model.world, pair) for model in passing if (pair := pair_of(model, form)) is not None]
    r, q = _means([pair for _, pair in scored])
    unread = sum(isinstance(model.before, Missing) for model in useful) + len(passing) - len(scored)
    worlds = dict.fromkeys(world for world, _ in scored)
    by_world = {own: _means([pair for world, pair in scored if world == own]) for own in worlds}
    return Robust(r, q, both(r, q), len(models), len(useful), len(passing), len(scored), unread, by_world)


def pair_of(model: Attacked, form: Form) -> Pair | None:
    """R and Q of one model; None where a number is missing. An effect below the null counts as 0 in Q."""
    levels = (model.before, model.relearned, model.rounded, model.retrained_before, model.retrained_relearned)
    known = [level for level in levels if not isinstance(level, Missing)]
    if len(known) < len(levels):
        return None
    before, again, coarse, other, other_again = known
    unlearned, retrained, change = Change(before, again), Change(other, other_again), Change(before, coarse)
    if form == "one_sided":
        return Pair(relearned(unlearned, retrained), quantised(change))
    return Pair(relearned_both_ways(unlearned, retrained), quantised_both_ways(change))


def _means(pairs: Sequence[Pair]) -> tuple[Number, Number]:
    if not pairs:
        return NONE, NONE
    return float(np.mean([pair.r for pair in pairs])), float(np.mean([pair.q for pair in pairs]))


def both(a: Number, b: Number) -> Number:
    """The harmonic mean of two shares; Missing where one is."""
    if isinstance(a, Missing):
        return a
    return b if isinstance(b, Missing) else harmonic_mean(np.array([a, b]))


# ---- from readings ------------------------------------------------------------------------------------------------
def attacked(worlds: Sequence[AttackedWorld], key: str, lesson: State) -> list[Attacked]:
    """Every unlearned model of these worlds under one metric and one way of relearning."""
    rows: list[Attacked] = []
    for world in worlds:
        by: dict[tuple[str, State], Reading] = {(r.model, r.state): r for r in world.readings}
        retrained = next(r.model for r in world.readings if r.mechanism == RETRAINED)

        def level(model: str, state: State, by: dict[tuple[str, State], Reading] = by) -> Number:
            return by[model, state].values.get(key, Missing(missing="not measured"))

        for model in dict.fromkeys(r.model for r in world.readings if r.pool == "described"):
            rows.append(
                Attacked(
                    world.world,
                    model,
                    by[model, "before"].utility,
                    level(model, "before"),
                    level(model, lesson),
                    level(model, "rounded"),
                    level(retrained, "before"),
                    level(retrained, lesson),
                )  # fmt: skip
            )
    return rows


def levels(models: Sequence[Attacked]) -> dict[str, float | str]:
    """Mean levels of the useful models, and of their worlds' retrained ones, before and after the attacks."""
    useful = [model for model in models if model.utility >= LEAST_UTILITY]
    names = ("before", "relearned", "rounded", "retrained_before", "retrained_relearned")
    known = {name: [x for model in useful if isinstance(x := getattr(model, name), float)] for name in names}
    return {name: round(float(np.mean(xs)), 4) if xs else NONE.missing for name, xs in known.items()}


def robust_row(means: Robust, faithful: float) -> dict[str, object]:
    """One metric's robustness, and overall = HM(faithful, robust), as it stands in results.json."""
    overall = both(means.robust, faithful)
    return {
        "r": shown(means.r), "q": shown(means.q), "robust": shown(means.robust), "overall": shown(overall),
        "models": means.models, "useful": means.useful, "passing": means.passing, "counting": means.counting,
        "unread": means.unread,
        "by_world": {str(world): [shown(r), shown(q)] for world, (r, q) in means.by_world.items()},
    }  # fmt: skip


def shown(x: Number) -> float | str:
    """Four decimals, or why there is no number."""
    return x.missing if isinstance(x, Missing) else round(x, 4)


def _lesson(models: Sequence[Attacked], cut: float, faithful: float) -> dict[str, object]:
    """One metric under one way of relearning, in both forms."""
    forms = {form: robust_row(robust(models, cut, form), faithful) for form in FORMS}
    return {"levels": levels(models), **forms}


def robust_part(
    worlds: Sequence[AttackedWorld], cuts: Mapping[str, float], faithful: Mapping[str, float]
) -> dict[str, object]:
    """Every metric that is a level, in both forms, relearning all forgotten people (as published) or half of them."""
    rows: dict[str, object] = {}
    for metric in METRICS:
        read = [r.values.get(metric.key) for world in worlds for r in world.readings]
        if not metric.level or not any(isinstance(x, float) for x in read):
            continue
        rows[metric.key] = {
            lesson: _lesson(attacked(worlds, metric.key, lesson), cuts[metric.key], faithful[metric.key])
            for lesson in LESSONS
        }
    return {"worlds": [w.world for w in worlds], "least_utility": LEAST_UTILITY, "metrics": rows}
