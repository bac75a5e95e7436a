"""Likelihood ratios from scores of known truth: how much more probable is this score if the model knows than if not?

Two ways (:mod:`audit.stats.monotone`), between which cross-validation with whole clusters left out chooses. No ratio
exceeds what the number of clusters supports: a score that beats all of N clean worlds is one of N + 1 equally probable
ranks, so that its ratio is at most N + 1, and by the same count at least 1/(M + 1) with M knowing worlds. Ratios are
log10 here. Nothing is extrapolated: beyond the last score of known truth the ratio stays what it is there.

Sources: Brümmer & du Preez 2006 (Computer Speech & Language 20:230); Morrison & Poh 2018 (Science & Justice 58:200) for
shrinking the ratios of small samples; Vergeer et al. 2016 (Science & Justice 56:482) for where to stop.
"""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int
from numpy import ndarray

from audit.schema import AuditError, Interval, Record
from audit.stats.clustered import Labelled, folds, resamples
from audit.stats.exact_binomial import clopper_pearson
from audit.stats.monotone import WAYS, Step, Way, cllr, fit
from audit.stats.significant_digits import significant

_GRID = 33
_DIGITS = 6


class Scale(Record):
    """From a score to its likelihood ratio: log10 ratios with 95 % ends at increasing scores, linear in between.

    ``floor`` and ``ceiling`` (log10) are what so many clusters support; ``elub_lo`` and ``elub_hi`` a second opinion.
    ``cllr`` holds the cross-validated cost of each way in bits, by which ``way`` was chosen.
    """

    way: Way
    knots: tuple[float, ...]
    log10_lr: tuple[float, ...]
    lo: tuple[float, ...]
    hi: tuple[float, ...]
    floor: float
    ceiling: float
    elub_lo: float
    elub_hi: float
    clean_clusters: int
    knowing_clusters: int
    cllr: dict[Way, float]


class Ratio(NamedTuple):
    """A log10 likelihood ratio with its 95 % interval, and the floor and ceiling of the design that it comes from."""

    log10_lr: float
    lo: float
    hi: float
    floor: float
    ceiling: float


# ---- limits -----------------------------------------------------------------------------------------------------
def limits(data: Labelled) -> Interval:
    """The log10 ratios that so many clusters support: 1/(knowing + 1) to clean + 1 (rank evidence, whole clusters)."""
    clean, knowing = data.holds.sum(1)
    return Interval(lo=-float(np.log10(knowing + 1)), hi=float(np.log10(clean + 1)))


def limits_held_out(data: Labelled, fold: Int[ndarray, " item"]) -> Interval:
    """The limits that :func:`held_out` ratios were held to: the narrowest of what is left without a fold."""
    each = [limits(data.part(fold != fold_id)) for fold_id in np.unique(fold)]
    return Interval(lo=max(ends.lo for ends in each), hi=min(ends.hi for ends in each))


def elub(data: Labelled) -> Interval:
    """Empirical lower and upper bound of log10 ratios (``data.score``): beyond, a user does no better than without.

    A user decides by the ratio at a threshold t that suits his prior odds. With one misleading cluster of either kind
    added, the expected cost is that of ignoring the ratios times (misses + t false alarms) for t >= 1, and times
    (misses/t + false alarms) for t <= 1. The bounds end the range around 1 on which that factor stays below 1; (0, 0)
    where it nowhere does. Source: Vergeer et al. 2016 (Science & Justice 56:482), normalised Bayes error rate.
    """
    clean, knowing = data.holds.sum(1)
    known, never = data.score[data.knows], data.score[~data.knows]
    of_known, of_never = len(known) / float(knowing), len(never) / float(clean)
    below, above = _edge(-never, -known, (of_never, of_known)), _edge(known, never, (of_known, of_never))
    return Interval(lo=0.0 - below, hi=above)


def _edge(high: Float[ndarray, " m"], low: Float[ndarray, " n"], extra: tuple[float, float]) -> float:
    """The least log10 threshold from 0 upwards at which misses + t false alarms reaches 1.

    Between two scores the shares stand still and the cost rises with t, so that the crossing is found in closed form.
    """
    starts = np.unique(np.r_[0.0, high[high > 0], low[low > 0]])
    miss = (extra[0] + (high <= starts[:, None]).sum(1)) / (len(high) + extra[0])
    alarm = (extra[1] + (low > starts[:, None]).sum(1)) / (len(low) + extra[1])
    with np.errstate(divide="ignore"):
        crossing = np.maximum(np.log10(1 - np.minimum(miss, 1.0)) - np.log10(alarm), starts)
    return float(crossing[crossing < np.r_[starts[1:], np.inf]][0])


