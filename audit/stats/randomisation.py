"""Statistics of an audit: randomisation tests over people, bootstraps, ranks, multiplicity. Pure numpy and scipy.

``scipy.stats`` is loaded by its first use, because whoever only reads a report never needs it.

The unit of replication is the person (author, document): callers average over a person's items first. Every draw takes
a seed. Arrays are float64; [person layer] has one column for each member of a family that is tested jointly.
"""

from functools import lru_cache
from itertools import combinations
from math import comb
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float
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


def _studentise(mean: ndarray, variance: ndarray, noise: ndarray) -> ndarray:
    """mean / sqrt(variance), where a variance below rounding noise counts as zero: 0/0 is 0, x/0 is signed infinity."""
    flat = variance <= noise
    t = mean / np.sqrt(np.where(flat, 1.0, variance))
    return np.where(flat, np.where(np.abs(mean) <= np.sqrt(noise), 0.0, np.copysign(np.inf, mean)), t)


class Family(NamedTuple):
    """A family under randomisation [draw layer]: plain studentised statistics and contrasts, and what is observed."""

    t: Float[ndarray, "draw layer"]
    contrast: Float[ndarray, "draw layer"]
    observed: Float[ndarray, " layer"]
    exact: bool


def judge(
    family: Family,
    above: Float[ndarray, " layer"],
    below: Float[ndarray, " layer"],
    scale: Float[ndarray, " layer"] | None = None,
) -> MaxT:
    """Compare the largest of ``above`` and the smallest of ``below`` with those of the family's randomisations.

    Both are what is observed, or a correction of it that says less. ``scale`` divides the contrasts. Of an enumerated
    family what is observed is itself a member, so that p is never below one over its size, whatever rounding makes of
    its statistic.
    """
    top, bottom = float(above.max()), float(below.min())
    slack = [TIE * max(1.0, abs(x)) if np.isfinite(x) else 0.0 for x in (top, bottom)]
    over = int((family.t.max(1) >= top - slack[0]).sum())
    under = int((family.t.min(1) <= bottom + slack[1]).sum())
    if family.exact:
        over, under = max(over, 1), max(under, 1)
    add = 0 if family.exact else 1
    total = len(family.t) + add
    effects = family.contrast if scale is None else family.contrast / scale
    return MaxT((over + add) / total, (under + add) / total, family.observed, effects.max(1), family.exact)


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
    family = _flipped(x, seed, draws)
    return judge(family, family.observed, family.observed, scale)


def _flipped(x: ndarray, seed: int, draws: int) -> Family:
    n = len(x)
    sum_squares = (x**2).sum(0)
    signs, exact = _signs(n, draws, seed)

    def t_of(means: ndarray) -> ndarray:
        variance = (sum_squares - n * means**2) / max(n - 1, 1) / n
        return _studentise(means, variance, 1e-13 * sum_squares / n)

    observed, means = x.mean(0), signs @ x / n
    return Family(t_of(means), means, t_of(observed), exact)


def least_p(groups: int, others: int, draws: int = 9999) -> float:
    """The smallest p of a randomisation test: over the signs of ``groups`` people's differences, or, where there are
    ``others``, over the labels of both. One of so many randomisations is what was observed."""
    randomisations = comb(groups + others, groups) if others else 2**groups
    return 1 / randomisations if randomisations <= EXACT_UP_TO else 1 / (draws + 1)


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
    family = _permuted(x, forget, seed, draws)
    return judge(family, family.observed, family.observed, scale)


def _permuted(x: ndarray, forget: ndarray, seed: int, draws: int) -> Family:
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
    return Family(t, means, contrast(forget[None].astype(float))[1][0], exact)


def family(x: Float[ndarray, "person layer"], seed: int, forget: Bool[ndarray, " person"] | None, draws: int) -> Family:
    """Sign flips of people's vectors, or, where some are not forget people, permutations of their labels."""
    return _flipped(x, seed, draws) if forget is None else _permuted(x, forget, seed, draws)


def random_sign_t(
    x: Float[ndarray, "person layer"], seed: int, forget: Bool[ndarray, " person"] | None, draws: int
) -> Float[ndarray, "draw layer"]:
    """Studentised contrasts when every person's vector, less the mean of its side, keeps or changes its sign.

    Between layers they are as alike as the data are (wild bootstrap; Mammen 1993, Ann. Stat. 21:255).
    """
    rng = np.random.default_rng(seed)
    mean = variance = noise = np.zeros(x.shape[1])
    for sign, side in zip((1.0, -1.0), [x] if forget is None else [x[forget], x[~forget]], strict=False):
        n, rest = len(side), side - side.mean(0)
        squares = (rest**2).mean(0)
        means = rng.choice([-1.0, 1.0], size=(draws, n)) @ rest / n
        mean, variance = mean + sign * means, variance + (squares - means**2) / max(n - 1, 1)
        noise = noise + 1e-13 * squares
    return _studentise(mean, variance, noise)


def contrast(x: Float[ndarray, "person layer"], forget: Bool[ndarray, " person"] | None) -> Float[ndarray, " layer"]:
    """Mean over people, or mean over forget people minus mean over the others."""
    return x.mean(0) if forget is None else x[forget].mean(0) - x[~forget].mean(0)
