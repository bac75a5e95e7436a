"""How much of the behaviour do the largest edges carry? Exact patching: all other edges come from the other run."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float
from numpy import ndarray
from torch import Tensor

from audit.bench import Bench, Edges, Graph, reads_of_writers
from audit.case import Rows, row_mean
from audit.circuits.selection import top_n
from audit.schema import Checkpoint, Read, Site

KEY = Read(site=Site(part="logits"), at="key", reduce="logprob")


class Curve(NamedTuple):
    """Per number of edges and row, the share kept: (circuit - other) / (clean - other), of the content tokens' loss."""

    edges: tuple[int, ...]
    share: Float[ndarray, "size row"]


class Runs(NamedTuple):
    """The clean rows, and the other ones that all edges outside the circuit come from."""

    clean: Rows
    other: Rows


class ScoredEdges(NamedTuple):
    """A graph and each row's scores of its edges."""

    graph: Graph
    scores: Float[Tensor, "row writer reader"]


def row_loss(bench: Bench, ckpt: Checkpoint, rows: Rows, *edges: Edges) -> Float[ndarray, " row"]:
    """Mean negative log-likelihood of each row's content tokens, in nats."""
    logprob = bench.run(ckpt, rows, (KEY,), edges)[KEY]
    return row_mean(-logprob, rows.targets("key")[0], len(rows), empty=0.0).double().numpy()


def faithfulness(bench: Bench, ckpt: Checkpoint, runs: Runs, scored: ScoredEdges, sizes: Sequence[int]) -> Curve:
    """Each row's own top-n circuit, for every n, between the runs on clean and on other rows."""
    rows, (graph, scores) = runs.clean, scored
    other = bench.run(ckpt, runs.other, reads_of_writers(graph))
    none = torch.zeros_like(graph.exists)
    clean, corrupted = row_loss(bench, ckpt, rows), row_loss(bench, ckpt, rows, Edges(none, other))
    gap = np.where(np.abs(clean - corrupted) > 1e-6, clean - corrupted, np.nan)
    shares = [(row_loss(bench, ckpt, rows, Edges(top_n(scores, graph, n), other)) - corrupted) / gap for n in sizes]
    return Curve(tuple(sizes), np.stack(shares))


def depth_matched(circuit: Bool[Tensor, "writer reader"], graph: Graph, seed: int) -> Bool[Tensor, "writer reader"]:
    """As many edges between the same blocks, and none of the circuit's own where there are others."""
    rng = torch.Generator().manual_seed(seed)
    begin = torch.tensor([graph.writer_place(w)[0] for w in range(len(graph.writers))])
    end = torch.tensor([reader.block for reader in graph.readers])
    kind = torch.tensor([reader.kind == "mlp" for reader in graph.readers])
    band = (begin[:, None] + 1) * 4 * (graph.blocks + 2) + end * 2 + kind
    chosen = torch.zeros_like(circuit)
    for value in band[circuit].unique().tolist():
        same_band = (band == value) & graph.exists
        wanted = int((same_band & circuit).sum())
        free = (same_band & ~circuit).nonzero()
        pool = free if len(free) >= wanted else same_band.nonzero()
        picked = pool[torch.randperm(len(pool), generator=rng)[:wanted]]
        chosen[picked[:, 0], picked[:, 1]] = True
    return chosen
