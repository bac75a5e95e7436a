"""The forecast that is committed: fitted on all worlds, and judged on worlds and methods that it had not seen."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy import ndarray
from scipy import stats

from audit.forecasting import PREDICTORS, Fitted, normal_scores, ridge
from audit.schema import Interval, Rate
from audit.stats import significant, upper_bound
from studies.difficulty.measure import Measured
from studies.difficulty.results import Value
from studies.difficulty.tables import (
    ALL,
    BASELINE,
    Estimate,
    Held,
    Runs,
    Values,
    agreement,
    by_other_methods,
    difficulty,
    features,
    mean,
)
from studies.difficulty.truth import METHODS, SEEDS

INSIDE = (5.0, 95.0)


def ranks(values: Values) -> Values:
    """Shares of the items that are easier; missing stays missing."""
    known = np.isfinite(values)
    shares = np.full(len(values), np.nan)
    shares[known] = (stats.rankdata(values[known]) - 0.5) / known.sum()
    return shares


class _Design(NamedTuple):
    """Every world's predictors, and its difficulty by every set of runs that is asked for."""

    x: Mapping[int, ndarray]
    y: dict[tuple[int, Runs, str], Values]
    worlds: Mapping[int, Measured]

    def target(self, number: int, runs: Runs, target: str = "all") -> Values:
        """The difficulty in one world by some runs."""
        if (number, runs, target) not in self.y:
            self.y[number, runs, target] = difficulty(self.worlds[number], runs, target)
        return self.y[number, runs, target]

    def weights(self, numbers: Sequence[int], runs: Runs) -> ndarray:
        """The ridge on these worlds and runs."""
        return ridge(
            np.concatenate([self.x[n] for n in numbers]), np.concatenate([self.target(n, runs) for n in numbers])
        )

    def without(self, number: int) -> list[int]:
        """The other worlds."""
        return [n for n in self.worlds if n != number]


def by(*methods: str) -> Runs:
    """All runs of these methods."""
    return tuple(run for run in ALL if run[0] in methods)


class _Pilot(NamedTuple):
    """Weight of a pilot's normal score beside the score of the base predictors."""

    method: str
    weight: float


def _score(d: _Design, number: int, weights: ndarray, pilot: _Pilot | None = None) -> Values:
    score = d.x[number] @ weights
    if pilot is None:
        return score
    return score + pilot.weight * normal_scores(d.target(number, by(pilot.method), "steps"))


def _pilot_weight(d: _Design, numbers: Sequence[int], methods: tuple[str, ...], pilot: str) -> float:
    """How much a pilot's normal score counts beside the base score: least squares on these worlds."""
    weights = d.weights(numbers, by(*methods))
    score = np.concatenate([d.x[n] @ weights for n in numbers])
    own = np.concatenate([normal_scores(d.target(n, by(pilot), "steps")) for n in numbers])
    y = np.concatenate([d.target(n, by(*methods)) for n in numbers])
    known = np.isfinite(y)
    first, second = np.linalg.lstsq(np.stack([score, own], 1)[known], y[known], rcond=None)[0]
    return float(second / max(first, 1e-6))


def _errors(d: _Design, numbers: Sequence[int], methods: tuple[str, ...], pilot: str | None) -> tuple[float, float]:
    """5 and 95 % points of measured less forecast rank in each of these worlds, by a fit on the rest of them."""
    errors: list[Values] = []
    for number in numbers:
        others = [n for n in numbers if n != number]
        for name in methods:
            rest = tuple(m for m in methods if m != name)
            at = None if pilot is None else _Pilot(pilot, _pilot_weight(d, others, rest, pilot))
            forecast = ranks(_score(d, number, d.weights(others, by(*rest)), at))
            errors.append(ranks(d.target(number, by(name))) - forecast)
    lo, hi = np.nanpercentile(np.concatenate(errors), INSIDE)
    return float(lo), float(hi)


class Judged(NamedTuple):
    """How well forecasts did where they had not looked: per world a pair of columns and who was inside, by method."""

    pairs: dict[int, list[Held]]
    inside: dict[int, ndarray]


def judged(d: _Design, pilots: bool) -> Judged:
    """Every world and method forecast from the other worlds and the other methods."""
    pairs: dict[int, list[Held]] = {}
    inside: dict[int, ndarray] = {}
    for number in d.worlds:
        others, hits = d.without(number), list[Values]()
        pairs[number] = []
        for n, name in enumerate(METHODS):
            pilot = METHODS[(n + 1) % len(METHODS)] if pilots else None
            rest = tuple(m for m in METHODS if m not in (name, pilot))
            at = None if pilot is None else _Pilot(pilot, _pilot_weight(d, others, rest, pilot))
            score = _score(d, number, d.weights(others, by(*rest)), at)
            lo, hi = _errors(d, others, rest, pilot)
            mine = d.target(number, by(name))
            error = ranks(mine) - ranks(score)
            hits.append(np.where(np.isfinite(error), (error >= lo) & (error <= hi), np.nan))
            pairs[number].append(Held(score, mine))
        inside[number] = np.stack(hits)
    return Judged(pairs, inside)


