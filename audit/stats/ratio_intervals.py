"""Intervals over people of ratios of means, of one layer and of the largest over layers, for few and skewed people.

``studies/small_counts`` holds their coverage by shape and number of people, beside that of other ways.
"""

from typing import NamedTuple

import numpy as np
import scipy
from jaxtyping import Bool, Float
from numpy import ndarray

from audit.schema import Interval
from audit.stats import randomisation
from audit.stats.skewed_means import Moments, few, moments, unhall

ENOUGH_PEOPLE = 6
"""From so many people on a nominal 95 % interval holds the truth in at least 90 % of draws."""
TAIL = 0.025
"""What may lie beyond each end."""
SIGNS = 1999
"""Sign vectors from which the quantile of the largest t over layers is taken."""


class Bounds(NamedTuple):
    """Both ends of an interval for every layer by itself."""

    lo: Float[ndarray, " layer"]
    hi: Float[ndarray, " layer"]


def linearised(
    numerator: Float[ndarray, "person layer"],
    denominator: Float[ndarray, "person layer"],
    forget: Bool[ndarray, " person"] | None,
) -> tuple[ndarray, ndarray]:
    """Ratio of contrasts [layer], and what every person adds to its error [person layer]: the linearised ratio."""
    below = randomisation.contrast(denominator, forget)
    ratio = randomisation.contrast(numerator, forget) / below
    return ratio, (numerator - ratio * denominator) / below


def _end(error: Moments, q: float | ndarray, side: float) -> ndarray:
    """How far an end lies from the ratio, side +1 up and -1 down: Student's t or Hall's, whichever is farther."""
    skewness = np.maximum(side * error.skewness, 0.0)
    return side * error.error * np.maximum(q, -unhall(-np.asarray(q), skewness))


def ratio_bounds(
    numerator: Float[ndarray, "person layer"],
    denominator: Float[ndarray, "person layer"],
    forget: Bool[ndarray, " person"] | None = None,
) -> Bounds:
    """Nominal 95 % interval over people of contrast(numerator)/contrast(denominator), of every layer by itself.

    Student's t of the linearised ratio (Cochran 1977, Sampling Techniques, 6.4), its longer end moved out by Hall's
    transformation. At least two people (on either side).
    """
    ratio, rest = linearised(numerator, denominator, forget)
    error = moments(rest, forget)
    q = -scipy.special.stdtrit(error.df, TAIL)
    return Bounds(ratio + _end(error, q, -1.0), ratio + _end(error, q, 1.0))


def largest_ratio_bounds(
    numerator: Float[ndarray, "person layer"],
    denominator: Float[ndarray, "person layer"],
    seed: int,
    forget: Bool[ndarray, " person"] | None = None,
) -> Interval:
    """Nominal 95 % interval of the largest true ratio over layers.

    It is at least every layer's: the lower end is the largest of lower ends that hold for all layers together (max-T by
    random signs of whole people's residuals; with few people Bonferroni). It is the ratio of one
    layer, whichever: the upper end is the largest of single upper ends.
    """
    ratio, rest = linearised(numerator, denominator, forget)
    error = moments(rest, forget)
    q = -scipy.special.stdtrit(error.df, TAIL)
    lower = ratio + _end(error, _joint(rest, error, forget, seed), -1.0)
    return Interval(lo=float(lower.max()), hi=float((ratio + _end(error, q, 1.0)).max()))


def _joint(rest: ndarray, error: Moments, forget: Bool[ndarray, " person"] | None, seed: int) -> ndarray:
    """The quantile of t [layer] that no layer exceeds in all but 2.5 % of draws."""
    layers = rest.shape[1]
    if layers == 1 or few(len(rest), forget):
        return -scipy.special.stdtrit(error.df, TAIL / layers)
    largest = randomisation.random_sign_t(rest, seed, forget, SIGNS).max(1)
    return np.maximum(-scipy.special.stdtrit(error.df, TAIL), np.quantile(largest, 1 - TAIL))
