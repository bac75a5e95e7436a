"""Means and contrasts over few people whose values are skewed: tests that keep their level.

Student's t of a skewed mean is itself skewed, the other way: of exponential values of 12 people it says "below" at .01
in 6 % of null draws, sign flips in 5 %. Here the statistic is moved towards zero by Hall's transformation wherever the
skewness that is seen says so, and never away from it; what few people do not show of their skewness is paid for by a
factor. ``studies/small_counts`` compares this with other ways, by shape and number of people.
"""

from math import comb
from typing import NamedTuple

import numpy as np
import scipy
from jaxtyping import Bool, Float
from numpy import ndarray

from audit.stats import randomisation
from audit.stats.randomisation import MaxT

FEW = 12
"""With fewer people than this Student's t judges, else sign flips."""
FEW_BESIDE = 8
"""With fewer people than this on either side of two Student's t judges, else label permutations."""
LEAST_T = 1e-4
"""No p of Student's t is called smaller: nobody knows such tails of few people."""


class Moments(NamedTuple):
    """A contrast of people's means [layer]: its value, standard error, skewness and degrees of freedom.

    ``skewness`` is the third cumulant of the contrast (of one mean: of a person over n^2) over its error cubed.
    """

    value: Float[ndarray, " layer"]
    error: Float[ndarray, " layer"]
    skewness: Float[ndarray, " layer"]
    df: Float[ndarray, " layer"]


def _sides(x: Float[ndarray, "person layer"], forget: Bool[ndarray, " person"] | None) -> list[ndarray]:
    return [x] if forget is None else [x[forget], x[~forget]]


def fewest(people: int, forget: Bool[ndarray, " person"] | None) -> int:
    """The number of people; of two sides, that of the smaller one."""
    return people if forget is None else int(min(forget.sum(), (~forget).sum()))


def few(people: int, forget: Bool[ndarray, " person"] | None) -> bool:
    """Are these so few (on either side) that Student's t judges, where there is any spread?"""
    return fewest(people, forget) < (FEW if forget is None else FEW_BESIDE)


def judged_by_t(groups: int, others: int) -> bool:
    """Does Student's t judge so many people (beside so many others)? Fixed by these numbers alone.

    One person on a side has no spread: randomisations judge, as if that person were like the others.
    """
    return 1 < min(groups, others) < FEW_BESIDE if others else 1 < groups < FEW


def moments(x: Float[ndarray, "person layer"], forget: Bool[ndarray, " person"] | None = None) -> Moments:
    """Mean over people, or forget people's less the others', with unbiased second and third cumulants.

    Degrees of freedom of two sides: those of the smaller one where it has fewer than :data:`FEW_BESIDE`, else Welch's.
    A spread below rounding is 0, as is then the skewness.
    """
    value, variance, third, spread = (np.zeros(x.shape[1]) for _ in range(4))
    for sign, side in zip((1.0, -1.0), _sides(x, forget), strict=False):
        n, mean = len(side), side.mean(0)
        rest = side - mean
        square = rest * rest
        of_mean = square.sum(0) / max(n - 1, 1) / n
        of_mean = np.where(of_mean <= 1e-13 * (side * side).mean(0) / n, 0.0, of_mean)
        value, variance = value + sign * mean, variance + of_mean
        spread = spread + of_mean**2 / max(n - 1, 1)
        third = third + (sign * (square * rest).sum(0) / ((n - 1) * (n - 2) * n) if n > 2 else 0.0)
    flat, least = variance <= 0, fewest(len(x), forget)
    error = np.sqrt(variance)
    skewness = np.where(flat, 0.0, third / np.where(flat, 1.0, error**3))
    welch = np.where(flat, 1.0, variance**2 / np.where(flat, 1.0, spread))
    df = np.full(x.shape[1], max(least - 1.0, 1.0)) if forget is None or least < FEW_BESIDE else welch
    return Moments(value, error, skewness, df)


def hall(t: ndarray, skewness: ndarray) -> ndarray:
    """A studentised contrast with the skewness of its error taken out (to the second order), increasing in t.

    Source: Hall 1992 (J. R. Stat. Soc. B 54:221), with the skewness of the mean in place of a person's over sqrt(n).
    """
    return t + skewness * t**2 / 3 + skewness**2 * t**3 / 27 + skewness / 6


