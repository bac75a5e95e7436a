"""At which texts is a feature most active? The question by which a feature is looked at."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from audit.schema import Cohort, Item
from saes.bench_activations import BenchActivations
from saes.sparse_coder import SparseCoder


class TopText(NamedTuple):
    """A text at which a feature is active: its largest code in it, and the share of its tokens with any."""

    item: Item
    cohort: Cohort
    code: float
    share: float


def top_texts(
    coder: SparseCoder, source: BenchActivations, name: str, features: Sequence[int], count: int = 5
) -> dict[int, tuple[TopText, ...]]:
    """Of each of these features, the texts with its largest codes, the largest first; texts without any are left out.

    The states are read chunk by chunk; of every chunk one number a text and feature is kept.
    """
    columns = torch.tensor(list(features), dtype=torch.long)
    n = len(source.texts.items)
    largest, active, tokens = torch.zeros(n, len(columns)), torch.zeros(n, len(columns)), torch.zeros(n)
    with torch.no_grad():
        for part in range(len(source.sizes)):
            owners = source.owners(part)
            codes: Float[Tensor, "row feature"] = coder.encode(source.chunk(part)[name])[:, columns]
            largest.scatter_reduce_(0, owners[:, None].expand_as(codes), codes, "amax")
            active.index_add_(0, owners, (codes > 0).float())
            tokens.index_add_(0, owners, torch.ones(len(owners)))
    shares = active / tokens.clamp_min(1)[:, None]
    listed: dict[int, tuple[TopText, ...]] = {}
    for place, feature in enumerate(features):
        order = largest[:, place].argsort(descending=True, stable=True)[:count].tolist()
        listed[feature] = tuple(
            TopText(
                source.texts.items[at], source.texts.cohorts[at], float(largest[at, place]), float(shares[at, place])
            )
            for at in order
            if largest[at, place] > 0
        )
    return listed