def held(d: _Design, out: Sequence[Runs]) -> dict[int, list[Held]]:
    """Every world and set of runs forecast from the other worlds and the runs that are not in the set."""
    pairs: dict[int, list[Held]] = {}
    for number in d.worlds:
        rest = [tuple(run for run in ALL if run not in held_out) for held_out in out]
        pairs[number] = [
            Held(d.x[number] @ d.weights(d.without(number), others), d.target(number, held_out))
            for held_out, others in zip(out, rest, strict=True)
        ]
    return pairs


def interval(estimate: Estimate) -> Interval:
    """As a noun."""
    return Interval(lo=estimate.lo, hi=estimate.hi)


class Fit(NamedTuple):
    """The committed forecast, its estimates by name, and its agreement with each method, held out."""

    fitted: Fitted
    estimates: dict[str, Estimate]
    by_method: dict[str, Estimate]


def fit(worlds: Sequence[Measured], cud_gain: Value, ties: Mapping[str, Value]) -> Fit:
    """Fit on everything; judge on what was held out."""

    def design(names: Sequence[str]) -> _Design:
        return _Design({w.number: features(w, names) for w in worlds}, {}, {w.number: w for w in worlds})

    d = design(PREDICTORS)
    plain, piloted = judged(d, False), judged(d, True)
    short, seeds = (
        held(design(BASELINE), [by(m) for m in METHODS]),
        held(d, [tuple(r for r in ALL if r[1] == s) for s in SEEDS]),
    )
    estimates = {
        "forecast": agreement(worlds, lambda w: plain.pairs[w.number]),
        "length and loss alone": agreement(worlds, lambda w: short[w.number]),
        "forecast with one pilot": agreement(worlds, lambda w: piloted.pairs[w.number]),
        "other methods (ceiling)": agreement(worlds, lambda w: by_other_methods(w, lambda runs: difficulty(w, runs))),
        "forecast, held-out seed": agreement(worlds, lambda w: seeds[w.number]),
        "inside the 90 % interval": _share(worlds, plain),
    }  # fmt: skip
    by_method = {m: agreement(worlds, lambda w, n=n: plain.pairs[w.number][n : n + 1]) for n, m in enumerate(METHODS)}
    other_findings: dict[str, object] = {
        "cud_gain": cud_gain.value, "cud_gain_ci95": cud_gain.ci95,
        "ties": {name: tie.value for name, tie in ties.items()},
        "ties_ci95": {name: tie.ci95 for name, tie in ties.items()},
    }  # fmt: skip
    return Fit(_noun(d, plain, estimates, other_findings), estimates, by_method)


def _noun(d: _Design, plain: Judged, estimates: Mapping[str, Estimate], other_findings: dict[str, object]) -> Fitted:
    """Everything as it is committed; ``other_findings``: what other parts of the study found."""
    numbers, worlds = list(d.worlds), list(d.worlds.values())
    hits = np.concatenate([inside.ravel() for inside in plain.inside.values()])
    k, n = int(np.nansum(hits)), int(np.isfinite(hits).sum())
    lo, hi = _errors(d, numbers, METHODS, None)
    rest = {p: tuple(m for m in METHODS if m != p) for p in METHODS}
    pilot_lo, pilot_hi = np.mean([_errors(d, numbers, methods, p) for p, methods in rest.items()], 0)
    sizes = [float(w.arrays["parameters"]) for w in worlds]

    def with_interval(name: str, words: str) -> dict[str, object]:
        return {name: estimates[words].value, f"{name}_ci95": interval(estimates[words])}

    return Fitted.model_validate(
        with_interval("spearman", "forecast")
        | with_interval("ceiling", "other methods (ceiling)")
        | with_interval("plain", "length and loss alone")
        | with_interval("with_pilot", "forecast with one pilot")
        | other_findings
        | {
            "predictors": PREDICTORS, "weights": tuple(significant(x, 6) for x in d.weights(numbers, ALL)),
            "error_lo": lo, "error_hi": hi, "pilot_error_lo": float(pilot_lo), "pilot_error_hi": float(pilot_hi),
            "pilot_weight": float(np.mean([_pilot_weight(d, numbers, methods, p) for p, methods in rest.items()])),
            "coverage": Rate(k=k, n=n, upper95=upper_bound(k, n)),
            "coverage_ci95": interval(estimates["inside the 90 % interval"]),
            "cost": {name: _costs(worlds, name) for name in METHODS}, "worlds": tuple(numbers), "methods": METHODS,
            "seeds": SEEDS, "items": sum(len(w.arrays["person"]) for w in worlds),
            "parameters": Interval(lo=min(sizes), hi=max(sizes)),
        }
    )  # fmt: skip


def _share(worlds: Sequence[Measured], forecasts: Judged) -> Estimate:
    """Share of items inside their interval."""
    return mean(worlds, lambda w: forecasts.inside[w.number].mean(0))


def _costs(worlds: Sequence[Measured], name: str) -> Interval:
    """The range over worlds of the share of the retained facts' probability that was lost when the median item had
    come into the band, mean over seeds."""
    costs = [np.mean([np.nanmedian(w.labels[name, seed].cost) for seed in SEEDS]) for w in worlds]
    return Interval(lo=float(min(costs)), hi=float(max(costs)))
