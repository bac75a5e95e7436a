"""Scores of models whose truth is known, in clusters: what a sample of worlds (or recipes) supports, and how surely.

The unit of replication is the cluster: a world with its facts, ancestor and data order, or a recipe. Models of one
cluster are near-duplicates, so that resampling, leaving out and counting are all by whole clusters. Pure numpy and
scipy; every draw takes a seed.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import scipy
from jaxtyping import Bool, Float, Int
from numpy import ndarray

from audit import stats
from audit.schema import AuditError, Interval
from audit.stats.interval_coverage import Method, approximate

MOST_FOLDS = 10
FLAT = 1e-12
"""A standard error or difference of AUROCs below this is rounding."""
PAIRS_AT_ONCE = 1 << 20
"""Pairs of a knowing and a clean model are compared so many at a time, so that memory stays below a constant."""


class Labelled(NamedTuple):
    """Scores (higher: more knowledge), what is known of each model, and its cluster, numbered 0, 1, ..."""

    score: Float[ndarray, " item"]
    knows: Bool[ndarray, " item"]
    cluster: Int[ndarray, " item"]

    @property
    def holds(self) -> Bool[ndarray, "kind cluster"]:
        """Which clusters hold clean models (first row), and which hold knowing ones (second)."""
        n = int(self.cluster.max()) + 1
        return np.stack([np.bincount(self.cluster[self.knows == k], minlength=n) > 0 for k in (False, True)])

    def part(self, chosen: Bool[ndarray, " item"]) -> "Labelled":
        """Some of the models; clusters are numbered anew."""
        number = np.unique(self.cluster[chosen], return_inverse=True)[1]
        return Labelled(self.score[chosen], self.knows[chosen], number.reshape(-1))

    def rescored(self, score: Float[ndarray, " item"]) -> "Labelled":
        """The same models with other scores."""
        return self._replace(score=score)


def labelled(
    score: Sequence[float] | ndarray, knows: Sequence[bool] | ndarray, cluster: Sequence[int | str] | ndarray
) -> Labelled:
    """Scores with known truth, checked.

    Raises AuditError where lengths differ, a score is no number, or either kind of model comes from fewer than two
    clusters: nothing can then be left out, and no spread between clusters is seen.
    """
    if not len(score) == len(knows) == len(cluster):
        raise AuditError(
            f"{len(score)} scores, {len(knows)} labels and {len(cluster)} clusters do not belong together",
            "give one of each for every model",
        )
    data = Labelled(
        np.asarray(score, dtype=float),
        np.asarray(knows, dtype=bool),
        np.unique(np.asarray(cluster), return_inverse=True)[1].reshape(-1),
    )
    if not np.isfinite(data.score).all():
        count = int((~np.isfinite(data.score)).sum())
        raise AuditError(f"{count} scores are no finite numbers", "leave out the models that have no score")
    counts = data.holds.sum(1) if len(data.score) else (0, 0)
    if min(counts) < 2:
        raise AuditError(
            f"clean models come from {counts[0]} clusters and knowing ones from {counts[1]}",
            "give at least two clusters (worlds, recipes) of either kind",
        )
    return data


def _kinds(data: Labelled) -> list[Int[ndarray, " cluster"]]:
    """Clusters that hold only knowing models, both kinds, only clean ones: what is resampled within."""
    clean, knowing = data.holds
    return [np.flatnonzero(knowing & ~clean), np.flatnonzero(knowing & clean), np.flatnonzero(~knowing & clean)]


def resamples(data: Labelled, seed: int, draws: int) -> Float[ndarray, "draw cluster"]:
    """How often each cluster is drawn: whole clusters, within those that hold the same kinds of models.

    Both kinds so occur in every draw. Sources: Efron & Tibshirani 1993, ch. 8; Field & Welsh 2007 (JRSS-B 69:369).
    """
    rng = np.random.default_rng(seed)
    times = np.zeros((draws, data.holds.shape[1]))
    for kind in _kinds(data):
        if len(kind):
            times[:, kind] = rng.multinomial(len(kind), np.full(len(kind), 1 / len(kind)), size=draws)
    return times


def folds(data: Labelled, seed: int) -> Int[ndarray, " item"]:
    """The fold of every model, 0, 1, ...: whole clusters, at most ten folds, either kind left in every rest."""
    rng = np.random.default_rng(seed)
    # Clusters of one label stand side by side in this order, so that dealing them out spreads both labels over folds.
    order = np.concatenate([rng.permutation(kind) for kind in _kinds(data)])
    k = min(MOST_FOLDS, int(data.holds.sum(1).min()))
    fold = np.empty(len(order), int)
    fold[order] = np.arange(len(order)) % k
    return fold[data.cluster]


# ---- AUROC ------------------------------------------------------------------------------------------------------
class Area(NamedTuple):
    """An AUROC with a nominal 95 % interval over clusters, how it was made, and whether it covers less than it says."""

    auc: float
    ci95: Interval
    method: Method
    approximate: bool


class Gap(NamedTuple):
    """The difference of two AUROCs on the same models: its standard error, two-sided p and two nominal 95 % intervals.

    ``ci95``: plus or minus t times the standard error; ``bootstrap95``: percentiles over resampled clusters.
    """

    gap: float
    se: float
    p: float
    ci95: Interval
    bootstrap95: Interval


class _Wins(NamedTuple):
    """Sums over pairs of clusters: knowing models of one against clean ones of the other, and models per cluster."""

    wins: Float[ndarray, "cluster cluster"]
    knowing: Float[ndarray, " cluster"]
    clean: Float[ndarray, " cluster"]


class _Drawn(NamedTuple):
    """AUROC and its standard error, one per draw."""

    auc: Float[ndarray, " draw"]
    se: Float[ndarray, " draw"]


def _wins(data: Labelled) -> _Wins:
    """Counted for some knowing models at a time: never a matrix of all knowing by all clean ones."""
    n = int(data.cluster.max()) + 1
    knowing, clean = np.flatnonzero(data.knows), np.flatnonzero(~data.knows)
    clean = clean[data.cluster[clean].argsort(kind="stable")]
    beaten, first = np.unique(data.cluster[clean], return_index=True)
    wins = np.zeros((n, n))
    for part in np.split(knowing, range(step := max(1, PAIRS_AT_ONCE // len(clean)), len(knowing), step)):
        positive, negative = data.score[part], data.score[clean]
        won = np.greater.outer(positive, negative) + 0.5 * np.equal.outer(positive, negative)
        np.add.at(wins, (data.cluster[part][:, None], beaten), np.add.reduceat(won, first, axis=1))
    held = (np.bincount(data.cluster[of], minlength=n).astype(float) for of in (knowing, clean))
    return _Wins(wins, *held)


def _drawn(wins: _Wins, times: Float[ndarray, "draw cluster"]) -> _Drawn:
    """AUROC of every draw of clusters, with Obuchowski's standard error.

    Placement values are summed over clusters; a cluster that is drawn twice counts as two. Source: Obuchowski 1997
    (Biometrics 53:567), which is DeLong et al. 1988 with clusters for models.
    """
    m, n = times @ wins.knowing, times @ wins.clean
    ahead, behind = times @ wins.wins.T, times @ wins.wins
    auc = (times * ahead).sum(1) / (m * n)
    over = ahead / n[:, None] - auc[:, None] * wins.knowing
    under = behind / m[:, None] - auc[:, None] * wins.clean

    def spread(a: ndarray, b: ndarray, held: ndarray) -> ndarray:
        count = (times * held).sum(1)
        return (times * a * b).sum(1) * count / np.maximum(count - 1, 1)

    ins, outs = wins.knowing > 0, wins.clean > 0
    variance = spread(over, over, ins) / m**2 + spread(under, under, outs) / n**2
    variance += 2 * spread(over, under, ins | outs) / (m * n)
    return _Drawn(auc, np.sqrt(np.maximum(variance, 0.0)))


def _separated(auc: float, clusters: int) -> Interval:
    """The interval where no pair of models contradicts another: as for ``clusters`` successes of as many.

    Nothing varies, so that no standard error can be had; the exact bound for a share takes its place.
    """
    if auc == 1.0:
        return Interval(lo=stats.clopper_pearson(clusters, clusters).lo, hi=1.0)
    return Interval(lo=0.0, hi=stats.clopper_pearson(0, clusters).hi)


def clustered_auroc(data: Labelled, seed: int, method: Method = "logit_t", draws: int = 1999) -> Area:
    """AUROC of knowing against clean models with an interval over clusters.

    ``percentile``: whole clusters resampled. ``logit_t``: logit(AUC) plus or minus t times Obuchowski's standard error,
    with one degree of freedom less than there are clusters of the rarer kind. ``bootstrap_t``: the same with the
    quantiles of the studentised logit over resampled clusters (Efron & Tibshirani 1993, ch. 12). ``studies/coverage``
    says how often each covers. Source of the logit: Pepe 2003, The Statistical Evaluation of Medical Tests, 5.2.
    """
    wins, held = _wins(data), int(data.holds.sum(1).min())
    estimate = _drawn(wins, np.ones((1, len(wins.clean))))
    auc, se = float(estimate.auc[0]), float(estimate.se[0])
    if auc in (0.0, 1.0):
        ends = _separated(auc, held)
    elif method == "percentile":
        ends = stats.percentile_interval(_drawn(wins, resamples(data, seed, draws)).auc)
    else:
        around, width = float(scipy.special.logit(auc)), se / (auc * (1 - auc))
        t = float(scipy.stats.t.ppf(0.975, held - 1))
        low, high = -t, t
        if method == "bootstrap_t":
            low, high = _studentised(_drawn(wins, resamples(data, seed, draws)), around)
        lo, hi = scipy.special.expit([around - high * width, around - low * width])
        ends = Interval(lo=float(lo), hi=float(hi))
    return Area(auc, ends, method, approximate(method, held))


def difference(data: Labelled, other: Float[ndarray, " item"], seed: int, draws: int = 1999) -> Gap:
    """By how much does the score of ``data`` tell knowing from clean better than ``other``, a score of the same models?

    DeLong's test of two correlated AUROCs with clusters for models: the difference is the mean of a kernel over pairs,
    whose placement values are summed over clusters, with one degree of freedom less than there are clusters of the
    rarer kind. Where no pair varies there is no standard error: p is that of as many equal signs as clusters, the
    interval as wide as the bound of a share that none of them shows.
    Sources: DeLong et al. 1988 (Biometrics 44:837); Obuchowski 1997 (Biometrics 53:567).
    """
    mine, theirs, held = _wins(data), _wins(data.rescored(other)), int(data.holds.sum(1).min())
    wins = mine._replace(wins=mine.wins - theirs.wins)
    estimate = _drawn(wins, np.ones((1, len(wins.clean))))
    gap, se = float(estimate.auc[0]), float(estimate.se[0])
    if se > FLAT:
        p = float(2 * scipy.stats.t.sf(abs(gap) / se, held - 1))
        half = float(scipy.stats.t.ppf(0.975, held - 1)) * se
    else:
        p = 1.0 if abs(gap) < FLAT else 2.0 ** (1 - held)
        half = stats.clopper_pearson(0, held).hi
    resampled = stats.percentile_interval(_drawn(wins, resamples(data, seed, draws)).auc)
    return Gap(gap, se, p, Interval(lo=max(gap - half, -1.0), hi=min(gap + half, 1.0)), resampled)


def _studentised(drawn: _Drawn, around: float) -> tuple[float, float]:
    """The 2.5 and 97.5 % points of (logit - estimate)/SE over draws that have a standard error."""
    usable = (drawn.auc > 0) & (drawn.auc < 1) & (drawn.se > 0)
    if usable.sum() < 100:
        return -np.inf, np.inf
    auc, se = drawn.auc[usable], drawn.se[usable]
    return stats.percentile_interval((scipy.special.logit(auc) - around) * auc * (1 - auc) / se).ends
