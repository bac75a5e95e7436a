"""Bootstraps of an effect over units of replication, and the intervals they give."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float
from numpy import ndarray

from audit.schema import Interval


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

    With numerator = suspect - null and denominator = base - null this is the effect (0 never trained, 1 base). A draw
    has none (NaN) where its denominator is 0, or what rounding leaves of two numbers that cancel.
    Sources: Efron & Tibshirani 1993, ch. 8; Field & Welsh 2007 (JRSS-B 69:369) for clusters.
    """
    rng = np.random.default_rng(seed)
    strata = [np.ones(len(numerator), bool)] if forget is None else [forget, ~forget]
    weights = np.zeros((draws, len(numerator)))
    for sign, stratum in zip((1.0, -1.0), strata, strict=False):
        m = int(stratum.sum())
        weights[:, stratum] = sign * rng.multinomial(m, np.full(m, 1 / m), size=draws) / m
    num, den = weights @ numerator, weights @ denominator
    rounding = len(numerator) * np.finfo(float).eps * (np.abs(weights) @ np.abs(denominator))
    return Resampled(num / np.where(np.abs(den) <= rounding, np.nan, den), den)


def percentile_interval(draws: Float[ndarray, " draw"]) -> Interval:
    """The 2.5 and 97.5 % points of finite bootstrap draws (percentile interval)."""
    lo, hi = np.nanpercentile(draws, [2.5, 97.5])
    return Interval(lo=float(lo), hi=float(hi))
