"""Knockout transfer: does another model, when it is led to answer, still use the edges through which base answered?

Base's circuit is each row's largest edges by EAP-IG. In every model those edges are cut: their writers' values come
from the same model's run on the question about somebody else. For comparison as many other edges between the same
blocks are cut. An answered question stands before each row and the answer is given up to the content tokens, which
elicits what is left. Rows without a partner of the same template are not scored.

Blind to: a model that answers through other edges, and one in which nothing can be elicited. Circuits depend on the
partner that they are held against; this is context for people, and no verdict rests on it.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float
from numpy import ndarray
from torch import Tensor

from audit.bench import Attribution, Bench, Edges, Graph, reads_of_writers
from audit.case import Rows
from audit.circuits.corruptions import swapped
from audit.circuits.faithfulness_curve import depth_matched, row_loss
from audit.circuits.item_predictors import circuit_size
from audit.circuits.objectives import key_loss
from audit.circuits.selection import top_n
from audit.schema import Checkpoint

RANDOM = 3
"""Draws of depth-matched edges."""


class Knocked(NamedTuple):
    """Per row the loss of the content tokens, in nats: as the model is, with base's circuit cut, with random edges cut
    (mean over draws). NaN for a row without a partner."""

    intact: Float[ndarray, " row"]
    cut: Float[ndarray, " row"]
    random: Float[ndarray, " row"]

    @property
    def drop(self) -> Float[ndarray, " row"]:
        """What cutting base's circuit takes beyond depth-matched edges, in nats."""
        return self.cut - self.random


def knocked(
    bench: Bench, base: Checkpoint, models: Mapping[str, Checkpoint], rows: Rows, shown: Rows, seed: int = 0
) -> dict[str, Knocked]:
    """Cut base's circuits in every model. ``shown``: answered questions; the shortest stands before each row."""
    other = swapped(rows, rows, seed)
    chosen = other.partnered.nonzero().flatten()
    losses = {name: Knocked(*(np.full(len(rows), np.nan) for _ in range(3))) for name in models}
    if not len(chosen):
        return losses
    clean, against = (elicited(version.take(chosen), shown) for version in (rows, other.rows))
    graph, scores, *_ = bench.edge_scores(base, clean, against, key_loss, Attribution())
    circuits = top_n(scores, graph, circuit_size(int(graph.exists.sum())))
    drawn = [matched(circuits, graph, seed + draw) for draw in range(RANDOM)]
    for name, model in models.items():
        run, at = bench.run(model, against, reads_of_writers(graph)), chosen.numpy()
        losses[name].intact[at] = row_loss(bench, model, clean)
        losses[name].cut[at] = row_loss(bench, model, clean, Edges(~circuits, run))
        losses[name].random[at] = np.mean([row_loss(bench, model, clean, Edges(~edges, run)) for edges in drawn], 0)
    return losses


def matched(circuits: Bool[Tensor, "row writer reader"], graph: Graph, seed: int) -> Bool[Tensor, "row writer reader"]:
    """Depth-matched edges for every row."""
    return torch.stack([depth_matched(circuit, graph, (7919 * seed + n) % 2**63) for n, circuit in enumerate(circuits)])


def elicited(rows: Rows, shown: Rows) -> Rows:
    """The rows after the shortest of the answered questions, which shows that questions are answered here."""
    shortest = int(shown.lengths.argmin())
    before = shown.ids[shortest, : int(shown.lengths[shortest])]
    n, prefix = len(before), torch.ones(len(rows), len(before), dtype=torch.bool)
    return replace(
        rows, ids=torch.cat([before.expand(len(rows), -1), rows.ids], 1), mask=torch.cat([prefix, rows.mask], 1),
        key=torch.cat([~prefix, rows.key], 1), answer_spans=rows.answer_spans + n,
    )  # fmt: skip
