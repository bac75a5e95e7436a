"""Who is known: a mixture over people of what a model that never knew reads and of what base reads.

Person effects are on the scale 0 (never trained) to 1 (base). No tail is trusted to be lighter than that of Student's t
with 4 degrees of freedom, and a level by which models that never knew differ speaks for nobody's knowledge.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import scipy
from jaxtyping import Float, Int
from numpy import ndarray

from audit.schema import FDR
from audit.stats.multiplicity import benjamini_hochberg
from audit.stats.sparse_effects import LEAST_PEOPLE, MAD_TO_SD

TAIL_DF = 4.0
LEAST_SCALE = 0.01
"""A spread of null people below this, on the effect scale, counts as this: a hundredth of base names nobody."""
LEAST_RELATIVE = 0.1
"""Known people differ at least so much in how much of base is read of them."""

GAIN_NATS = 3.0
"""Somebody counts as known where that is likelier by so many nats (the 95 % point of chi-square with two degrees of
freedom, halved)."""
DROP_NATS = 1.92
"""A profile likelihood interval (95 %) holds what is at most so much less likely."""
LEVELS = (*np.geomspace(0.05, 0.93, 20).tolist(), 1.0, 1.15)
FEWEST_SHIFTS, MOST_SHIFTS = 5, 25
"""Levels of the null between its ends: as many as lie half a spread from one another, within these."""
WINSOR = 2.0
"""A reading so many scales below the null's level counts as that: being far below it is no sign of knowledge."""


class NullPeople(NamedTuple):
    """People of whom one kind of model knows nothing: where they lie, how they spread, and by how much the level itself
    may be off (another model that never knew, or few people)."""

    location: float
    scale: float
    shift: float
    people: int


FEW = 16.0
"""The squared spread of m null people is taken 1 + 16/m times: with few of them it may have missed the odd ones. So
chosen that of people who are unknown, with a fifth of them three and the others half a spread wide, or 60 % tied at 0,
nobody is named at a rate of .05 in about 95 of 100 simulated panels from 8 null people on."""


def null_people(groups: Sequence[Float[ndarray, " _other"]], signed: bool) -> NullPeople | None:
    """What these groups, each about its own median, say of null people; None under six people in all.

    The spread is the larger of 1.4826 times the median absolute deviation and the standard deviation, which heavy tails
    and skew move. ``signed``: each group is a model that never knew against another, so that its level may as well have
    been the other way: the location is 0 and the largest level is the shift. Else location is the median, whose
    standard error is the shift.
    """
    groups = [group for group in groups if len(group)]
    m = sum(map(len, groups))
    if m < LEAST_PEOPLE:
        return None
    levels = np.array([float(np.median(group)) for group in groups])
    off = np.concatenate([group - level for group, level in zip(groups, levels, strict=True)])
    scale = max(MAD_TO_SD * float(np.median(np.abs(off))), float(np.sqrt((off**2).sum() / (m - 1))), LEAST_SCALE)
    unsure = float(np.sqrt(np.pi / (2 * m))) * scale
    if signed:
        return NullPeople(0.0, scale, max(float(np.abs(levels).max()), unsure), m)
    return NullPeople(float(np.median(np.concatenate(groups))), scale, unsure, m)


# ---- by name ----------------------------------------------------------------------------------------------------
def p_above(people: Float[ndarray, " person"], null: NullPeople) -> Float[ndarray, " person"]:
    """One-sided p of every person against null people, their level as high as it may be and no surer than that."""
    spread = float(np.hypot(null.scale * np.sqrt(1 + FEW / null.people), null.shift))
    return scipy.special.stdtr(TAIL_DF, -(people - null.location - null.shift) / spread)


def standing_out(
    people: Float[ndarray, " person"], nulls: Sequence[NullPeople], fdr: float = FDR
) -> Int[ndarray, " _chosen"]:
    """Places of the people who stand out above the null people of every group, strongest first.

    Of several groups each person takes the largest p, and the false discovery rate is held by Benjamini & Hochberg 1995
    (JRSS-B 57:289), which also holds under positive dependence (Benjamini & Yekutieli 2001, Ann. Stat. 29:1165).
    """
    if not nulls or not len(people):
        return np.zeros(0, int)
    p = np.max([p_above(people, null) for null in nulls], axis=0)
    chosen = np.flatnonzero(benjamini_hochberg(p) <= fdr)
    return chosen[np.argsort(-people[chosen], kind="stable")]


