"""Rank statistics: AUROC, Kolmogorov-Smirnov, Min-K, quantiles, harmonic mean."""

import warnings
from typing import NamedTuple

import numpy as np
import scipy
from jaxtyping import Float, Int
from numpy import ndarray


class KS(NamedTuple):
    """Kolmogorov-Smirnov distance D and its two-sided p."""

    d: float
    p: float


# ---- ranks -------------------------------------------------------------------------------------------------------
def midranks(x: Float[ndarray, " n"]) -> Float[ndarray, " n"]:
    """Ranks from 1 on, equal values given the mean of theirs; all NaN where a value is none. As scipy.stats.rankdata,
    which spends ten times as long around a short array."""
    if np.isnan(x).any():
        return np.full(len(x), np.nan)
    order = np.argsort(x, kind="stable")
    rising = x[order]
    ends = np.concatenate([[0], 1 + np.flatnonzero(rising[1:] != rising[:-1]), [len(x)]])
    ranks = np.empty(len(x))
    ranks[order] = np.repeat((ends[:-1] + ends[1:] + 1) / 2, np.diff(ends))
    return ranks


def auroc(positive: Float[ndarray, " m"], negative: Float[ndarray, " n"]) -> float:
    """P(positive > negative) + P(tie)/2, by midranks (Mann & Whitney 1947; Hanley & McNeil 1982)."""
    m, n = len(positive), len(negative)
    ranks = midranks(np.concatenate([positive, negative]))
    return float((ranks[:m].sum() - m * (m + 1) / 2) / (m * n))


def ks_two_sample(a: Float[ndarray, " m"], b: Float[ndarray, " n"]) -> KS:
    """Two-sample Kolmogorov-Smirnov distance D and p (exact for small samples, else asymptotic; Hodges 1958)."""
    with warnings.catch_warnings():
        # With many ties scipy cannot enumerate and says so; its asymptotic p is the answer we want then.
        warnings.simplefilter("ignore", RuntimeWarning)
        distance, p = np.asarray(scipy.stats.ks_2samp(a, b), dtype=float)
    return KS(float(distance), float(p))


def harmonic_mean(x: Float[ndarray, " part"]) -> float:
    """n / sum(1/x); 0 as soon as one part is 0. Raises ValueError for negative parts, where it has no meaning."""
    if (x < 0).any():
        raise ValueError("harmonic mean of a negative number")
    return 0.0 if (x == 0).any() else float(len(x) / (1 / x).sum())


def quantile_summary(draws: Float[ndarray, " draw"]) -> tuple[float, ...]:
    """The 101 quantiles (0, 1, ..., 100 %) by which a report keeps a null distribution."""
    return tuple(float(q) for q in np.percentile(draws, np.arange(101)))


def min_k(values: Float[ndarray, " token"], row: Int[ndarray, " token"], n_rows: int, k: float) -> ndarray:
    """Mean of the lowest fraction ``k`` of every row's token log-probabilities, at least one token (Shi et al. 2024).

    ``row`` names the row of each token; rows without tokens give NaN. Source: arXiv 2310.16789, section 3.
    """
    order = np.lexsort((values, row))
    counts = np.bincount(row, minlength=n_rows)
    rank = np.arange(len(values)) - np.repeat(np.cumsum(counts) - counts, counts)
    lowest = np.maximum((counts * k).astype(int), 1)
    low = rank < np.repeat(lowest, counts)
    sums = np.bincount(row[order][low], weights=values[order][low], minlength=n_rows)
    return np.where(counts > 0, sums / lowest, np.nan)
