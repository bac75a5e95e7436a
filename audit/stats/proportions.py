"""Exact bounds of a binomial proportion."""

import numpy as np
import scipy
from jaxtyping import Float, Int
from numpy import ndarray

from audit.schema import Interval


def clopper_pearson(k: int, n: int, level: float = 0.95) -> Interval:
    """Exact binomial interval for k of n (Clopper & Pearson 1934, Biometrika 26:404)."""
    tail = (1 - level) / 2
    lo = 0.0 if k == 0 else float(scipy.special.betaincinv(k, n - k + 1, tail))
    hi = 1.0 if k == n else float(scipy.special.betaincinv(k + 1, n - k, 1 - tail))
    return Interval(lo=lo, hi=hi)


def upper_bound(k: int, n: int, level: float = 0.95) -> float:
    """One-sided exact upper bound of a rate of which k of n were seen; 0 of 59 bounds 5 % (Clopper & Pearson 1934)."""
    return 1.0 if k == n else float(scipy.special.betaincinv(k + 1, n - k, level))


def more_often(
    k: Int[ndarray, " event"], n: int, other_k: Int[ndarray, " event"], other_n: int
) -> Float[ndarray, " event"]:
    """One-sided p that an event, seen k times of n and other_k times of other_n, is more frequent in the first: the
    exact test given how often it was seen in all (Fisher 1935, JRSS 98:39). 1 for what was never seen."""
    return np.minimum(scipy.stats.hypergeom.sf(k - 1, n + other_n, k + other_k, n), 1.0)