# ---- by likelihood ----------------------------------------------------------------------------------------------
class Mixture(NamedTuple):
    """How many of the people are known, its 95 % profile interval, and of how much of base.

    ``log10_ratio``: the likelihood where all (level 1) is known of some people over that where some is known of all.
    """

    known: int
    lower: int
    upper: int
    level: float
    log10_ratio: float


def _log_t(z: ndarray) -> ndarray:
    """Log density of t up to a constant."""
    return -(TAIL_DF + 1) / 2 * np.log1p(z**2 / TAIL_DF)


def _log_count(log_ratio: Float[ndarray, "*grid person"]) -> Float[ndarray, "*grid count"]:
    """Log likelihood that 0, 1, ..., n of the people are known, any of them alike, less that of nobody known.

    With f the density of unknown and g of known people it is the mean over all sets of k people of the product of g/f
    within the set: the k-th elementary symmetric polynomial of the ratios over (n choose k). The polynomials are built
    person by person as a Poisson-binomial distribution (Chen, Dempster & Liu 1994, Biometrika 81:457).
    """
    n = log_ratio.shape[-1]
    known = 1 / (1 + np.exp(-np.clip(log_ratio, -600, 600)))
    probability = np.zeros((*log_ratio.shape[:-1], n + 1))
    probability[..., 0] = 1.0
    for person in range(n):
        p = known[..., person, None]
        probability[..., 1:] = probability[..., 1:] * (1 - p) + probability[..., :-1] * p
        probability[..., 0] *= 1 - p[..., 0]
    k = np.arange(n + 1)
    choose = scipy.special.gammaln(n + 1) - scipy.special.gammaln(k + 1) - scipy.special.gammaln(n - k + 1)
    with np.errstate(divide="ignore"):
        return np.log(probability) + np.logaddexp(0, log_ratio).sum(-1, keepdims=True) - choose


def mixture(people: Float[ndarray, " person"], base: Float[ndarray, " person"], nulls: Sequence[NullPeople]) -> Mixture:
    """How many people are known, by maximum likelihood over their number, the level and the null's own level.

    An unknown person reads t(4) about the null's level, with the spread of the widest group of null people. A known one
    reads ``level`` times what base reads of that person, ``base``, with a spread that adds level times the spread of
    ``base`` between people. The number of these very people is asked, so that where they part clearly it is certain.
    Where nobody known is about as likely (3 nats), the number is 0. The level is averaged over all levels by their
    likelihood: level and the null's own level change places at little cost. Source: McLachlan & Peel 2000, ch. 2.
    """
    order = np.lexsort((base, people))  # sums in one order, whatever that of people is
    people, base, n = people[order], base[order], len(people)
    widest = max(null.scale for null in nulls)
    ends = [null.location + side * null.shift for null in nulls for side in (-1, 1)]
    steps = int(np.clip(np.ceil(2 * (max(ends) - min(ends)) / widest), FEWEST_SHIFTS, MOST_SHIFTS))
    low = np.linspace(min(ends), max(ends), steps)[:, None, None]
    level = np.array(LEVELS)[:, None]
    reading = np.maximum(np.broadcast_to(people, (steps, 1, n)), low - WINSOR * widest)
    unknown = _log_t((reading - low) / widest) - np.log(widest)
    spread = np.hypot(widest, level * max(float(base.std(ddof=1)) if n > 1 else 0.0, LEAST_RELATIVE))
    log_ratio = _log_t((reading - low - level * base) / spread) - np.log(spread) - unknown
    fit = _log_count(log_ratio) + unknown.sum(-1, keepdims=True)
    profile = fit.max((0, 1))
    known = int(profile.argmax())
    inside = np.flatnonzero(profile >= profile.max() - DROP_NATS)
    full, part = float(fit[:, LEVELS.index(1.0), 1:].max()), float(fit[:, :, n].max())
    ratio = float(np.clip((full - part) / np.log(10), -300, 300))
    if profile[known] - profile[0] < GAIN_NATS:
        return Mixture(0, 0, int(inside.max()), 0.0, ratio)
    weight = np.exp(fit[:, :, known] - profile[known])
    mean = float((weight.sum(0) * np.array(LEVELS)).sum() / weight.sum())
    return Mixture(known, int(inside.min()), int(inside.max()), mean, ratio)
