"""Are likelihood ratios worth what they say? Cost and its minimum, Tippett curves, nominal against empirical ratios.

``data.score`` holds log10 ratios here, best those of models that no fit saw (:func:`audit.stats.held_out`).
Sources: Brümmer & du Preez 2006 (Computer Speech & Language 20:230); Ramos & Gonzalez-Rodriguez 2013 (Forensic Science
International 230:156); Meuwly, Ramos & Haraksim 2017 (Forensic Science International 276:142).
"""

from typing import NamedTuple

import numpy as np
import scipy
from jaxtyping import Float
from numpy import ndarray

from audit import stats
from audit.schema import Interval
from audit.stats.clustered import Labelled, resamples
from audit.stats.monotone import cllr, pooled


class Cost(NamedTuple):
    """Cllr in bits, the least that its ranks allow, and the gap between them, which is what calibration loses.

    ``gap_ci95`` resamples clusters. Perfectly calibrated ratios of the same size, counts and clusters lose up to
    ``envelope`` in 95 % of simulations, by chance alone.
    """

    cllr: float
    cllr_min: float
    gap: float
    gap_ci95: Interval
    envelope: float

    @property
    def inside(self) -> bool:
        """Is the gap no larger than what perfectly calibrated ratios show?"""
        return self.gap <= self.envelope


def cllr_min(data: Labelled, weight: Float[ndarray, " item"] | None = None) -> float:
    """The least Cllr that any increasing change of the ratios could reach: that of pool-adjacent-violators, in bits."""
    blocks = pooled(data, np.ones(len(data.score)) if weight is None else weight)
    cost = scipy.special.xlogy(blocks.knowing, blocks.p) + scipy.special.xlogy(blocks.clean, 1 - blocks.p)
    return float(-cost.sum() / (2 * np.log(2)))


def _weighted(data: Labelled, times: Float[ndarray, " cluster"]) -> float:
    """The gap when cluster c counts ``times[c]`` times."""
    weight = times[data.cluster]
    natural = data.score * np.log(10)
    bits = np.logaddexp(0, np.where(data.knows, -natural, natural)) / np.log(2)
    sides = [float(np.average(bits[k], weights=weight[k])) for k in (data.knows, ~data.knows)]
    return sum(sides) / 2 - cllr_min(data, weight)


def cost(data: Labelled, limits: Interval, seed: int, draws: int = 1000) -> Cost:
    """Cllr, its minimum and their gap, with an interval over clusters and the envelope of perfect calibration.

    ``limits``: the log10 floor and ceiling of the ratios, to which simulated ones are held too.
    """
    total, least = cllr(data.score, data.knows), cllr_min(data)
    drawn = np.array([_weighted(data, times) for times in resamples(data, seed, draws)])
    ends = stats.percentile_interval(drawn)
    return Cost(total, least, total - least, ends, envelope(data, limits, seed, draws))


class Alike(NamedTuple):
    """Correlation of two models of a cluster, each label's mean taken off: of one label, and of either label."""

    label: float
    either: float


def within_cluster(data: Labelled) -> Alike:
    """How alike models of a cluster are: 0 not at all, 1 copies.

    ``label`` by analysis of variance over clusters of one label (Donner & Koval 1980, Biometrics 36:19); ``either`` as
    the mean product over pairs of a knowing and a clean model of a cluster. Both are held to 0 <= either <= label <= 1.
    """
    means = np.where(data.knows, data.score[data.knows].mean(), data.score[~data.knows].mean())
    rest, group = data.score - means, np.unique(2 * data.cluster + data.knows, return_inverse=True)[1].reshape(-1)
    size = np.bincount(group)
    n, k = len(rest), len(size)
    total = float(rest.var())
    if total <= 0:
        return Alike(0.0, 0.0)
    label = 0.0
    if n > k:
        centre = np.bincount(group, rest) / size
        between = float((size * centre**2).sum() / max(k - 2, 1))
        within = float(((rest - centre[group]) ** 2).sum() / (n - k))
        typical = (n - (size**2).sum() / n) / (k - 1)
        label = (between - within) / max(between + (typical - 1) * within, 1e-300)
    sums = [np.bincount(data.cluster[kind], rest[kind], len(data.holds[0])) for kind in (data.knows, ~data.knows)]
    counts = [np.bincount(data.cluster[kind], minlength=len(data.holds[0])) for kind in (data.knows, ~data.knows)]
    pairs = float((counts[0] * counts[1]).sum())
    either = float((sums[0] * sums[1]).sum()) / pairs / total if pairs else 0.0
    if n == k:
        # One model of a label in every cluster: what the labels share is all that can be seen.
        label = either
    label = float(np.clip(label, 0.0, 1.0))
    return Alike(label, float(np.clip(either, 0.0, label)))


