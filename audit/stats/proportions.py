"""Which of two proportions is larger, exactly."""

import numpy as np
import scipy
from jaxtyping import Float, Int
from numpy import ndarray


def more_often(
    k: Int[ndarray, " event"], n: int, other_k: Int[ndarray, " event"], other_n: int
) -> Float[ndarray, " event"]:
    """One-sided p that an event, seen k times of n and other_k times of other_n, is more frequent in the first: the
    exact test given how often it was seen in all (Fisher 1935, JRSS 98:39). 1 for what was never seen."""
    return np.minimum(scipy.stats.hypergeom.sf(k - 1, n + other_n, k + other_k, n), 1.0)
