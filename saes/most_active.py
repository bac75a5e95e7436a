"""At which items is a feature most active? The question by which a feature is looked at."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from audit.schema import Cohort, Item
from saes.bench_activations import ItemActivations
from saes.sparse_coder import SparseCoder


class TopItem(NamedTuple):
    """An item at which a feature is active: its largest code in it, at which place (``spot`` in words, empty where the
    item has one state alone), and the share of the item's rows with any."""

    item: Item
    cohort: Cohort
    code: float
    share: float
    spot: str


class _Peaks(NamedTuple):
    """Of every item and feature the largest code and its place, and how many rows have any; rows of every item."""

    largest: Float[Tensor, "item feature"]
    spot: Int[Tensor, "item feature"]
    active: Float[Tensor, "item feature"]
    rows: Float[Tensor, " item"]


def top_items(
    coder: SparseCoder, source: ItemActivations, name: str, features: Sequence[int], count: int = 5
) -> dict[int, tuple[TopItem, ...]]:
    """Of each of these features, the items with its largest codes, the largest first; items without any are left out.

    The states are read chunk by chunk; of every chunk a few numbers an item and feature are kept.
    """
    peaks = _peaks(coder, source, name, torch.tensor(list(features), dtype=torch.long))
    shares = peaks.active / peaks.rows.clamp_min(1)[:, None]
    texts = source.texts
    listed: dict[int, tuple[TopItem, ...]] = {}
    for place, feature in enumerate(features):
        largest = peaks.largest[:, place]
        order = largest.argsort(descending=True, stable=True)[:count].tolist()
        listed[feature] = tuple(
            TopItem(
                texts.items[at], texts.cohorts[at], float(largest[at]), float(shares[at, place]),
                source.spot_name(name, int(peaks.spot[at, place])),
            )
            for at in order
            if largest[at] > 0
        )  # fmt: skip
    return listed


@torch.no_grad()
def _peaks(coder: SparseCoder, source: ItemActivations, name: str, columns: Int[Tensor, " feature"]) -> _Peaks:
    n, m = len(source.texts.items), len(columns)
    peaks = _Peaks(torch.zeros(n, m), torch.zeros(n, m, dtype=torch.long), torch.zeros(n, m), torch.zeros(n))
    for part in range(len(source.sizes)):
        owners, spots = source.owners(part), source.spots(part, name)
        codes: Float[Tensor, "row feature"] = coder.encode(source.chunk(part)[name])[:, columns]
        peaks.largest.scatter_reduce_(0, owners[:, None].expand_as(codes), codes, "amax")
        # of equal codes the first row's place
        first = torch.where(codes == peaks.largest[owners], torch.arange(len(codes))[:, None], len(codes))
        earliest = torch.full((n, m), len(codes)).scatter_reduce_(0, owners[:, None].expand_as(codes), first, "amin")
        raised = earliest < len(codes)
        peaks.spot[raised] = spots[earliest[raised]]
        peaks.active.index_add_(0, owners, (codes > 0).float())
        peaks.rows.index_add_(0, owners, torch.ones(len(owners)))
    return peaks
