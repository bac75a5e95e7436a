"""Key tokens: which of a question's tokens carry the answer, and how alike two models' are."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int
from numpy import ndarray

from audit.probing import stats


class Likeness(NamedTuple):
    """How alike the tokens that carry the answer in one model are to those in base, item by item (NaN: undefined).

    ``top``, ``mass``: Jaccard index of the key tokens (as many as base has; the smallest set with a share of the
    positive mass); ``ranks``: Spearman's correlation over the question's tokens; ``focus``: the share of the model's
    positive mass that lies on base's key tokens.
    """

    top: Float[ndarray, " row"]
    mass: Float[ndarray, " row"]
    ranks: Float[ndarray, " row"]
    focus: Float[ndarray, " row"]


def top_tokens(given: Float[ndarray, " token"], most: int) -> Int[ndarray, " key"]:
    """Places of the highest contributions, highest first: at most ``most``, and at most half of all tokens."""
    return np.argsort(-given, kind="stable")[: min(most, len(given) // 2)]


def mass_tokens(given: Float[ndarray, " token"], share: float) -> Int[ndarray, " key"]:
    """Places of the smallest set that holds a share of the positive mass; none where nothing is positive."""
    order = np.argsort(-given, kind="stable")
    positive = np.maximum(given[order], 0.0)
    total = positive.sum()
    if total <= 0:
        return order[:0]
    needed = int(np.searchsorted(np.cumsum(positive), share * total * (1 - 1e-12))) + 1
    return order[:needed]


def likeness(
    base: Float[ndarray, "row pos"], model: Float[ndarray, "row pos"], question: Bool[ndarray, "row pos"],
    most: int, share: float,
) -> Likeness:  # fmt: skip
    """One model's contributions beside base's, over each question's own tokens."""
    each = [
        _of_item(base[n, marks], model[n, marks], most, share) for n, marks in enumerate(question)
    ]  # fmt: skip
    return Likeness(*(np.array(column) for column in zip(*each, strict=True)))


def _of_item(
    base: Float[ndarray, " token"], model: Float[ndarray, " token"], most: int, share: float
) -> tuple[float, float, float, float]:
    if not (np.isfinite(base).all() and np.isfinite(model).all()):
        return np.nan, np.nan, np.nan, np.nan
    key = top_tokens(base, most)
    positive = np.maximum(model, 0.0)
    return (
        _jaccard(key, top_tokens(model, most)),
        _jaccard(mass_tokens(base, share), mass_tokens(model, share)),
        stats.spearman(base, model),
        float(positive[key].sum() / positive.sum()) if positive.sum() > 0 else np.nan,
    )


def _jaccard(first: Int[ndarray, " key"], other: Int[ndarray, " place"]) -> float:
    both = len(np.union1d(first, other))
    return len(np.intersect1d(first, other)) / both if both else np.nan


def template_share(given: Float[ndarray, "row pos"], question: Bool[ndarray, "row pos"]) -> Float[ndarray, " row"]:
    """The share of a prompt's contributions, in size, that its template's tokens have; 0 without any."""
    size = np.abs(np.nan_to_num(given))
    total = size.sum(1)
    return np.divide((size * ~question).sum(1), total, out=np.zeros_like(total), where=total > 0)
