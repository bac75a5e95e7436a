"""Exact bounds of a binomial proportion."""

import scipy

from audit.schema import Interval


def clopper_pearson(k: int, n: int, level: float = 0.95) -> Interval:
    """Exact binomial interval for k of n (Clopper & Pearson 1934, Biometrika 26:404)."""
    tail = (1 - level) / 2
    lo = 0.0 if k == 0 else float(scipy.stats.beta.ppf(tail, k, n - k + 1))
    hi = 1.0 if k == n else float(scipy.stats.beta.ppf(1 - tail, k + 1, n - k))
    return Interval(lo=lo, hi=hi)


def upper_bound(k: int, n: int, level: float = 0.95) -> float:
    """One-sided exact upper bound of a rate of which k of n were seen; 0 of 59 bounds 5 % (Clopper & Pearson 1934)."""
    return 1.0 if k == n else float(scipy.stats.beta.ppf(level, k + 1, n - k))
