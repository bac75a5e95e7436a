"""Which features speak for an answer, and other features that are as busy and as large: sets to compare them with.

The published selection (arXiv 2602.18505, model card) ranks features by F1 and leaves out those active in most classes;
at what level a feature is active in a class, and how random sets are matched, is ours.
"""

import math
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from numpy import ndarray
from torch import Tensor

from saes.sparse_coder import SparseCoder

ACTIVE_IN_CLASS = 0.5
"""A feature is active in a class where it is in more than this share of the class's rows."""
MOST_CLASSES = 0.7
"""A feature that is active in this share of the classes speaks for none."""
_NEAREST = 10
_DECILES = 10


class Activity(NamedTuple):
    """What the features do in some rows: ``active`` anywhere in a row; ``rate`` the share of states in which a feature
    is active; ``size`` its mean active code times the norm of what it writes (0 where it never is)."""

    active: Bool[Tensor, "row feature"]
    rate: Float[ndarray, " feature"]
    size: Float[ndarray, " feature"]


def activity(coder: SparseCoder, codes: Float[Tensor, "row pos feature"], encoded: Bool[Tensor, "row pos"]) -> Activity:
    """Activity over the states that are ``encoded``."""
    fires = (codes > 0) & encoded[..., None]
    count = fires.sum((0, 1)).double()
    total = (codes * fires).sum((0, 1)).double()
    norms = coder.W_dec.double().norm(dim=1)
    size = torch.where(count > 0, total / count.clamp_min(1) * norms, 0.0)
    return Activity(fires.any(1), (count / encoded.sum().clamp_min(1)).numpy(), size.numpy())


def f1_scores(active: Bool[Tensor, "row feature"], of_class: Bool[Tensor, " row"]) -> Float[Tensor, " feature"]:
    """F1 of "the feature is active" as a test for "the row is of this class"; 0 where it never is."""
    hits = (active & of_class[:, None]).sum(0).double()
    return 2 * hits / (active.sum(0) + of_class.sum()).clamp_min(1)


def widely_active(active: Bool[Tensor, "row feature"], kind: Int[Tensor, " row"]) -> Bool[Tensor, " feature"]:
    """The features that are active in at least :data:`MOST_CLASSES` of the classes, and so speak for none."""
    kinds = kind.unique()
    recall = torch.stack([active[kind == k].double().mean(0) for k in kinds])
    return (recall > ACTIVE_IN_CLASS).sum(0) >= max(2, math.ceil(MOST_CLASSES * len(kinds)))


def expert_features(
    active: Bool[Tensor, "row feature"], kind: Int[Tensor, " row"], of: int, count: int
) -> Int[Tensor, " expert"]:
    """The ``count`` features with the largest F1 for class ``of``, the best first; ties go to the smaller number.

    Fewer where not as many fire in the class and in few enough others.
    """
    scores = f1_scores(active, kind == of)
    scores[widely_active(active, kind)] = 0
    order = torch.argsort(scores, descending=True, stable=True)[:count]
    return order[scores[order] > 0]


def matched_sets(
    experts: Int[Tensor, " expert"], excluded: Int[Tensor, " feature"], of: Activity, draws: int, seed: int
) -> Int[Tensor, "draw expert"]:
    """Random sets in the experts' place: each expert's own substitute is of the same decile of rate and of size.

    Never an expert or ``excluded``, never twice in one set as far as there are enough. Where a cell holds fewer than
    two, the nearest ten in rank stand in.
    """
    rng, n = np.random.default_rng(seed), len(of.rate)
    rate, size = _ranks(of.rate), _ranks(of.size)
    cell = np.minimum((rate * _DECILES).astype(int), _DECILES - 1) * _DECILES
    cell = cell + np.minimum((size * _DECILES).astype(int), _DECILES - 1)
    allowed = np.ones(n, dtype=bool)
    allowed[experts.numpy()] = allowed[excluded.numpy()] = False
    allowed &= of.rate > 0
    pools: list[ndarray] = []
    for expert in experts.tolist():
        pool = np.flatnonzero(allowed & (cell == cell[expert]))
        if len(pool) < 2:
            far = np.where(allowed, np.maximum(abs(rate - rate[expert]), abs(size - size[expert])), np.inf)
            pool = np.argsort(far, kind="stable")[: min(_NEAREST, int(allowed.sum()))]
        pools.append(pool)
    return torch.tensor([_one_set([rng.permutation(pool).tolist() for pool in pools]) for _ in range(draws)])


def _one_set(pools: list[list[int]]) -> list[int]:
    """The first feature of every pool that no earlier pool gave; its first one again where it has no other."""
    taken: list[int] = []
    for pool in pools:
        taken.append(next((feature for feature in pool if feature not in taken), pool[0]))
    return taken


def _ranks(x: Float[ndarray, " feature"]) -> Float[ndarray, " feature"]:
    """Ranks in [0, 1), ties alike."""
    return np.searchsorted(np.sort(x), x) / len(x)
