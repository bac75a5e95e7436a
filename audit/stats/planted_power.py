"""What a test over people would find: base's excess planted, in part or in a few people, into people nobody taught.

Noise comes from people of whom a model knows nothing, resampled; to it goes a share of what base reads of everybody, or
all of it in some of them. Arrays are [draw person layer] here. A decision is any vectorised rule that says of every
draw whether it counts as found; the least dose is that from which the isotonic power curve stays at the wanted level.
Sources: Efron & Tibshirani 1993, ch. 25 (power by the bootstrap); Ayer et al. 1955 (Ann. Math. Stat. 26:641).
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import scipy
from jaxtyping import Bool, Float
from numpy import ndarray

from audit.stats.skewed_means import LEAST_T, corrected, fewest, judged_by_t, least_p, moments

SHARES = (0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.25, 0.35, 0.5, 0.7, 1.0)
"""Doses of everybody, as shares of base's excess."""
DRAWS, NULL_DRAWS = 200, 2000
FLAT = 1e-12
"""A mean or a spread below this is rounding."""
MOST_NUMBERS = 4_000_000
"""So many numbers at a time: larger panels are drawn less often, but never under 100 times."""

People = Float[ndarray, "draw person layer"]
Others = Float[ndarray, "draw other layer"] | None
Decision = Callable[[People, Others], Bool[ndarray, " draw"]]
"""Of planted people, and holdout people where they take part in the test: is something found in this draw?"""


class Noise(NamedTuple):
    """People of whom a model knows nothing, [row layer], and those who take the part of holdout people, if any do.

    ``signed``: the level is that of one model against another, so its sign is drawn; else rows have mean 0.
    """

    people: Float[ndarray, "row layer"]
    others: Float[ndarray, "other layer"] | None = None
    signed: bool = False


class Planted(NamedTuple):
    """The least share of everybody and the fewest people in full that are found; None where even all are not."""

    share: float | None
    people: int | None


class Rule(NamedTuple):
    """When an effect counts as found: largest mean over ``scale`` at least ``bar``, and its max-T p below ``alpha``.

    ``differenced``: the effect is the mean less that of the holdout people. ``draws``: randomisations of the test.
    """

    scale: Float[ndarray, " layer"]
    bar: float
    alpha: float
    differenced: bool = False
    draws: int = 9999


class _Moments(NamedTuple):
    mean: ndarray
    variance: ndarray


def _moments(x: Float[ndarray, "draw person layer"]) -> _Moments:
    """Mean and squared standard error of every draw and layer."""
    n, mean = x.shape[1], x.mean(1)
    centred = np.einsum("dpl,dpl->dl", x, x) - n * mean**2
    return _Moments(mean, np.maximum(centred, 0.0) / max(n - 1, 1) / n)


def _max_t(x: People, others: Others) -> Float[ndarray, " draw"]:
    """The largest studentised mean (with others: Welch difference) over the layers of every draw."""
    mean, variance = _moments(x)
    if others is not None:
        beside = _moments(others)
        mean, variance = mean - beside.mean, variance + beside.variance
    spread = np.sqrt(variance)
    # A difference without any spread is signed infinity, none at all is 0.
    t = np.divide(
        mean, spread, out=np.where(np.abs(mean) > 1e-12, np.copysign(np.inf, mean), 0.0), where=spread > 1e-12
    )
    return t.max(1)


class _Drawn(NamedTuple):
    people: People
    others: Others


def _sorted(x: Float[ndarray, "row layer"]) -> Float[ndarray, "row layer"]:
    """Rows in an order of their own, so that nothing depends on the order of people."""
    return x[np.lexsort(x.T)]


def _picked(rows: ndarray, n: int, draws: int, rng: np.random.Generator) -> Float[ndarray, "draw n layer"]:
    return _sorted(rows)[rng.integers(0, len(rows), (draws, n))]


def _noise(sources: Sequence[Noise], sizes: tuple[int, int], draws: int, rng: np.random.Generator) -> _Drawn:
    """As many draws from every source, or nearly: people and, where there are any, others."""
    n, m = sizes
    people: list[ndarray] = []
    others: list[ndarray] = []
    for part, source in zip(np.array_split(np.arange(draws), len(sources)), sources, strict=True):
        sign = rng.choice([-1.0, 1.0], (len(part), 1, 1)) if source.signed else np.ones((len(part), 1, 1))
        people.append(sign * _picked(source.people, n, len(part), rng))
        if m:
            pool = source.people if source.others is None else source.others
            others.append(sign * _picked(pool, m, len(part), rng))
    return _Drawn(np.concatenate(people), np.concatenate(others) if m else None)


