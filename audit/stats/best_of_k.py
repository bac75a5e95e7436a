"""The best of k draws, on average over draws: unbiased, from n draws of each item."""

import math

import numpy as np
from jaxtyping import Float
from numpy import ndarray


def best_of_k(scores: Float[ndarray, "item draw"], k: int) -> Float[ndarray, " item"]:
    """The mean over all subsets of ``k`` of an item's draws of the largest score in the subset.

    Unbiased for the expected best of k, whatever n >= k is: the i-th smallest of n scores is the largest of a subset in
    C(i-1, k-1) of C(n, k) cases. Of scores 0 and 1 it is 1 - C(n-c, k)/C(n, k), c of them being 1 (Chen et al. 2021,
    arXiv 2107.03374; of any score, leak@k: arXiv 2511.04934). ValueError where there are fewer draws than ``k``.
    """
    n = scores.shape[1]
    if not 1 <= k <= n:
        raise ValueError(f"the best of {k} needs as many draws, at least one, and there are {n}")
    subsets = math.comb(n, k)
    share = [math.comb(rank - 1, k - 1) / subsets for rank in range(1, n + 1)]
    return np.sort(scores, axis=1) @ np.array(share)
