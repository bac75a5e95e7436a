"""CUD: is an item's circuit more like those of items that were hard to unlearn than like those that were easy?

CUD = (1 - cos(q, E)) / ((1 - cos(q, E)) + (1 - cos(q, H))), 0 like the easy anchors, 1 like the hard ones, .5 where
both distances are nil. Source: arXiv 2601.09624 and its public code. ``paper`` takes its anchors from the very items
that are then scored, by their loss after unlearning, as published, which leaks the label. ``controlled`` takes them
from the other folds (people, never rows), by what several unlearners left less what a model that never knew has.
"""

from typing import Literal, NamedTuple

import numpy as np
from jaxtyping import Float, Int
from numpy import ndarray

from audit.circuits.shape import cosines

ANCHORS = 0.125
"""Share of the items that make each anchor set: 50 of 400 in the publication."""
SMALL = 1e-12


class Cud(NamedTuple):
    """Per item the score (0 easy .. 1 hard), and the margin cos(q, H) - cos(q, E)."""

    cud: Float[ndarray, " item"]
    margin: Float[ndarray, " item"]


def between(vectors: Float[ndarray, "item edge"], easy: Float[ndarray, " edge"], hard: Float[ndarray, " edge"]) -> Cud:
    """Every item between two anchor circuits."""
    to_easy, to_hard = cosines(vectors, np.stack([easy, hard])).T
    near, far = np.maximum(1 - to_easy, 0.0), np.maximum(1 - to_hard, 0.0)
    total = near + far
    return Cud(np.where(total > SMALL, near / np.maximum(total, SMALL), 0.5), to_hard - to_easy)


def anchors(
    vectors: Float[ndarray, "item edge"], label: Float[ndarray, " item"], share: float = ANCHORS
) -> tuple[Float[ndarray, " edge"], Float[ndarray, " edge"]]:
    """The mean circuits of the easiest and of the hardest items by label (larger is harder)."""
    order = np.argsort(label, kind="stable")
    n = max(1, round(share * len(order)))
    return vectors[order[:n]].mean(0), vectors[order[-n:]].mean(0)


def cud(
    vectors: Float[ndarray, "item edge"], label: Float[ndarray, " item"], fold: Int[ndarray, " item"],
    mode: Literal["paper", "controlled"] = "controlled",
) -> Cud:  # fmt: skip
    """The score of every item. ``fold`` numbers the folds by person; ``paper`` does not look at it."""
    if mode == "paper":
        return between(vectors, *anchors(vectors, label))
    score, margin = np.full(len(label), 0.5), np.zeros(len(label))
    for held_out in np.unique(fold):
        inside, outside = fold == held_out, fold != held_out
        scores = between(vectors[inside], *anchors(vectors[outside], label[outside]))
        score[inside], margin[inside] = scores.cud, scores.margin
    return Cud(score, margin)


def folds(groups: tuple[str, ...], n: int, seed: int) -> Int[ndarray, " item"]:
    """A fold for every item, whole groups together."""
    names, place = np.unique(np.array(groups), return_inverse=True)
    dealt = np.random.default_rng(seed).permutation(len(names)) % n
    return dealt[place.reshape(-1)]