# ---- choice and fit ----------------------------------------------------------------------------------------------
def held_out(data: Labelled, fold: Int[ndarray, " item"], seed: int, way: Way | None = None) -> Float[ndarray, " item"]:
    """log10 ratios of every model by a fit that never saw its fold, within the limits of what that fit saw.

    Give whole worlds (:func:`audit.stats.clustered.folds`), or whole mechanisms, as folds. Without a ``way`` it is
    chosen anew inside every rest, so that the choice is never judged on what it was made by. Raises AuditError where a
    rest holds too little of either kind.
    """
    ratios = np.zeros(len(data.score))
    for fold_id in np.unique(fold):
        out = fold == fold_id
        rest = data.part(~out)
        _require(rest, int(fold_id))
        chosen = way or _cheapest(_costs(rest, seed))
        floor, ceiling = limits(rest).ends
        step = fit(rest, chosen, np.ones(rest.holds.shape[1]))
        ratios[out] = np.clip(step.at(data.score[out]) / np.log(10), floor, ceiling)
    return ratios


def _require(rest: Labelled, fold: int) -> None:
    if not (rest.knows.any() and (~rest.knows).any()) or rest.holds.sum(1).min() < 2:
        raise AuditError(
            f"without fold {fold} knowing or clean models are left in fewer than two clusters",
            "leave out less at a time",
        )


def _costs(data: Labelled, seed: int) -> dict[Way, float]:
    fold = folds(data, seed)
    if data.holds.sum(1).min() < 3:
        return {}
    return {way: cllr(held_out(data, fold, seed, way), data.knows) for way in WAYS}


def _cheapest(costs: Mapping[Way, float]) -> Way:
    return min(costs, key=lambda way: costs[way]) if costs else "logistic"


def fit_scale(data: Labelled, seed: int, draws: int = 1000) -> Scale:
    """Calibrate scores of known truth: the ratio at every score, with 95 % ends from refits on resampled clusters.

    A ratio at a limit of the design has an exact end on the side of 1 (:func:`_at_least`).
    The way is that of the smaller cross-validated cost, whole clusters left out; with two clusters of a kind nothing
    can be left out and the logistic line is taken. ``data`` comes from :func:`audit.stats.clustered.labelled`.
    """
    costs = _costs(data, seed)
    way, (floor, ceiling) = _cheapest(costs), _rounded(np.array(limits(data).ends))
    step = fit(data, way, np.ones(data.holds.shape[1]))
    grid = np.r_[np.quantile(data.score, np.linspace(0, 1, _GRID)), _ends(step)]
    knots = np.unique(_rounded(grid))
    refits = [fit(data, way, times).at(knots) for times in resamples(data, seed, draws)]
    lo, hi = np.percentile(refits, [2.5, 97.5], axis=0)
    main, lo, hi = (np.clip(x / np.log(10), floor, ceiling) for x in (step.at(knots), lo, hi))
    top, bottom = main >= ceiling, main <= floor
    if top.any():
        lo[top] = np.minimum(lo[top], max(_at_least(data, float(knots[top].min())), floor))
    if bottom.any():
        turned = data._replace(score=-data.score, knows=~data.knows)
        hi[bottom] = np.maximum(hi[bottom], min(-_at_least(turned, -float(knots[bottom].max())), ceiling))
    unseen = held_out(data, folds(data, seed), seed, way) if costs else np.interp(data.score, knots, main)
    second = elub(data.rescored(unseen))
    return Scale(
        way=way, knots=tuple(knots.tolist()), log10_lr=_rounded(main), lo=_rounded(np.minimum(lo, main)),
        hi=_rounded(np.maximum(hi, main)), floor=floor, ceiling=ceiling, elub_lo=second.lo, elub_hi=second.hi,
        clean_clusters=int(data.holds[0].sum()), knowing_clusters=int(data.holds[1].sum()), cllr=costs,
    )  # fmt: skip


def _at_least(data: Labelled, score: float) -> float:
    """The log10 ratio that scores from ``score`` on have at the least, given how few clusters could mislead.

    Where no clean cluster reaches, none does in any resample either, and resampling shows no doubt: there the exact
    upper bound of the share of clean clusters that reach it (Clopper & Pearson 1934, 97.5 %) stands for it.
    """
    reach = data.score >= score
    misled, clean = len(np.unique(data.cluster[reach & ~data.knows])), int(data.holds[0].sum())
    share = float(reach[data.knows].mean())
    return float(np.log10(share / clopper_pearson(misled, clean).hi)) if share else 0.0


def _ends(step: Step) -> Float[ndarray, " knot"]:
    """The scores at which the ratio starts or stops changing: the ends of blocks."""
    if len(step.x) < 3:
        return step.x
    flat = np.diff(step.log_lr) == 0
    inside = np.r_[False, flat] & np.r_[flat, False]
    return step.x[~inside]


def _rounded(x: Float[ndarray, " knot"]) -> tuple[float, ...]:
    return tuple(significant(v, _DIGITS) for v in x.tolist())


def ratio(scale: Scale, score: float) -> Ratio:
    """The likelihood ratio of one score. Raises AuditError for a score that is no number: missing is no evidence."""
    if not np.isfinite(score):
        raise AuditError(f"{score} has no likelihood ratio", "leave the finding out where it has no score")

    def at(values: tuple[float, ...]) -> float:
        return float(np.clip(np.interp(score, scale.knots, values), scale.floor, scale.ceiling))

    return Ratio(at(scale.log10_lr), at(scale.lo), at(scale.hi), scale.floor, scale.ceiling)
