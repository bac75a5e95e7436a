"""Two monotone ways from a score to a log likelihood ratio: ridge logistic regression and pool-adjacent-violators.

Both take models in clusters, of which each counts as often as it is drawn; the choice between them, their limits and
their intervals are those of :mod:`audit.stats.likelihood_ratio`. Ratios are natural logs here.
Sources: Brümmer & du Preez 2006 (Computer Speech & Language 20:230); Zadrozny & Elkan 2002 (KDD, 694).
"""

from typing import Literal, NamedTuple

import numpy as np
import scipy
from jaxtyping import Bool, Float
from numpy import ndarray

from audit.stats.clustered import Labelled

Way = Literal["logistic", "pav"]
WAYS: tuple[Way, ...] = ("logistic", "pav")
HALF = 0.5
RIDGE = 1.0
"""Penalty on half the squared slope of the standardised score, where all models together weigh as many as clusters."""


class Logistic(NamedTuple):
    """Natural log ratio = intercept + features @ slope."""

    intercept: float
    slope: Float[ndarray, " feature"]

    def __call__(self, x: Float[ndarray, "item feature"]) -> Float[ndarray, " item"]:
        return self.intercept + x @ self.slope


def ridge_logistic(
    x: Float[ndarray, "item feature"],
    knows: Bool[ndarray, " item"],
    weight: Float[ndarray, " item"],
    ridge: float = RIDGE,
) -> Logistic:
    """Weighted logistic regression with a penalty ridge/2 |slope|^2, the intercept free; by damped Newton steps.

    With weights that make both labels equally heavy the fitted log odds are log likelihood ratios. The penalty keeps
    them finite where the labels are separated. Source: le Cessie & van Houwelingen 1992 (Applied Statistics 41:191).
    """
    design = np.column_stack([np.ones(len(x)), x])
    penalty = np.diag([0.0, *[ridge] * x.shape[1]])

    def cost(beta: ndarray) -> float:
        eta = design @ beta
        return float((weight * (np.logaddexp(0, eta) - knows * eta)).sum() + beta @ penalty @ beta / 2)

    beta, now = np.zeros(design.shape[1]), np.inf
    for _ in range(100):
        now, p = cost(beta), scipy.special.expit(design @ beta)
        gradient = design.T @ (weight * (p - knows)) + penalty @ beta
        curvature = (design * (weight * p * (1 - p))[:, None]).T @ design + penalty
        step = np.linalg.solve(curvature + 1e-12 * np.eye(len(beta)), gradient)
        size = 1.0
        while cost(beta - size * step) > now and size > 1e-8:
            size /= 2
        beta = beta - size * step
        if np.abs(size * step).max() < 1e-10:
            break
    return Logistic(float(beta[0]), beta[1:])


def rising_logistic(
    x: Float[ndarray, "item feature"],
    knows: Bool[ndarray, " item"],
    weight: Float[ndarray, " item"],
    ridge: float = RIDGE,
) -> Logistic:
    """:func:`ridge_logistic` with no slope below 0: where more of every feature means more knowledge.

    Features that go together would otherwise take slopes of either sign, which hold only for the mix of models that
    they were fitted on. By L-BFGS-B (Byrd et al. 1995, SIAM J. Sci. Comput. 16:1190).
    """
    design = np.column_stack([np.ones(len(x)), x])
    penalty = np.array([0.0, *[ridge] * x.shape[1]])

    def cost(beta: ndarray) -> tuple[float, ndarray]:
        eta = design @ beta
        value = (weight * (np.logaddexp(0, eta) - knows * eta)).sum() + (penalty * beta**2).sum() / 2
        return float(value), design.T @ (weight * (scipy.special.expit(eta) - knows)) + penalty * beta

    bounds = [(None, None), *[(0.0, None)] * x.shape[1]]
    start = np.zeros(design.shape[1])
    limits = {"maxiter": 1000, "maxfun": 10_000, "ftol": 1e-14, "gtol": 1e-8}
    beta = scipy.optimize.minimize(cost, start, method="L-BFGS-B", jac=True, bounds=bounds, options=limits).x
    return Logistic(float(beta[0]), beta[1:])


def balanced(data: Labelled, times: Float[ndarray, " cluster"]) -> Float[ndarray, " item"]:
    """Weights of models when cluster c counts ``times[c]`` times: both labels equally heavy, all as many as clusters.

    Models of one cluster so share the weight of one replication and do not sharpen the fit by their number.
    """
    weight = times[data.cluster]
    total = float((data.holds * times).sum())
    heavy = np.where(data.knows, weight[data.knows].sum(), weight[~data.knows].sum())
    return total / 2 * weight / heavy


class Step(NamedTuple):
    """Natural log ratios at increasing scores; in between they are linear, beyond the ends they stay."""

    x: Float[ndarray, " knot"]
    log_lr: Float[ndarray, " knot"]

    def at(self, score: Float[ndarray, " item"]) -> Float[ndarray, " item"]:
        """The log ratio of every score."""
        return np.interp(score, self.x, self.log_lr)


