"""Rank correlation."""

from math import nan, sqrt

from jaxtyping import Float
from numpy import ndarray

from audit.stats.ranks import midranks


def spearman(x: Float[ndarray, " n"], y: Float[ndarray, " n"]) -> float:
    """Spearman's rank correlation, tied ranks averaged; NaN where either does not vary.

    Source: Spearman 1904 (American Journal of Psychology 15:72).
    """
    a, b = (midranks(values) - (len(values) + 1) / 2 for values in (x, y))
    norm = sqrt(float((a**2).sum()) * float((b**2).sum()))
    return float((a * b).sum()) / norm if norm else nan
