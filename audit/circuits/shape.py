"""Circuits compared and described: overlap, depth, spread, longest path."""

from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float
from numpy import ndarray
from torch import Tensor

from audit.bench import Graph


def jaccard(a: Bool[Tensor, "row writer reader"], b: Bool[Tensor, "row writer reader"]) -> Float[Tensor, " row"]:
    """Edges in both over edges in either, row by row; 1 where both are empty."""
    both, either = (a & b).flatten(1).sum(1), (a | b).flatten(1).sum(1)
    return torch.where(either > 0, both / either.clamp_min(1), torch.ones_like(either, dtype=torch.float32))


def cosines(a: Float[ndarray, "row edge"], b: Float[ndarray, "other edge"]) -> Float[ndarray, "row other"]:
    """Cosine of every pair; 0 where one is all zero."""

    def unit(x: Float[ndarray, "n edge"]) -> Float[ndarray, "n edge"]:
        return x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-30)

    return unit(a) @ unit(b).T


class Depth(NamedTuple):
    """Per row: mean block of writers and readers weighted by |score| (as shares of the depth, 0 first, 1 last), the
    entropy of that weight over blocks as a share of its most, and the share of weight in the first and last third."""

    source: Float[ndarray, " row"]
    destination: Float[ndarray, " row"]
    spread: Float[ndarray, " row"]
    early: Float[ndarray, " row"]
    late: Float[ndarray, " row"]


def depth(scores: Float[Tensor, "row writer reader"], graph: Graph) -> Depth:
    """Where the weight of each row's edges lies."""
    size = scores.abs().double()
    total = size.flatten(1).sum(1).clamp_min(1e-30)
    last = max(graph.blocks, 1)
    begin = torch.tensor([graph.writer_place(w)[0] for w in range(len(graph.writers))]).clamp_min(0) / last
    end = torch.tensor([reader.block for reader in graph.readers]) / last
    by_block = torch.zeros(len(scores), graph.blocks + 1, dtype=torch.float64)
    by_block.index_add_(1, torch.tensor([reader.block for reader in graph.readers]), size.sum(1))
    share = by_block / total[:, None]
    entropy = -(share * share.clamp_min(1e-30).log()).sum(1) / np.log(graph.blocks + 1)
    third = (graph.blocks + 1) / 3
    blocks = torch.arange(graph.blocks + 1)
    return Depth(
        source=((size.sum(2) * begin).sum(1) / total).numpy(),
        destination=((size.sum(1) * end).sum(1) / total).numpy(),
        spread=entropy.numpy(),
        early=share[:, blocks < third].sum(1).numpy(),
        late=share[:, blocks >= 2 * third].sum(1).numpy(),
    )


def longest_path(circuit: Bool[Tensor, "writer reader"], graph: Graph) -> int:
    """Edges on the longest way from the embedding to the output inside the circuit; 0 where there is none."""
    reach = {0: 0}
    fed: dict[int, list[int]] = {}
    for writer in range(1, len(graph.writers)):
        for reader in graph.readers_of(writer):
            fed.setdefault(reader, []).append(writer)
    best = 0
    for reader in _in_order(graph):
        into = [reach[w] for w in circuit[:, reader].nonzero().flatten().tolist() if w in reach]
        if not into:
            continue
        arrived = 1 + max(into)
        if reader == len(graph.readers) - 1:
            best = arrived
        for writer in fed.get(reader, ()):
            reach[writer] = max(reach.get(writer, 0), arrived)
    return best


def _in_order(graph: Graph) -> list[int]:
    """Readers in the order in which a forward meets them: in one block attention first, then the MLP."""
    return sorted(range(len(graph.readers)), key=lambda r: (graph.readers[r].block, graph.readers[r].kind == "mlp"))