def unhall(q: ndarray, skewness: ndarray) -> ndarray:
    """The t that :func:`hall` takes to q."""
    flat = np.abs(skewness) < 1e-8
    a = np.where(flat, 1.0, skewness)
    return np.where(flat, q, 3 / a * (np.cbrt(1 + a * (q - a / 6)) - 1))


def held_back(n: int, sides: int = 1) -> float:
    """The factor on t for what n people do not show of their skewness: found by the study, 1 for many people.

    A little less for the smaller of two ``sides``, whose degrees of freedom Welch's count too high, and where t alone
    judges a few people.
    """
    if sides == 1 and n < FEW:
        return max(0.38, 1 - 2.1 / n)
    return max(0.4, 1 - (1.75 + sides / 4) / n)


class Sided(NamedTuple):
    """The statistic [layer] that may say above, never above t, and the one that may say below, never below it."""

    above: Float[ndarray, " layer"]
    below: Float[ndarray, " layer"]


def corrected(moment: Moments, n: int, sides: int = 1) -> Sided:
    """t with skewness corrected in its cautious direction: a long right tail speaks against below, a left one against
    above. Without any spread t is 0 or infinite."""
    flat = moment.error <= 0
    t = moment.value / np.where(flat, 1.0, moment.error)
    below = np.maximum(t, held_back(n, sides) * np.maximum(t, hall(t, np.maximum(moment.skewness, 0.0))))
    above = np.minimum(t, held_back(n, sides) * np.minimum(t, hall(t, np.minimum(moment.skewness, 0.0))))
    endless = np.where(moment.value == 0, 0.0, np.copysign(np.inf, moment.value))
    return Sided(np.where(flat, endless, above), np.where(flat, endless, below))


def mean_max_t(
    x: Float[ndarray, "person layer"],
    seed: int,
    forget: Bool[ndarray, " person"] | None = None,
    draws: int = 9999,
    scale: Float[ndarray, " layer"] | None = None,
) -> MaxT:
    """Is any layer's mean (forget less others) above zero, is any below? Family-wise, at its level under skew too.

    From :data:`FEW` people on (:data:`FEW_BESIDE` on either side): the largest corrected t among sign flips (label
    permutations) of plain max-T, and not below Student's p of it, so that p is never below that of either. With fewer:
    Student's t of it, Bonferroni over layers, not below :data:`LEAST_T`; without any spread not below one over the
    randomisations that there are.
    ``scale`` divides the contrasts of ``null_effect``.
    """
    family = randomisation.family(x, seed, forget, draws)
    n, moment = fewest(len(x), forget), moments(x, forget)
    if n < 2:
        return randomisation.judge(family, family.observed, family.observed, scale)
    t = corrected(moment, n, 1 if forget is None else 2)
    judged = randomisation.judge(family, t.above, t.below, scale)
    p = [scipy.special.stdtr(moment.df, -t.above), scipy.special.stdtr(moment.df, t.below)]
    if not few(len(x), forget):
        return judged._replace(p=max(judged.p, float(p[0].min())), p_below=max(judged.p_below, float(p[1].min())))
    floor = np.where(moment.error > 0, LEAST_T, one_of_all(len(x), forget))
    by_side = [min(1.0, x.shape[1] * float(np.maximum(tail, floor).min())) for tail in p]
    return judged._replace(p=by_side[0], p_below=by_side[1])


def one_of_all(people: int, forget: Bool[ndarray, " person"] | None) -> float:
    """One over the randomisations that there are: all that signs or labels alone can say."""
    return 1 / (2**people if forget is None else comb(people, int(forget.sum())))


def least_p(groups: int, others: int, draws: int = 9999, layers: int = 1) -> float:
    """The smallest p that :func:`mean_max_t` can reach on so many layers, for ``groups`` people beside ``others``."""
    if judged_by_t(groups, others):
        return min(1.0, layers * LEAST_T)
    return randomisation.least_p(groups, others, draws)
