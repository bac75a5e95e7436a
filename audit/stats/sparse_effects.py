"""What a mean over people cannot see: a few people who stand out, against people about whom nothing was ever learned.

Person effects are compared with those of null people in each of several groups (people in other references, holdout
people in the suspect itself). Groups differ in spread; a person has to stand out against every group, so the least
favourable counts. These are readings for a calibration, no tests: their tails rest on a normal null.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import scipy
from jaxtyping import Float
from numpy import ndarray

LEAST_PEOPLE = 6
"""Null people below which a group has no spread worth the name."""

LEAST_SPREAD = 1e-6
"""A spread below this, on the effect scale, is rounding and no spread."""

MAD_TO_SD = 1.4826


class Sparse(NamedTuple):
    """The largest studentised person effect, and higher criticism over all people."""

    largest_person: float
    higher_criticism: float


def higher_criticism(p: Float[ndarray, " person"]) -> float:
    """Are there more small p than uniform ones would give? Largest standardised excess over the smaller half of them.

    max over i <= max(1, n/2) of sqrt(n) (i/n - p_(i)) / sqrt(p_(i) (1 - p_(i))). A p below 1/n^2 counts as 1/n^2: no
    tail is trusted further, and a single person gives less than sqrt(n). Source: Donoho & Jin 2004 (Ann. Stat. 32:962).
    """
    n = len(p)
    ordered = np.clip(np.sort(p)[: max(1, n // 2)], 1 / max(n, 2) ** 2, 1 - 1e-12)
    share = np.arange(1, len(ordered) + 1) / n
    return float((np.sqrt(n) * (share - ordered) / np.sqrt(ordered * (1 - ordered))).max())


class _Spread(NamedTuple):
    """Scale of the null people, and the degrees of freedom with which it is known."""

    scale: float
    df: float


def _spread(null: Float[ndarray, " other"]) -> _Spread:
    """1.4826 times the median absolute deviation, which a few odd people do not move; of normal values it is as sure
    as a standard deviation of 37 % as many (Rousseeuw & Croux 1993, JASA 88:1273). Where most people agree exactly,
    the standard deviation.
    """
    robust = MAD_TO_SD * float(np.median(np.abs(null - np.median(null))))
    if robust > LEAST_SPREAD:
        return _Spread(robust, 0.37 * (len(null) - 1))
    return _Spread(float(null.std(ddof=1)), len(null) - 1.0)


def sparse(people: Float[ndarray, " person"], nulls: Sequence[Float[ndarray, " _other"]]) -> Sparse | None:
    """Do some people stand out above the null people of every group? None where no group says how null people spread.

    An effect less a group's median is divided by the group's spread and by sqrt(1 + pi/(2 m)), for the median of m
    people is itself unsure; its p is that of Student's t. Of several groups each person takes the smallest value.
    """
    values: list[ndarray] = []
    tails: list[ndarray] = []
    for null in nulls:
        spread = _spread(null) if len(null) >= LEAST_PEOPLE else _Spread(0.0, 1.0)
        if spread.scale > LEAST_SPREAD:
            t = (people - np.median(null)) / (spread.scale * np.sqrt(1 + np.pi / (2 * len(null))))
            values.append(t)
            tails.append(scipy.special.stdtr(spread.df, -t))
    if not values or not len(people):
        return None
    return Sparse(float(np.min(values, axis=0).max()), higher_criticism(np.max(tails, axis=0)))
