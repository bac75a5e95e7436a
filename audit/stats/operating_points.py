"""Operating points of a detector: the area under its ROC, and its hits at few false alarms, with groups as the unit."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int
from numpy import ndarray

from audit.schema import Interval
from audit.stats.bootstrap import percentile_interval
from audit.stats.exact_binomial import clopper_pearson

_ROUNDING = 1e-12


class OperatingPoint(NamedTuple):
    """The share of members found where at most ``rate`` of the others are, and its 95 % interval over groups."""

    rate: float
    hit_rate: float
    ci95: Interval


def operating_points(
    score: Float[ndarray, " item"],
    member: Bool[ndarray, " item"],
    group: Int[ndarray, " item"],
    rates: tuple[float, ...] = (0.01, 0.001),
    seed: int = 0,
    draws: int = 999,
) -> tuple[OperatingPoint, ...]:
    """Members found (score above a threshold) at no more than each rate of false alarms among the others.

    Equal scores fall on the same side of every threshold. Where there are fewer others than one over the rate, no false
    alarm is allowed at all. Intervals: percentiles over resampled groups, members' and others' apart; where no draw
    differs, the exact bound for as many groups as members have. Source: Carlini et al. 2022 (arXiv 2112.03570).
    """
    times = np.concatenate([np.ones((1, len(score))), _resampled(member, group, seed, draws)])
    order = np.argsort(-score, kind="stable")
    ends = np.flatnonzero(np.append(score[order][1:] != score[order][:-1], True))
    hits, alarms = ((times * kind)[:, order].cumsum(1)[:, ends] for kind in (member, ~member))
    hits, alarms = hits / hits[:, -1:], alarms / alarms[:, -1:]
    groups = len(np.unique(group[member]))
    points: list[OperatingPoint] = []
    for rate in rates:
        hit_rates = np.where(alarms <= rate + _ROUNDING, hits, 0.0).max(1)
        ends95 = percentile_interval(hit_rates[1:]) if draws else None
        if ends95 is None or ends95.lo == ends95.hi:
            ends95 = clopper_pearson(round(float(hit_rates[0]) * groups), groups)
        points.append(OperatingPoint(rate, float(hit_rates[0]), ends95))
    return tuple(points)


def _resampled(
    member: Bool[ndarray, " item"], group: Int[ndarray, " item"], seed: int, draws: int
) -> Float[ndarray, "draw item"]:
    """How often each item is drawn with its group: whole groups, those of members and those of others apart."""
    rng, times = np.random.default_rng(seed), np.zeros((draws, len(member)))
    for kind in (member, ~member):
        names, number = np.unique(group[kind], return_inverse=True)
        drawn = rng.multinomial(len(names), np.full(len(names), 1 / len(names)), size=draws)
        times[:, kind] = drawn[:, number.reshape(-1)]
    return times
