"""Which of many candidates stands out from the others? The largest of a list against the list's own upper tail."""

from functools import lru_cache
from typing import NamedTuple

import numpy as np
from jaxtyping import Float
from numpy import ndarray

FEWEST = 20
"""Of fewer candidates nobody is said to stand out."""
_TAIL, _USED = 0.5, 0.8
"""The upper half of a list is its tail, whose scale is estimated from all but the list's largest tenth."""
_GRID = 512
_MAD = 1.4826
"""The standard deviation of a normal distribution in its median absolute deviations."""


class Extreme(NamedTuple):
    """Of every candidate its robust z among all, and p: how often the largest of so many would be as large as it.

    ``of``: how many candidates; of fewer than :data:`FEWEST` p is 1. ``reference_p``: the smallest p by the same rule
    among the reference's own gains, 1 without any: where it is small too, the tail is heavier than the rule takes it to
    be, and p means little.
    """

    z: Float[ndarray, " candidate"]
    p: Float[ndarray, " candidate"]
    of: int
    reference_p: float


def extreme(gains: Float[ndarray, " candidate"], reference: Float[ndarray, " candidate"] | None = None) -> Extreme:
    """Which candidates gain more than the largest of so many would by chance?

    With ``reference`` (gains of the same candidates in a model that never knew) what a line through both explains is
    taken off first, by its median slope (Sen 1968, JASA 63:1379), never a negative one: a string that moves every model
    does not stand out.
    """
    excess = gains
    if reference is not None and len(gains) >= FEWEST:
        excess = gains - max(0.0, _median_slope(reference, gains)) * reference
    own = 1.0 if reference is None else float(largest_p(reference).min(initial=1.0))
    return Extreme(robust_z(excess), largest_p(excess), len(gains), own)


def robust_z(x: Float[ndarray, " candidate"]) -> Float[ndarray, " candidate"]:
    """Distance from the median in units of the median absolute deviation, scaled to a normal's standard deviation."""
    away = x - np.median(x) if len(x) else x
    spread = _MAD * float(np.median(np.abs(away))) if len(x) else 0.0
    if spread > 0:
        return away / spread
    return np.where(away == 0, 0.0, np.copysign(np.inf, away))


def largest_p(x: Float[ndarray, " candidate"]) -> Float[ndarray, " candidate"]:
    """Of every value, how often the largest of so many would be as large, where their upper tail is exponential.

    Excesses over a high order statistic are then independent exponentials (Renyi 1953, Acta Math. Hung. 4:191; the tail
    of Pickands 1975, Ann. Stat. 3:119, with shape 0, whose maximum is Gumbel's). Their scale is that of the smaller
    ones alone (Epstein & Sobel 1953, JASA 48:486), so that up to a tenth of the candidates may stand out and hide
    neither themselves nor one another; that it is an estimate is accounted for exactly. Tails lighter than exponential,
    such as a normal one, make p too large, heavier ones too small.
    """
    n = len(x)
    if n < FEWEST:
        return np.ones(n)
    ordered = np.sort(x)
    tail = int(_TAIL * n)
    low = int(_USED * tail)
    excess = ordered[n - tail :] - ordered[n - tail - 1]
    edge = excess[low - 1]
    scale = (excess[:low].sum() + (tail - low) * edge) / low
    beyond = x - ordered[n - tail - 1] - edge
    if scale <= 0:
        return np.where(beyond > 0, 0.0, 1.0)
    p = np.ones(n)
    p[beyond > 0] = _p_of_largest(beyond[beyond > 0] / scale, tail - low, low)
    return p


def _p_of_largest(t: Float[ndarray, " value"], n: int, of_scale: int) -> Float[ndarray, " value"]:
    """P(the largest of ``n`` exponentials is beyond ``t`` of their scale), with a scale estimated from ``of_scale``
    others: an integral over the estimate's gamma distribution, by the middles of equally likely parts."""
    with np.errstate(divide="ignore"):
        return -np.expm1(n * np.log1p(-np.exp(-np.outer(t, _estimates(of_scale))))).mean(1)


@lru_cache(maxsize=16)
def _estimates(of_scale: int) -> Float[ndarray, " part"]:
    """Estimates of a scale of 1 from so many exponentials, equally likely ones."""
    from scipy.stats import gamma

    return gamma.ppf((np.arange(_GRID) + 0.5) / _GRID, of_scale) / of_scale


def _median_slope(x: ndarray, y: ndarray) -> float:
    """The median of the slopes between all pairs of points; 0 where x never differs."""
    first, second = np.triu_indices(len(x), 1)
    run, rise = x[second] - x[first], y[second] - y[first]
    differs = run != 0
    return float(np.median(rise[differs] / run[differs])) if differs.any() else 0.0
