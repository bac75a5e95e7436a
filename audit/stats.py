"""Statistics of an audit: randomisation tests over people, bootstraps, ranks, multiplicity. Pure numpy and scipy.

``scipy.stats`` is loaded by its first use, because whoever only reads a report never needs it.

The unit of replication is the person (author, document): callers average over a person's items first. Every draw takes
a seed. Arrays are float64; [person layer] has one column for each member of a family that is tested jointly.
"""

import warnings
from functools import lru_cache
from itertools import combinations
from math import comb
from typing import NamedTuple

import numpy as np
import scipy
from jaxtyping import Bool, Float, Int
from numpy import ndarray

EXACT_UP_TO = 2**13
"""Randomisations are enumerated up to this many; beyond it they are drawn at random with a seed."""

TIE = 1e-9
"""Two statistics closer than this (relative) are tied, so that rounding never turns a tie into a rejection."""


class MaxT(NamedTuple):
    """A family-wise randomisation test: p above and below zero, the studentised statistic of every member.

    ``null_effect`` [draw]: the largest contrast over the family, divided by its scale, under every randomisation.
    """

    p: float
    p_below: float
    t: Float[ndarray, " layer"]
    null_effect: Float[ndarray, " draw"]
    exact: bool


class KS(NamedTuple):
    """Kolmogorov-Smirnov distance D and its two-sided p."""

    d: float
    p: float


class DeLong(NamedTuple):
    """Two correlated AUROCs, their difference with standard error, and the two-sided p."""

    auc_a: float
    auc_b: float
    se: float
    p: float


class Range(NamedTuple):
    """The two ends of a two-sided interval."""

    lo: float
    hi: float


def _studentise(mean: ndarray, variance: ndarray, noise: ndarray) -> ndarray:
    """mean / sqrt(variance), where a variance below rounding noise counts as zero: 0/0 is 0, x/0 is signed infinity."""
    flat = variance <= noise
    t = mean / np.sqrt(np.where(flat, 1.0, variance))
    return np.where(flat, np.where(np.abs(mean) <= np.sqrt(noise), 0.0, np.copysign(np.inf, mean)), t)


def _judge(t: ndarray, observed: ndarray, effects: ndarray, exact: bool) -> MaxT:
    """Compare the observed family [layer] with its randomisations [draw layer] by the largest and the smallest."""
    top, bottom = float(observed.max()), float(observed.min())
    slack = [TIE * max(1.0, abs(x)) if np.isfinite(x) else 0.0 for x in (top, bottom)]
    above = int((t.max(1) >= top - slack[0]).sum())
    below = int((t.min(1) <= bottom + slack[1]).sum())
    add = 0 if exact else 1
    total = len(t) + add
    return MaxT((above + add) / total, (below + add) / total, observed, effects.max(1), exact)


def _signs(n: int, draws: int, seed: int) -> tuple[ndarray, bool]:
    """Sign vectors [draw person]: all of them where few, else drawn."""
    if 2**n <= EXACT_UP_TO:
        bits = (np.arange(2**n)[:, None] >> np.arange(n)) & 1
        return 1.0 - 2.0 * bits, True
    return np.random.default_rng(seed).choice([-1.0, 1.0], size=(draws, n)), False


def sign_flip_max_t(
    x: Float[ndarray, "person layer"], seed: int, draws: int = 9999, scale: Float[ndarray, " layer"] | None = None
) -> MaxT:
    """Is any layer's person-level mean above (below) zero? Studentised sign-flip test, max-T over layers.

    Valid where a person's vector of differences is as likely as its negative. One sign vector serves all layers.
    Exact by enumeration for few people, else p = (1 + #)/(1 + draws). ``scale`` divides the means of ``null_effect``.
    Sources: Romano 1990 (JASA 85:686); Westfall & Young 1993, ch. 2; Phipson & Smyth 2010 (SAGMB 9:39).
    """
    n = len(x)
    sum_squares = (x**2).sum(0)
    signs, exact = _signs(n, draws, seed)

    def t_of(means: ndarray) -> ndarray:
        variance = (sum_squares - n * means**2) / max(n - 1, 1) / n
        return _studentise(means, variance, 1e-13 * sum_squares / n)

    observed, means = x.mean(0), signs @ x / n
    scale = np.ones(x.shape[1]) if scale is None else scale
    return _judge(t_of(means), t_of(observed), means / scale, exact)


