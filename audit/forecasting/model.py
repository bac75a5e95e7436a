"""The fitted forecast: which predictors say how hard an item will be, learned on worlds where it was measured.

Numbers that mean different things in different models cannot be carried over as they are, so every predictor enters as
its normal score among the case's own items, and what comes out is a rank: 0 the easiest item of this forget set, 1 the
hardest. Intervals are the 5 and 95 % points of the errors in worlds that the fit had not seen.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import scipy
from jaxtyping import Float
from numpy import ndarray

from audit.schema import Interval, Rate, Record

FITTED = Path(__file__).parent / "fitted.json"
PREDICTORS = (
    "loss", "answer_loss", "answer_tokens", "question_tokens", "entropy", "margin", "extraction", "gradient_cosine",
    "fisher_overlap", "gradient_norm", "first_step", "circuit_depth", "circuit_spread", "path_length", "key_layer",
    "key_spread", "entanglement", "other_words", "key_count",
)  # fmt: skip
"""What enters the fit. Frequency does not: a real case rarely knows how often a fact was seen."""
PENALTY = 30.0


class Fitted(Record):
    """A ridge on normal scores, how well it did where it had not looked, and from what it was made.

    ``spearman`` is with the measured difficulty by a method and in a world that the fit had not seen, ``ceiling`` what
    the difficulty measured by the other methods reaches there. ``with_pilot`` adds one pilot method's measured
    difficulty, weighted by ``pilot_weight``; ``plain`` is a fit on lengths and losses alone. ``coverage`` counts items
    inside their 90 % interval. ``cud_gain`` is what circuits between easy and hard anchors add to the R2 of ``plain``.
    ``ties``: Spearman of what ties a retained item to the forget set, and of one pilot's damage, with the damage done.
    """

    predictors: tuple[str, ...]
    weights: tuple[float, ...]
    error_lo: float
    error_hi: float
    spearman: float
    spearman_ci95: Interval
    ceiling: float
    ceiling_ci95: Interval
    plain: float
    plain_ci95: Interval
    cud_gain: float
    cud_gain_ci95: Interval
    ties: dict[str, float]
    ties_ci95: dict[str, Interval]
    with_pilot: float
    with_pilot_ci95: Interval
    pilot_weight: float
    pilot_error_lo: float
    pilot_error_hi: float
    coverage: Rate
    coverage_ci95: Interval
    cost: dict[str, Interval]
    worlds: tuple[int, ...]
    methods: tuple[str, ...]
    seeds: tuple[int, ...]
    items: int
    parameters: Interval


class Predicted(NamedTuple):
    """Per item a rank in 0..1 (hardest), its 90 % interval, and each predictor's share of the score."""

    rank: Float[ndarray, " item"]
    lo: Float[ndarray, " item"]
    hi: Float[ndarray, " item"]
    score: Float[ndarray, " item"]
    shares: dict[str, Float[ndarray, " item"]]


def normal_scores(values: Float[ndarray, " item"]) -> Float[ndarray, " item"]:
    """Ranks as quantiles of a normal distribution; a missing value, and a column without variation, score 0."""
    known = np.isfinite(values)
    scores = np.zeros(len(values))
    if known.sum() > 1 and np.ptp(values[known]) > 0:
        ranks = scipy.stats.rankdata(values[known])
        scores[known] = scipy.stats.norm.ppf((ranks - 0.5) / known.sum())
    return scores


def design(by_name: Mapping[str, Float[ndarray, " item"]], names: Sequence[str]) -> Float[ndarray, "item predictor"]:
    """Normal scores of the named predictors; a column that the case does not have is 0."""
    n = len(next(iter(by_name.values())))
    return np.stack([normal_scores(by_name[name]) if name in by_name else np.zeros(n) for name in names], 1)


def ridge(
    x: Float[ndarray, "item predictor"], y: Float[ndarray, " item"], penalty: float = PENALTY
) -> Float[ndarray, " predictor"]:
    """Weights of the penalised least squares; rows whose target is missing do not count."""
    known = np.isfinite(y)
    gram = x[known].T @ x[known] + penalty * np.eye(x.shape[1])
    return np.linalg.solve(gram, x[known].T @ y[known])


def predicted(
    fitted: Fitted, by_name: Mapping[str, Float[ndarray, " item"]], pilot: Float[ndarray, " item"] | None = None
) -> Predicted:
    """Rank the items of a case. ``pilot`` is their difficulty as pilot runs measured it (any scale, larger harder)."""
    x = design(by_name, fitted.predictors)
    weights = np.array(fitted.weights)
    score, lo, hi = x @ weights, fitted.error_lo, fitted.error_hi
    shares = {name: x[:, i] * weights[i] for i, name in enumerate(fitted.predictors)}
    if pilot is not None:
        shares |= {"pilot": fitted.pilot_weight * normal_scores(pilot)}
        score = score + shares["pilot"]
        lo, hi = fitted.pilot_error_lo, fitted.pilot_error_hi
    rank = (scipy.stats.rankdata(score) - 0.5) / len(score)
    return Predicted(rank, np.clip(rank + lo, 0, 1), np.clip(rank + hi, 0, 1), score, shares)


def load(path: Path = FITTED) -> Fitted:
    """The committed fit."""
    return Fitted.model_validate_json(path.read_bytes())
