"""Edge scores of a set of rows: aligned swaps where a partner is found, mean activations for the rest."""

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from audit.bench import Attribution, Bench, Graph, RowObjective
from audit.case import Rows
from audit.circuits.corruptions import swapped
from audit.circuits.objectives import key_loss
from audit.schema import Checkpoint


class CircuitScores(NamedTuple):
    """Edge scores of every row, which rows were swapped (the others met mean states), and the completeness gap.

    ``gap``: |sum of the embedding's edges - change of the objective| over |change|, the median over rows; for swapped
    rows it falls with the number of steps.
    """

    graph: Graph
    scores: Float[Tensor, "row writer reader"]
    swapped: Bool[Tensor, " row"]
    gap: float

    def vectors(self) -> Float[Tensor, "row edge"]:
        """The scores of existing edges, row by row."""
        return self.scores[:, self.graph.exists]


class AttributionSettings(NamedTuple):
    """How the rows are scored: attribution, objective, seed of the partners; ``means`` swaps nobody."""

    attribution: Attribution = Attribution()
    objective: RowObjective = key_loss
    seed: int = 0
    means: bool = False


def scored(
    bench: Bench, ckpt: Checkpoint, rows: Rows, pool: Rows, settings: AttributionSettings | None = None
) -> CircuitScores:
    """Score every row against a partner from ``pool``, or against the pool's mean states."""
    settings = settings or AttributionSettings()
    other = swapped(rows, pool, settings.seed)
    partnered = torch.zeros_like(other.partnered) if settings.means else other.partnered
    parts: list[tuple[Tensor, Tensor, Tensor]] = []
    graph: Graph | None = None
    for chosen, runs in ((partnered, other.rows), (~partnered, None)):
        index = chosen.nonzero().flatten()
        if not len(index):
            continue
        against = bench.mean_states(ckpt, pool) if runs is None else runs.take(index)
        edges = bench.edge_scores(ckpt, rows.take(index), against, settings.objective, settings.attribution)
        change = edges.other - edges.clean
        gap = (edges.scores[:, 0].sum(1) - change).abs() / change.abs().clamp_min(1e-6)
        parts.append((index, edges.scores, gap))
        graph = edges.graph
    assert graph is not None, "there are rows"
    order = torch.argsort(torch.cat([index for index, _, _ in parts]))
    scores, gaps = (torch.cat([part[i] for part in parts])[order] for i in (1, 2))
    return CircuitScores(graph, scores.float(), partnered, float(gaps.median()))
