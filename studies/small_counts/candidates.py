"""Ways to test a mean over people, and to an interval of a ratio of means: every draw of a cell at once.

Arrays are [person draw], so that a draw takes the place of a layer. Tests say above or below zero at ``ALPHA``, one
side each; intervals are nominal 95 %.
"""

from typing import NamedTuple

import numpy as np
from numpy import ndarray
from scipy.special import ndtr, ndtri, stdtr, stdtrit

from audit import stats
from audit.stats import randomisation, ratio_intervals, skewed_means

ALPHA, TAIL = 0.01, 0.025
RESAMPLES, SIGNS = 999, 999
TESTS = ("student_t", "sign_flips", "johnson", "hall", "bootstrap_t", "bca", "flips_and_hall", "chosen")
INTERVALS = ("percentile", "bca", "bootstrap_t", "linear_t", "hall", "chosen")


class Calls(NamedTuple):
    """In which draws a test says above, and in which below."""

    above: ndarray
    below: ndarray


class Ends(NamedTuple):
    """Both ends of an interval in every draw."""

    lo: ndarray
    hi: ndarray


# ---- resampling -----------------------------------------------------------------------------------------------------
class Resampled(NamedTuple):
    """Bootstrap of the mean less the mean that is seen: deviations and studentised ones [resample draw], sorted."""

    deviation: ndarray
    t: ndarray


def resampled(x: ndarray, seed: int) -> Resampled:
    """One matrix of counts serves all draws: which people are drawn again has nothing to do with what they show."""
    n = len(x)
    weights = np.random.default_rng(seed).multinomial(n, np.full(n, 1 / n), RESAMPLES) / n
    rest = x - x.mean(0)
    mean = weights @ rest
    spread = np.sqrt(np.maximum(weights @ rest**2 - mean**2, 0) / max(n - 1, 1))
    with np.errstate(divide="ignore", invalid="ignore"):
        t = np.where(spread > 1e-12, mean / spread, np.where(np.abs(mean) < 1e-12, 0.0, np.copysign(np.inf, mean)))
    return Resampled(np.sort(mean, 0), np.sort(t, 0))


def quantile(ordered: ndarray, share: float | ndarray) -> ndarray:
    """The quantile of each column [draw] of ordered values."""
    place = np.clip(np.round(np.asarray(share) * (len(ordered) + 1)).astype(int) - 1, 0, len(ordered) - 1)
    return np.take_along_axis(ordered, np.broadcast_to(place, ordered.shape[1])[None], 0)[0]


def bca_ends(x: ndarray, again: Resampled, tail: float) -> Ends:
    """Bias-corrected and accelerated ends of the mean (Efron 1987, JASA 82:171)."""
    rest = x - x.mean(0)
    cubes, squares = (rest**3).sum(0), (rest**2).sum(0)
    lean = np.where(squares > 0, cubes / np.where(squares > 0, 6 * squares**1.5, 1), 0.0)
    bias = ndtri(np.clip((again.deviation < 0).mean(0), 1 / RESAMPLES, 1 - 1 / RESAMPLES))
    z = [bias + ndtri(tail), bias - ndtri(tail)]
    ends = [quantile(again.deviation, ndtr(bias + end / (1 - lean * end))) for end in z]
    return Ends(x.mean(0) + ends[0], x.mean(0) + ends[1])


# ---- tests ----------------------------------------------------------------------------------------------------------
def studentised(moment: skewed_means.Moments) -> ndarray:
    """Plain t; 0/0 is 0."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(moment.error > 0, moment.value / moment.error, np.sign(moment.value) * 1e9)


def by_t(sided: skewed_means.Sided, df: ndarray) -> Calls:
    """Against Student's t."""
    return Calls(stdtr(df, -sided.above) < ALPHA, stdtr(df, sided.below) < ALPHA)


def by_randomisation(family: randomisation.Family, sided: skewed_means.Sided) -> Calls:
    """Against sign flips or permutations: each draw has its own."""
    add = 0 if family.exact else 1
    slack = randomisation.TIE * np.maximum(1.0, np.nan_to_num(np.abs(family.observed), posinf=0.0))
    over = (family.t >= sided.above - slack).sum(0) + add
    under = (family.t <= sided.below + slack).sum(0) + add
    return Calls(over / (len(family.t) + add) < ALPHA, under / (len(family.t) + add) < ALPHA)


def both(*calls: Calls) -> Calls:
    """The largest p of several tests."""
    return Calls(
        np.logical_and.reduce([call.above for call in calls]), np.logical_and.reduce([call.below for call in calls])
    )