def _by_logistic(data: Labelled, times: Float[ndarray, " cluster"]) -> Step:
    """A line in the score. One that falls would turn the score round; then the score says nothing and the ratio is 1.

    Its two ends are the lowest and the highest score, so that it does not go on beyond them.
    """
    weight = balanced(data, times)
    used = weight > 0
    mean = float(np.average(data.score, weights=weight))
    spread = float(np.sqrt(np.average((data.score - mean) ** 2, weights=weight)))
    ends = np.array([data.score[used].min(), data.score[used].max()])
    if spread <= 1e-12 * max(1.0, abs(mean)):
        return Step(ends[:1], np.zeros(1))
    line = ridge_logistic(((data.score - mean) / spread)[:, None], data.knows, weight)
    if line.slope[0] <= 0:
        return Step(ends[:1], np.zeros(1))
    return Step(ends, line(((ends - mean) / spread)[:, None]))


class Blocks(NamedTuple):
    """Pool-adjacent-violators: at every distinct score the weights of both labels, and P(knows) at even prior odds."""

    x: Float[ndarray, " knot"]
    knowing: Float[ndarray, " knot"]
    clean: Float[ndarray, " knot"]
    p: Float[ndarray, " knot"]


def pool_adjacent(
    x: Float[ndarray, " knot"], knowing: Float[ndarray, " knot"], clean: Float[ndarray, " knot"]
) -> Blocks:
    """Isotonic regression of the label on the score, both labels equally heavy; ``x`` increases, without ties.

    Source: Ayer et al. 1955 (Ann. Math. Stat. 26:641); Zadrozny & Elkan 2002.
    """
    knowing, clean = knowing / knowing.sum(), clean / clean.sum()
    both = knowing + clean
    present = both > 0
    x, knowing, clean, both = x[present], knowing[present], clean[present], both[present]
    rising = scipy.optimize.isotonic_regression(knowing / both, weights=both).x
    return Blocks(x, knowing, clean, np.clip(rising, 0.0, 1.0))


def pooled(data: Labelled, weight: Float[ndarray, " item"]) -> Blocks:
    """:func:`pool_adjacent` of scores, ties put together first."""
    x, knowing, clean = _tied(data, weight)
    return pool_adjacent(x, knowing, clean)


class _Tied(NamedTuple):
    """Distinct scores and the weights of both labels there."""

    x: Float[ndarray, " knot"]
    knowing: Float[ndarray, " knot"]
    clean: Float[ndarray, " knot"]


def _tied(data: Labelled, weight: Float[ndarray, " item"]) -> _Tied:
    x, place = np.unique(data.score, return_inverse=True)
    return _Tied(x, *(np.bincount(place.reshape(-1), weight * kind, len(x)) for kind in (data.knows, ~data.knows)))


def _by_pav(data: Labelled, times: Float[ndarray, " cluster"]) -> Step:
    """Pool-adjacent-violators with half a misleading cluster of either kind added at the far ends.

    The halves keep every ratio finite (Jeffreys' prior, with clusters for items: of k misleading ones in n it expects
    k + 1/2 in n + 1), and where no cluster misled the ratio lies beyond the limit of the design, which then stands. A
    whole one (the rule of succession) would state less than that limit there and count the lack of worlds twice.
    """
    tied = _tied(data, times[data.cluster])
    clean, knowing = (data.holds * times).sum(1)
    blocks = pool_adjacent(
        np.r_[-np.inf, tied.x, np.inf],
        np.r_[HALF * tied.knowing.sum() / knowing, tied.knowing, 0.0],
        np.r_[0.0, tied.clean, HALF * tied.clean.sum() / clean],
    )
    return Step(blocks.x[1:-1], np.log(blocks.p[1:-1]) - np.log1p(-blocks.p[1:-1]))


def fit(data: Labelled, way: Way, times: Float[ndarray, " cluster"]) -> Step:
    """The ratio at every score by one way, when cluster c counts ``times[c]`` times."""
    return _by_logistic(data, times) if way == "logistic" else _by_pav(data, times)


def cllr(log10_lr: Float[ndarray, " item"], knows: Bool[ndarray, " item"]) -> float:
    """Cost of the log likelihood ratios in bits: 0 perfect, 1 that of saying nothing, more where they mislead.

    The mean of log2(1 + 1/LR) over knowing models and of log2(1 + LR) over clean ones, halved; infinite where an
    infinite ratio misleads. Source: Brümmer & du Preez 2006.
    """
    natural = log10_lr * np.log(10)
    bits = np.logaddexp(0, np.where(knows, -natural, natural)) / np.log(2)
    return float((bits[knows].mean() + bits[~knows].mean()) / 2)
