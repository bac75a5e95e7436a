"""Which edges make a circuit: the largest ones, or the largest ones that hang together.

Circuits are Bool [writer reader]. Greedy selection grows from the output as in EAP-IG (arXiv 2403.17806): the largest
edge into what is already in; pruning then drops what nothing reaches or what reaches nothing.
"""

import heapq

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from audit.bench import Graph

Circuit = Bool[Tensor, "writer reader"]


def top_n(scores: Float[Tensor, "*row writer reader"], graph: Graph, n: int) -> Bool[Tensor, "*row writer reader"]:
    """The n edges of largest size, of every row."""
    size = scores.abs().masked_fill(~graph.exists, -1.0).flatten(-2)
    n = min(n, int(graph.exists.sum()))
    chosen = torch.zeros_like(size, dtype=torch.bool).scatter(-1, size.topk(n, -1).indices, True)
    return chosen.view(scores.shape)


def greedy(scores: Float[Tensor, "writer reader"], graph: Graph, n: int) -> Circuit:
    """Up to n edges, each the largest that leads into the circuit grown so far from the output; pruned."""
    size, chosen = scores.abs(), torch.zeros_like(graph.exists)
    queue: list[tuple[float, int, int]] = []
    reached: set[int] = set()

    def open_reader(reader: int) -> None:
        if reader in reached:
            return
        reached.add(reader)
        for writer in range(graph.upstream(graph.readers[reader])):
            heapq.heappush(queue, (-float(size[writer, reader]), writer, reader))

    open_reader(len(graph.readers) - 1)
    taken = 0
    while queue and taken < n:
        _, writer, reader = heapq.heappop(queue)
        chosen[writer, reader] = True
        taken += 1
        for feeding in graph.readers_of(writer):
            open_reader(feeding)
    return pruned(chosen, graph)


def pruned(circuit: Circuit, graph: Graph) -> Circuit:
    """The circuit without writers that nothing feeds or that feed nothing, and without what only leads there."""
    remaining = circuit.clone()
    feeds = [graph.readers_of(writer) for writer in range(len(graph.writers))]
    fed_by: list[list[int]] = [[] for _ in graph.readers]
    for writer, readers in enumerate(feeds):
        for reader in readers:
            fed_by[reader].append(writer)
    while True:
        writes, reads = remaining.any(1), remaining.any(0)
        before = int(remaining.sum())
        for writer in range(1, len(feeds)):
            if not bool(reads[list(feeds[writer])].any()):
                remaining[writer] = False
        for reader in range(len(fed_by) - 1):
            if not bool(writes[fed_by[reader]].any()):
                remaining[:, reader] = False
        if int(remaining.sum()) == before:
            return remaining