@lru_cache(maxsize=2)
def _labels(n: int, k: int, draws: int, seed: int) -> tuple[ndarray, bool]:
    """Label vectors [draw person] with ``k`` positives among ``n``: all where few, else drawn. Kept, not to be written.

    One case draws the same labels for each of its tests.
    """
    if comb(n, k) <= EXACT_UP_TO:
        chosen = np.array(list(combinations(range(n), k)))
    else:
        chosen = np.random.default_rng(seed).random((draws, n)).argpartition(k - 1, axis=1)[:, :k]
    labels = np.zeros((len(chosen), n))
    np.put_along_axis(labels, chosen, 1.0, axis=1)
    labels.flags.writeable = False
    return labels, comb(n, k) <= EXACT_UP_TO


def label_permutation_max_t(
    x: Float[ndarray, "person layer"],
    forget: Bool[ndarray, " person"],
    seed: int,
    draws: int = 9999,
    scale: Float[ndarray, " layer"] | None = None,
) -> MaxT:
    """Do forget people differ from holdout people at any layer? Welch-studentised label permutation, max-T over layers.

    On person-level differences between two models it is the difference-in-differences test. Labels are permuted over
    people, one permutation for all layers; exact by enumeration for few, else p = (1 + #)/(1 + draws).
    Sources: Janssen 1997 (Stat. Probab. Lett. 36:9); Chung & Romano 2013 (Ann. Stat. 41:484); Westfall & Young 1993.
    """
    assert 0 < forget.sum() < len(forget), "both labels must occur"
    x = x - x.mean(0)
    n, k = len(x), int(forget.sum())
    total, squares = x.sum(0), (x**2).sum(0)

    def contrast(labels: ndarray) -> tuple[ndarray, ndarray]:
        s, q = labels @ x, labels @ x**2
        ins, outs = s / k, (total - s) / (n - k)
        var_in = (q / k - ins**2) / max(k - 1, 1)
        var_out = ((squares - q) / (n - k) - outs**2) / max(n - k - 1, 1)
        return ins - outs, _studentise(ins - outs, var_in + var_out, 1e-13 * squares / n + 1e-300)

    labels, exact = _labels(n, k, draws, seed)
    means, t = contrast(labels)
    scale = np.ones(x.shape[1]) if scale is None else scale
    return _judge(t, contrast(forget[None].astype(float))[1][0], means / scale, exact)


def contrast(x: Float[ndarray, "person layer"], forget: Bool[ndarray, " person"] | None) -> Float[ndarray, " layer"]:
    """Mean over people, or mean over forget people minus mean over the others."""
    return x.mean(0) if forget is None else x[forget].mean(0) - x[~forget].mean(0)


class Resampled(NamedTuple):
    """Cluster-bootstrap draws [draw layer] of the effect and of its denominator."""

    effect: Float[ndarray, "draw layer"]
    denominator: Float[ndarray, "draw layer"]


def bootstrap_effect(
    numerator: Float[ndarray, "person layer"],
    denominator: Float[ndarray, "person layer"],
    seed: int,
    forget: Bool[ndarray, " person"] | None = None,
    draws: int = 2000,
) -> Resampled:
    """Cluster bootstrap of contrast(numerator)/contrast(denominator): whole people are resampled, within their label.

    With numerator = suspect - null and denominator = base - null this is the effect (0 never trained, 1 base).
    Sources: Efron & Tibshirani 1993, ch. 8; Field & Welsh 2007 (JRSS-B 69:369) for clusters.
    """
    rng = np.random.default_rng(seed)
    strata = [np.ones(len(numerator), bool)] if forget is None else [forget, ~forget]
    weights = np.zeros((draws, len(numerator)))
    for sign, stratum in zip((1.0, -1.0), strata, strict=False):
        m = int(stratum.sum())
        weights[:, stratum] = sign * rng.multinomial(m, np.full(m, 1 / m), size=draws) / m
    num, den = weights @ numerator, weights @ denominator
    return Resampled(num / np.where(den == 0, np.nan, den), den)


def percentile_interval(draws: Float[ndarray, " draw"]) -> Range:
    """The 2.5 and 97.5 % points of finite bootstrap draws (percentile interval)."""
    lo, hi = np.nanpercentile(draws, [2.5, 97.5])
    return Range(float(lo), float(hi))


