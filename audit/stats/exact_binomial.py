"""Exact bounds of a binomial proportion, without an array library: pages state them, and have to start at once.

``scipy.special`` has the same numbers, and takes longer to be imported than a report to be shown.
"""

import math
from typing import Final

from audit.schema import Interval

_ROUNDING: Final = 4e-16
_STEPS: Final = 100
_COUNTED: Final = 1000
"""Up to so many of either kind the ways to draw them are counted; beyond, their logarithm is good to 1e-9."""


def clopper_pearson(k: int, n: int, level: float = 0.95) -> Interval:
    """Exact binomial interval for k of n (Clopper & Pearson 1934, Biometrika 26:404)."""
    tail = (1 - level) / 2
    return Interval(lo=_least(k, n, tail), hi=1 - _least(n - k, n, tail))


def upper_bound(k: int, n: int, level: float = 0.95) -> float:
    """One-sided exact upper bound of a rate of which k of n were seen; 0 of 59 bounds 5 % (Clopper & Pearson 1934)."""
    return 1 - _least(n - k, n, 1 - level)


def _least(k: int, n: int, tail: float) -> float:
    """The rate at which k or more of n are seen with probability ``tail``: Newton's steps on logarithms of both, which
    are nearly a straight line, within a bracket. 0 where so many are always seen (k = 0)."""
    if k == 0:
        return 0.0
    if k == n:
        return tail ** (1 / n)
    ways, lo, p, hi = _log_ways(k, n), 0.0, k / n, 1.0
    for _ in range(_STEPS):
        exactly = math.exp(ways + k * math.log(p) + (n - k) * math.log1p(-p))
        seen = exactly * _relative_tail(k, n, p / (1 - p))
        lo, hi = (p, hi) if seen < tail else (lo, p)
        # d log P(k or more) / d log p = k P(k exactly) / P(k or more)
        better = p * math.exp(math.log(tail / seen) * seen / (k * exactly)) if seen and exactly else 0.0
        better = better if lo < better < hi else (lo + hi) / 2
        if abs(better - p) <= _ROUNDING * p:
            return better
        p = better
    return p


def _relative_tail(k: int, n: int, odds: float) -> float:
    """P(k or more of n) over P(k exactly): each term from the one before, until one changes nothing."""
    total = term = 1.0
    for j in range(k, n):
        term *= odds * (n - j) / (j + 1)
        total += term
        if term < _ROUNDING * total:
            break
    return total


def _log_ways(k: int, n: int) -> float:
    if min(k, n - k) <= _COUNTED:
        return math.log(math.comb(n, k))
    return math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1)
