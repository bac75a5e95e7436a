"""How much of a spread lies between clusters, and what a count is worth whose clusters have something in common.

Worlds that all stem from one base share whatever is peculiar to that base: they are many draws of facts and one draw of
a base. What they bound for other bases is what so many fewer independent worlds would bound.
"""

import numpy as np
import scipy
from jaxtyping import Float, Int
from numpy import ndarray


def intraclass_share(score: Float[ndarray, " model"], cluster: Int[ndarray, " model"]) -> float:
    """The part of the variance that lies between clusters, 0 to 1: one-way random effects, clusters of unequal size, by
    the analysis of variance (Searle, Casella & McCulloch 1992, Variance Components, section 3.6). An estimate below
    zero is zero. NaN where no cluster has two models, or there is one cluster only.
    """
    names, number, size = np.unique(cluster, return_inverse=True, return_counts=True)
    n, groups = len(score), len(names)
    if groups < 2 or n == groups:
        return float("nan")
    means = np.bincount(number, score) / size
    within = float(((score - means[number]) ** 2).sum()) / (n - groups)
    between = float((size * (means - score.mean()) ** 2).sum()) / (groups - 1)
    typical = (n - float((size.astype(float) ** 2).sum()) / n) / (groups - 1)
    component = max(0.0, (between - within) / typical)
    return component / (component + within) if component + within > 0 else 0.0


def effective_worlds(n: int, share: float) -> float:
    """How many independent worlds n of one base are worth, where this share of the variance is the base's own: the
    design effect of equally correlated draws (Kish 1965, Survey Sampling, section 8.2)."""
    return n / (1 + (n - 1) * share)


def widened_bound(k: int, n: int, share: float, level: float = 0.95) -> float:
    """One-sided upper bound of a rate of which k of n were seen in worlds of one base: the exact binomial one at the
    effective number of worlds (Korn & Graubard 1998, Survey Methodology 24:193). 1 where nothing was counted.
    """
    if n == 0 or k == n:
        return 1.0
    worth = effective_worlds(n, share)
    seen = k * worth / n
    return float(scipy.stats.beta.ppf(level, seen + 1, worth - seen))