# ---- ranks -------------------------------------------------------------------------------------------------------
def auroc(positive: Float[ndarray, " m"], negative: Float[ndarray, " n"]) -> float:
    """P(positive > negative) + P(tie)/2, by midranks (Mann & Whitney 1947; Hanley & McNeil 1982)."""
    m, n = len(positive), len(negative)
    ranks = scipy.stats.rankdata(np.concatenate([positive, negative]))
    return float((ranks[:m].sum() - m * (m + 1) / 2) / (m * n))


def delong(
    scores_a: Float[ndarray, " item"], scores_b: Float[ndarray, " item"], positive: Bool[ndarray, " item"]
) -> DeLong:
    """Do two scores of the same items differ in AUROC? DeLong et al. 1988 (Biometrics 44:837), by midranks
    (Sun & Xu 2014, IEEE SPL 21:1389). Needs at least two items of either label.
    """
    m, n = int(positive.sum()), int((~positive).sum())
    v10, v01 = np.empty((2, m)), np.empty((2, n))
    for i, scores in enumerate((scores_a, scores_b)):
        joint = scipy.stats.rankdata(np.concatenate([scores[positive], scores[~positive]]))
        v10[i] = (joint[:m] - scipy.stats.rankdata(scores[positive])) / n
        v01[i] = 1 - (joint[m:] - scipy.stats.rankdata(scores[~positive])) / m
    aucs = v10.mean(1)
    covariance = np.cov(v10) / m + np.cov(v01) / n
    variance = covariance[0, 0] + covariance[1, 1] - 2 * covariance[0, 1]
    se, gap = float(np.sqrt(max(variance, 0.0))), float(aucs[0] - aucs[1])
    p = float(2 * scipy.stats.norm.sf(abs(gap) / se)) if se > 1e-12 else float(abs(gap) < 1e-12)
    return DeLong(float(aucs[0]), float(aucs[1]), se, p)


def ks_two_sample(a: Float[ndarray, " m"], b: Float[ndarray, " n"]) -> KS:
    """Two-sample Kolmogorov-Smirnov distance D and p (exact for small samples, else asymptotic; Hodges 1958)."""
    with warnings.catch_warnings():
        # With many ties scipy cannot enumerate and says so; its asymptotic p is the answer we want then.
        warnings.simplefilter("ignore", RuntimeWarning)
        distance, p = np.asarray(scipy.stats.ks_2samp(a, b), dtype=float)
    return KS(float(distance), float(p))


# ---- multiplicity, intervals, summaries ----------------------------------------------------------------------------
def holm(p: Float[ndarray, " test"]) -> Float[ndarray, " test"]:
    """Family-wise adjusted p (Holm 1979, Scand. J. Stat. 6:65)."""
    order = np.argsort(p)
    stepped = np.maximum.accumulate((len(p) - np.arange(len(p))) * p[order])
    adjusted = np.empty(len(p))
    adjusted[order] = np.minimum(stepped, 1.0)
    return adjusted


def benjamini_hochberg(p: Float[ndarray, " test"]) -> Float[ndarray, " test"]:
    """False-discovery-rate adjusted p (Benjamini & Hochberg 1995, JRSS-B 57:289)."""
    order = np.argsort(p)
    stepped = np.minimum.accumulate((p[order] * len(p) / np.arange(1, len(p) + 1))[::-1])[::-1]
    adjusted = np.empty(len(p))
    adjusted[order] = np.minimum(stepped, 1.0)
    return adjusted


def clopper_pearson(k: int, n: int, level: float = 0.95) -> Range:
    """Exact binomial interval for k of n (Clopper & Pearson 1934, Biometrika 26:404)."""
    tail = (1 - level) / 2
    lo = 0.0 if k == 0 else float(scipy.stats.beta.ppf(tail, k, n - k + 1))
    hi = 1.0 if k == n else float(scipy.stats.beta.ppf(1 - tail, k + 1, n - k))
    return Range(lo, hi)


def upper_bound(k: int, n: int, level: float = 0.95) -> float:
    """One-sided exact upper bound of a rate of which k of n were seen; 0 of 59 bounds 5 % (Clopper & Pearson 1934)."""
    return 1.0 if k == n else float(scipy.stats.beta.ppf(level, k + 1, n - k))


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
    kept = np.maximum((counts * k).astype(int), 1)
    low = rank < np.repeat(kept, counts)
    sums = np.bincount(row[order][low], weights=values[order][low], minlength=n_rows)
    return np.where(counts > 0, sums / kept, np.nan)
