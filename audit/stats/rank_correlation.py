"""Rank correlation."""

from math import nan, sqrt

import scipy
from jaxtyping import Float
from numpy import ndarray


def spearman(x: Float[ndarray, " n"], y: Float[ndarray, " n"]) -> float:
    """Spearman's rank correlation, tied ranks averaged; NaN where either does not vary.

    Source: Spearman 1904 (American Journal of Psychology 15:72).
    """
    a, b = (scipy.stats.rankdata(values) - (len(values) + 1) / 2 for values in (x, y))
    norm = sqrt(float((a**2).sum()) * float((b**2).sum()))
    return float((a * b).sum()) / norm if norm else nan
