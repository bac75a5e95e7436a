"""Which of two proportions is larger, exactly; and the distribution that says so.

Only ``scipy.special`` is used: to load ``scipy.stats`` costs an audit a second.
"""

import numpy as np
import scipy
from jaxtyping import Float, Int
from numpy import ndarray
from numpy.typing import ArrayLike


def log_hypergeometric(
    hits: Int[ndarray, "..."], of: int, members: Int[ndarray, "..."] | int, drawn: int
) -> Float[ndarray, "..."]:
    """log P(exactly so many ``hits`` among ``drawn`` of ``of`` things, ``members`` of which are hits), drawn without
    replacement; -inf for what cannot be. Hits and members are broadcast."""
    missed, others = drawn - hits, of - np.asarray(members)
    possible = (hits >= 0) & (hits <= members) & (missed >= 0) & (missed <= others)
    log = _log_choices(members, np.where(possible, hits, 0)) + _log_choices(others, np.where(possible, missed, 0))
    return np.where(possible, log - _log_choices(of, drawn), -np.inf)


def _log_choices(n: ArrayLike, k: ArrayLike) -> Float[ndarray, "..."]:
    """log of n choose k: by the beta function, whose logarithm keeps its digits where n is large."""
    n, k = np.asarray(n), np.asarray(k)
    return np.asarray(-np.log1p(n) - scipy.special.betaln(n - k + 1, k + 1))


def more_often(
    k: Int[ndarray, " event"], n: int, other_k: Int[ndarray, " event"], other_n: int
) -> Float[ndarray, " event"]:
    """One-sided p that an event, seen k times of n and other_k times of other_n, is more frequent in the first: the
    exact test given how often it was seen in all (Fisher 1935, JRSS 98:39). 1 for what was never seen."""
    seen, which = np.unique(np.stack([k, k + other_k]), axis=1, return_inverse=True)
    hits = np.arange(n + 1)[:, None]
    log = log_hypergeometric(hits, n + other_n, seen[1], n)
    tail = np.where(hits >= seen[0], np.exp(log), 0.0).sum(0)
    return np.where(seen[0] > 0, np.minimum(tail, 1.0), 1.0)[which.reshape(-1)]