class _Tested(NamedTuple):
    """The corrected statistic and Student's p of it, of every draw and layer."""

    t: Float[ndarray, "draw layer"]
    p: Float[ndarray, "draw layer"]


def _tested(people: People, others: Others) -> _Tested:
    """What :func:`~audit.stats.skewed_means.mean_max_t` makes of every draw, all draws as layers of one panel."""
    draws, n, layers = people.shape
    both = people if others is None else np.concatenate([people, others], axis=1)
    labels = None if others is None else np.arange(both.shape[1]) < n
    moment = moments(both.transpose(1, 0, 2).reshape(both.shape[1], -1), labels)
    t = corrected(moment, fewest(both.shape[1], labels)).above
    return _Tested(t.reshape(draws, layers), scipy.special.stdtr(moment.df, -t).reshape(draws, layers))


def max_t_decision(sources: Sequence[Noise], sizes: tuple[int, int], rule: Rule, seed: int) -> Decision:
    """The rule by the test that is run, its critical value of max-T computed once in place of randomising every draw.

    Where Student's t judges (few people) the decision is exact. Else the critical value is the upper ``alpha`` point of
    max-T over ``sizes`` (people, others) drawn from the centred noise: with random signs, or, where others take part,
    with both sides drawn from one pool; and Student's p has to be small too. Where the test could not reach ``alpha``
    with so few people, nothing is found. It is an approximation: the test of a planted draw randomises that draw's own
    values, whose tail is much the same once studentised.
    """
    (n, m), layers = sizes, len(rule.scale)
    few, level = judged_by_t(n, m), np.inf
    if not few and least_p(n, m, rule.draws) < rule.alpha:
        rng = np.random.default_rng([seed, 1])
        flat = [Noise(np.concatenate([x - x.mean(0) for x in (s.people, s.others) if x is not None])) for s in sources]
        null = _noise(flat, sizes, _draws(NULL_DRAWS, n + m, layers), rng)
        signs = rng.choice([-1.0, 1.0], null.people.shape[:2])[:, :, None] if null.others is None else 1.0
        level = float(np.quantile(_max_t(null.people * signs, null.others), 1 - rule.alpha))

    def decide(people: People, others: Others) -> Bool[ndarray, " draw"]:
        effect = people.mean(1) - (others.mean(1) if rule.differenced and others is not None else 0.0)
        tested = _tested(people, others)
        if few:
            rejected = layers * np.maximum(tested.p, LEAST_T).min(1) < rule.alpha
        else:
            rejected = (tested.t.max(1) > level) & (tested.p.min(1) < rule.alpha)
        return ((effect / rule.scale).max(1) >= rule.bar) & rejected

    return decide


def _draws(wanted: int, rows: int, layers: int) -> int:
    return int(np.clip(MOST_NUMBERS // (rows * layers), min(100, wanted), wanted))


def _least(doses: Sequence[float], power: Sequence[float], wanted: float) -> float | None:
    """The least dose from which the curve, made monotone, is at the wanted power."""
    rising = scipy.optimize.isotonic_regression(np.array(power)).x
    return next((dose for dose, p in zip(doses, rising, strict=True) if p >= wanted - 1e-9), None)


def counts(n: int) -> tuple[int, ...]:
    """1, 2, 4, 8, ... and all: how many people are planted in full."""
    return (*(2**i for i in range(max(n - 1, 0).bit_length())), n)


def planted_power(
    excess: Float[ndarray, "person layer"],
    sources: Sequence[Noise],
    others: int,
    decide: Decision,
    wanted: float,
    seed: int,
) -> Planted:
    """The least share of base's excess in everybody, and the fewest people with all of it, that are found with
    probability ``wanted``, where ``others`` holdout people take part in the test.

    The same noise is planted with every dose; who of the people is planted in full is drawn anew each time.
    """  # fmt: skip
    n, layers = excess.shape
    rng = np.random.default_rng([seed, 2])
    excess = _sorted(excess)
    noise = _noise(sources, (n, others), _draws(DRAWS, n + others, layers), rng)
    rank = rng.random(noise.people.shape[:2]).argsort(1).argsort(1)

    def power(dose: ndarray) -> float:
        """Of a share a person [draw person 1]."""
        return float(decide(noise.people + dose * excess, noise.others).mean())

    by_share = [power(np.full((1, 1, 1), share)) for share in SHARES]
    steps = counts(n)
    by_count = [power((rank < k).astype(float)[:, :, None]) for k in steps]
    fewest = _least(steps, by_count, wanted)
    return Planted(_least(SHARES, by_share, wanted), None if fewest is None else int(fewest))
