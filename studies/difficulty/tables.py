"""What the measured worlds say: every predictor alone and beside length and loss, CUD, ceilings, claims, the fit.

Everything is compared within a world, by ranks, and averaged over worlds. Intervals resample worlds, and people inside
them; permutations exchange whole people's difficulties inside a world, and keep which of a person's facts is which.
"""

from collections.abc import Callable, Mapping, Sequence
from itertools import combinations
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int
from numpy import ndarray
from scipy import stats

from audit.circuits import cud, folds
from audit.forecasting import normal_scores
from studies.difficulty.measure import Measured
from studies.difficulty.truth import METHODS, SEEDS, Label

BASELINE = ("loss", "answer_loss", "answer_tokens", "question_tokens")
TARGETS = ("steps", "cost", "patch", "relearn")
DRAWS, PERMUTATIONS, FOLDS, SMALL = 1000, 999, 5, 1e-12
Values = Float[ndarray, " item"]
Runs = tuple[tuple[str, int], ...]
ALL: Runs = tuple((name, seed) for name in METHODS for seed in SEEDS)


def measured(label: Label, target: str) -> Values:
    """One run's difficulty as normal scores: one target, or ``all`` three that need no output loss at the end."""
    names = ("steps", "patch", "relearn") if target == "all" else (target,)
    known = np.isfinite(label.steps)
    scores = [np.where(known, normal_scores(getattr(label, name)), np.nan) for name in names]
    return np.mean(scores, 0)


def difficulty(world: Measured, runs: Runs = ALL, target: str = "all") -> Values:
    """The mean over runs."""
    return np.mean([measured(world.labels[run], target) for run in runs], 0)


class Estimate(NamedTuple):
    """A mean over worlds, its 95 % interval, and how many worlds agree in sign."""

    value: float
    lo: float
    hi: float
    agree: int


def people(world: Measured) -> Int[ndarray, " item"]:
    """Whom each item is about."""
    return world.arrays["person"]


Sums = Float[ndarray, "*draw pair sum"]


def estimate(
    worlds: Sequence[Measured], terms: Callable[[Measured], Float[ndarray, "pair item sum"]],
    of: Callable[[Sums], Float[ndarray, "*draw pair"]],
) -> Estimate:  # fmt: skip
    """The mean over worlds and pairs of ``of(sums over items)``; bootstrap of worlds and of people inside them.

    All that is estimated here follows from sums over items, so that a draw is a weighting of people's sums.
    """
    rng, n = np.random.default_rng(0), len(worlds)
    point, drawn = np.zeros(n), np.zeros((n, DRAWS, n))
    for at, world in enumerate(worlds):
        membership = people(world) == np.unique(people(world))[:, None]
        sums = membership.astype(float) @ np.nan_to_num(terms(world))  # [pair person sum]
        point[at] = of(sums.sum(1)).mean()
        counts = rng.multinomial(len(membership), np.full(len(membership), 1 / len(membership)), (DRAWS, n))
        drawn[at] = of(np.einsum("dwp,kps->dwks", counts, sums, optimize=True)).mean(-1)
    picked = rng.integers(0, n, (DRAWS, n))
    draws = drawn[picked, np.arange(DRAWS)[:, None], np.arange(n)].mean(1)
    lo, hi = np.percentile(draws, [2.5, 97.5])
    value = float(point.mean())
    return Estimate(value, float(lo), float(hi), int((np.sign(point) == np.sign(value)).sum()))


def pearson(sums: Sums) -> Float[ndarray, "*draw pair"]:
    """Correlation from the sums of 1, x, y, xx, yy, xy; 0 where one does not vary."""
    n, x, y, xx, yy, xy = np.moveaxis(sums, -1, 0)
    spread = np.maximum(n * xx - x * x, 0) * np.maximum(n * yy - y * y, 0)
    return np.where(spread > SMALL, (n * xy - x * y) / np.sqrt(np.maximum(spread, SMALL)), 0.0)


def share(sums: Sums) -> Float[ndarray, "*draw pair"]:
    """The first sum over the second."""
    return sums[..., 0] / np.maximum(sums[..., 1], SMALL)


def ranked(a: Values, b: Values) -> Float[ndarray, "item sum"]:
    """The terms of Spearman's correlation over what both know, ranks centred."""
    known = np.isfinite(a) & np.isfinite(b)
    x, y = np.zeros(len(a)), np.zeros(len(a))
    x[known], y[known] = (stats.rankdata(v[known]) - (known.sum() + 1) / 2 for v in (a, b))
    return np.stack([known.astype(float), x, y, x * x, y * y, x * y], 1)


def rho(a: Values, b: Values) -> float:
    """Spearman over what both know; 0 where one does not vary."""
    return float(pearson(ranked(a, b).sum(0)))


def correlation(worlds: Sequence[Measured], of: Mapping[int, Values], target: Mapping[int, Values]) -> Estimate:
    """Spearman within worlds."""
    return estimate(worlds, lambda w: ranked(of[w.number], target[w.number])[None], pearson)


def mean(worlds: Sequence[Measured], of: Callable[[Measured], Values]) -> Estimate:
    """The mean over the items that have a value."""
    return estimate(worlds, lambda w: np.stack([of(w), np.isfinite(of(w)).astype(float)], 1)[None], share)


def partial(world: Measured, values: Values, names: Sequence[str] = BASELINE) -> Values:
    """Normal scores less what those of the named predictors explain in this world."""
    x = np.stack([np.ones(len(values)), *(normal_scores(world.arrays[f"p_{name}"]) for name in names)], 1)
    y = normal_scores(values)
    return np.where(np.isfinite(values), y - x @ np.linalg.lstsq(x, y, rcond=None)[0], np.nan)