def chosen(x: ndarray, forget: ndarray | None, family: randomisation.Family) -> Calls:
    """What :func:`audit.stats.mean_max_t` does with one layer, for every draw."""
    moment, n = skewed_means.moments(x, forget), stats.fewest(len(x), forget)
    sides = (len(x), 0) if forget is None else (int(forget.sum()), int((~forget).sum()))
    t = skewed_means.corrected(moment, n, 1 if forget is None else 2)
    if not stats.judged_by_t(*sides):
        return both(by_randomisation(family, t), by_t(t, moment.df))
    flat = skewed_means.one_of_all(len(x), forget)
    spread = (moment.error > 0) | (flat < ALPHA)
    calls = by_t(t, moment.df)
    return Calls(calls.above & spread, calls.below & spread)


def tests(x: ndarray, seed: int) -> dict[str, Calls]:
    """Every test of people's values [person draw] against zero."""
    moment = skewed_means.moments(x)
    t, df, skewness = studentised(moment), moment.df, moment.skewness
    family = randomisation.family(x, seed, None, SIGNS)
    again = resampled(x, seed)
    with np.errstate(over="ignore", invalid="ignore"):
        johnson = np.where(np.abs(t) < 1e8, t + skewness / 6 + skewness * t**2 / 3, t)
        straight = np.where(np.abs(t) < 1e8, skewed_means.hall(t, skewness), t)
    ends = bca_ends(x, again, ALPHA)
    flips = by_randomisation(family, skewed_means.Sided(t, t))
    of_hall = by_t(skewed_means.Sided(straight, straight), df)
    return {
        "student_t": by_t(skewed_means.Sided(t, t), df),
        "sign_flips": flips,
        "johnson": by_t(skewed_means.Sided(johnson, johnson), df),
        "hall": of_hall,
        "bootstrap_t": Calls(t > quantile(again.t, 1 - ALPHA), t < quantile(again.t, ALPHA)),
        "bca": Calls(ends.lo > 0, ends.hi < 0),
        "flips_and_hall": both(flips, of_hall),
        "chosen": chosen(x, None, family),
    }


def two_sided_tests(x: ndarray, forget: ndarray, seed: int) -> dict[str, Calls]:
    """Tests of forget people against the others."""
    moment, family = skewed_means.moments(x, forget), randomisation.family(x, seed, forget, SIGNS)
    t = studentised(moment)
    return {
        "label_permutation": by_randomisation(family, skewed_means.Sided(t, t)),
        "welch_t": by_t(skewed_means.Sided(t, t), moment.df),
        "chosen": chosen(x, forget, family),
    }


# ---- intervals ------------------------------------------------------------------------------------------------------
def intervals(numerator: ndarray, denominator: ndarray, seed: int) -> dict[str, Ends]:
    """Every interval of the ratio of means [draw]; the bootstraps but one are of the linearised ratio."""
    ratio, rest = ratio_intervals.linearised(numerator, denominator, None)
    error, again = skewed_means.moments(rest), resampled(rest, seed)
    q = -stdtrit(error.df, TAIL)
    drawn = bootstrap_ratios(numerator, denominator, seed)
    bca = bca_ends(rest, again, TAIL)
    ours = stats.ratio_bounds(numerator, denominator)
    up, down = skewed_means.unhall(-q, error.skewness), skewed_means.unhall(q, error.skewness)
    t = [np.nan_to_num(quantile(again.t, share), posinf=1e9, neginf=-1e9) for share in (1 - TAIL, TAIL)]
    return {
        "percentile": Ends(quantile(drawn, TAIL), quantile(drawn, 1 - TAIL)),
        "bca": Ends(ratio + bca.lo, ratio + bca.hi),
        "bootstrap_t": Ends(ratio - t[0] * error.error, ratio - t[1] * error.error),
        "linear_t": Ends(ratio - q * error.error, ratio + q * error.error),
        "hall": Ends(ratio - down * error.error, ratio - up * error.error),
        "chosen": Ends(ours.lo, ours.hi),
    }


def bootstrap_ratios(numerator: ndarray, denominator: ndarray, seed: int) -> ndarray:
    """Sorted ratios [resample draw] over resampled people: what the reports of version 1.3 carried."""
    n = len(numerator)
    weights = np.random.default_rng(seed).multinomial(n, np.full(n, 1 / n), RESAMPLES) / n
    return np.sort((weights @ numerator) / (weights @ denominator), 0)