def _noise(data: Labelled, alike: Alike, rng: np.random.Generator) -> Float[ndarray, " item"]:
    """Standard normal noise that is as alike within clusters."""
    clusters = data.holds.shape[1]
    shared = rng.standard_normal(clusters)[data.cluster]
    of_label = rng.standard_normal((clusters, 2))[data.cluster, data.knows.astype(int)]
    own = rng.standard_normal(len(data.score))
    return (
        np.sqrt(alike.either) * shared + np.sqrt(alike.label - alike.either) * of_label + np.sqrt(1 - alike.label) * own
    )


def envelope(data: Labelled, limits: Interval, seed: int, draws: int = 1000) -> float:
    """The 95 % point of the gap over simulated ratios that are perfectly calibrated; a smaller gap speaks for nothing.

    If ratios are what they say, one of value LR belongs to a knowing model with odds LR (both labels equally frequent).
    So each label's models are drawn from the ratios that were given, in proportion to these odds; models of a cluster
    correlate as they are seen to (normal copula). A ratio at a limit says "at least": it is drawn for its own label
    only, so that the envelope holds what the limits themselves cost. Source of drawing labels from what was said:
    Bröcker & Smith 2007 (Weather and Forecasting 22:651).
    """
    rng = np.random.default_rng(seed)
    order = np.argsort(data.score, kind="stable")
    value, knows = data.score[order], data.knows[order]
    even = np.where(knows, 1 / knows.sum(), 1 / (~knows).sum())
    p = scipy.special.expit(value * np.log(10))
    p = np.where(value >= limits.hi, 1.0, np.where(value <= limits.lo, 0.0, p))
    shares = [even * (1 - p), even * p]
    if min(share.sum() for share in shares) <= 0:
        return 0.0
    # Where the ratios lean to one side, the drawn ones are moved back so that they are what they say.
    value = np.clip(value + np.log10(shares[0].sum() / shares[1].sum()), limits.lo, limits.hi)
    clean, knowing = (np.cumsum(share) / share.sum() for share in shares)
    alike = within_cluster(data)
    gaps = np.empty(draws)
    for i in range(draws):
        u = scipy.special.ndtr(_noise(data, alike, rng))
        place = np.where(data.knows, np.searchsorted(knowing, u), np.searchsorted(clean, u))
        drawn = value[np.minimum(place, len(value) - 1)]
        gaps[i] = cllr(drawn, data.knows) - cllr_min(data.rescored(drawn))
    return float(np.quantile(gaps, 0.95))


# ---- curves and tables ------------------------------------------------------------------------------------------
class Tippett(NamedTuple):
    """Shares of knowing and of clean models whose log10 ratio is at least ``log10_lr``, and how many mislead.

    ``misled_by_clean``: clean models with a ratio above 1; ``misled_by_knowing``: knowing ones with a ratio below 1.
    """

    log10_lr: Float[ndarray, " step"]
    knowing: Float[ndarray, " step"]
    clean: Float[ndarray, " step"]
    misled_by_knowing: int
    misled_by_clean: int


def tippett(data: Labelled) -> Tippett:
    """Both Tippett curves at every ratio that occurs (Evett & Buckleton 1996, Advances in Forensic Haemogenetics 6)."""
    steps = np.unique(data.score)
    positive, negative = data.score[data.knows], data.score[~data.knows]
    knowing, clean = ((kind[:, None] >= steps).mean(0) for kind in (positive, negative))
    return Tippett(steps, knowing, clean, int((positive < 0).sum()), int((negative > 0).sum()))


class Band(NamedTuple):
    """Models whose log10 ratios lie in one band: the mean that was said, and what counting them gives.

    ``empirical`` is (knowing/all knowing)/(clean/all clean) as log10, with its exact 95 % interval given the counts, by
    models, from ``lo`` to ``hi``; clusters make it wider. An end without models of one label is infinite.
    """

    nominal: float
    empirical: float
    lo: float
    hi: float
    knowing: int
    clean: int


def bands(data: Labelled, edges: tuple[float, ...] = (-2.0, -1.0, -0.301, 0.0, 0.301, 1.0, 2.0)) -> tuple[Band, ...]:
    """Nominal against empirical ratios in bands of log10 ratios (edges: the verbal scale); empty ones left out."""
    place = np.digitize(data.score, edges)
    prior = np.log10(data.knows.sum()) - np.log10((~data.knows).sum())
    filled: list[Band] = []
    for band in np.unique(place):
        inside = place == band
        k, n = int((inside & data.knows).sum()), int(inside.sum())
        ends = stats.clopper_pearson(k, n)
        at = [_log10_odds(share) - float(prior) for share in (k / n, ends.lo, ends.hi)]
        filled.append(Band(float(data.score[inside].mean()), at[0], at[1], at[2], k, n - k))
    return tuple(filled)


def _log10_odds(share: float) -> float:
    with np.errstate(divide="ignore"):
        return float(np.log10(share) - np.log10(1 - share))