def permuted(worlds: Sequence[Measured], of: Mapping[int, Values], target: Mapping[int, Values], seed: int) -> float:
    """p of the mean within-world correlation of normal scores, two-sided: whole people exchange their difficulties."""
    rng = np.random.default_rng(seed)
    total = np.zeros(1 + PERMUTATIONS)
    for w in worlds:
        a, b = (_standard(normal_scores(x[w.number])) for x in (of, target))
        block = blocks(w)
        orders = np.stack([np.arange(len(block)), *(rng.permutation(len(block)) for _ in range(PERMUTATIONS))])
        total += np.einsum("dpf,pf->d", b[block[orders]], a[block])
    return float((np.abs(total) >= abs(total[0]) - SMALL).sum() / (1 + PERMUTATIONS))


def _standard(values: Values) -> Values:
    """Mean 0, length 1; 0 where nothing varies."""
    centred = values - values.mean()
    return centred / max(float(np.linalg.norm(centred)), SMALL)


def blocks(world: Measured) -> Int[ndarray, "person fact"]:
    """The items of each person, in one order of facts for all."""
    return np.stack([np.flatnonzero(people(world) == p) for p in np.unique(people(world))])


# ---- out of sample ----------------------------------------------------------------------------------------------
def features(world: Measured, names: Sequence[str], extra: Sequence[Values] = ()) -> Float[ndarray, "item predictor"]:
    """Normal scores of predictors and of extra columns."""
    columns = [normal_scores(world.arrays[f"p_{name}"]) for name in names] + [normal_scores(x) for x in extra]
    return np.stack(columns, 1)


def held_out_errors(
    worlds: Sequence[Measured], design: Mapping[int, ndarray], target: Mapping[int, Values]
) -> dict[int, Values]:
    """Squared errors in each world of a plain least-squares fit on the others."""
    errors: dict[int, Values] = {}
    for world in worlds:
        others = [w.number for w in worlds if w.number != world.number]
        x, y = np.concatenate([design[n] for n in others]), np.concatenate([target[n] for n in others])
        known = np.isfinite(y)
        weights = np.linalg.lstsq(x[known], y[known], rcond=None)[0]
        errors[world.number] = (target[world.number] - design[world.number] @ weights) ** 2
    return errors


def gain(
    worlds: Sequence[Measured], base: Mapping[int, ndarray], wider: Mapping[int, ndarray], target: Mapping[int, Values]
) -> Estimate:
    """R2 on held-out worlds, wider less base (both least squares on normal scores)."""
    small, large = held_out_errors(worlds, base, target), held_out_errors(worlds, wider, target)

    def terms(w: Measured) -> Float[ndarray, "pair item sum"]:
        return np.stack([small[w.number] - large[w.number], target[w.number] ** 2], 1)[None]

    return estimate(worlds, terms, share)


# ---- CUD --------------------------------------------------------------------------------------------------------
class Anchored(NamedTuple):
    """How CUD is made: which circuits, which mode, which half of the result."""

    circuits: str = "partner_0"
    mode: str = "controlled"
    part: str = "cud"


def cud_of(world: Measured, runs: Runs, anchoring: Anchored) -> Values:
    """CUD of every item, anchored by these runs. ``paper`` anchors by the loss left after unlearning, as published."""
    vectors = world.arrays[f"c_{anchoring.circuits}"].astype(np.float64)
    if anchoring.mode == "paper":
        label = np.mean([world.labels[run].left for run in runs], 0)
    else:
        label = np.mean(
            [measured(world.labels[run], "relearn") + measured(world.labels[run], "patch") for run in runs], 0
        )
    label = np.where(np.isfinite(label), label, np.nanmedian(label))
    fold = folds(tuple(str(p) for p in people(world)), FOLDS, world.number)
    scores = cud(vectors, label, fold, "paper" if anchoring.mode == "paper" else "controlled")
    return scores.cud if anchoring.part == "cud" else scores.margin


class Held(NamedTuple):
    """Two columns to be compared: what was predicted, and the difficulty by a method that had no part in it."""

    predicted: Values
    mine: Values


def by_other_methods(world: Measured, of: Callable[[Runs], Values], target: str = "all") -> list[Held]:
    """For every method: ``of`` the other methods' runs, beside this method's own difficulty."""
    pairs: list[Held] = []
    for name in METHODS:
        mine = difficulty(world, tuple(run for run in ALL if run[0] == name), target)
        pairs.append(Held(of(tuple(run for run in ALL if run[0] != name)), mine))
    return pairs


def by_other_seeds(world: Measured, of: Callable[[Runs], Values], target: str = "all") -> list[Held]:
    """For every seed: ``of`` the other seeds' runs, beside the difficulty in this seed's."""
    return [
        Held(
            of(tuple(run for run in ALL if run[1] != seed)),
            difficulty(world, tuple(run for run in ALL if run[1] == seed), target),
        )
        for seed in SEEDS
    ]


def halves(world: Measured, target: str = "all") -> list[Held]:
    """The difficulties by two halves of the methods, for all ways to halve them."""
    splits = [set(half) for half in combinations(METHODS, len(METHODS) // 2) if METHODS[0] in half]
    return [
        Held(*(difficulty(world, tuple(r for r in ALL if (r[0] in half) == side), target) for side in (True, False)))
        for half in splits
    ]  # fmt: skip


def agreement(worlds: Sequence[Measured], of: Callable[[Measured], list[Held]]) -> Estimate:
    """The mean Spearman over the pairs of columns that ``of`` gives, and over worlds."""
    return estimate(worlds, lambda w: np.stack([ranked(held.predicted, held.mine) for held in of(w)]), pearson)
