"""Integrated gradients of the answer's log-probability over the embedded prompt, summed over each token's dimensions.

The path is straight, from the mean embedding of the vocabulary to the prompt's own; tokens that do not move keep their
embedding all along (Sundararajan et al. 2017, ICML). Rows are tokenised here and the pass is this bench's, so every
edit that a checkpoint plays is in it, and no token is put in or left out on the way. Captum integrates alike: tests
compare with it, and to load it costs more than the passes of a small audit.
"""

from functools import partial
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from numpy.polynomial.legendre import leggauss
from torch import Tensor

from audit.bench.batching import batches, halving
from audit.bench.gradients import live
from audit.bench.layout import Geometry, Targets
from audit.bench.passes import Job, LoadedModel, Opener
from audit.case import Rows, row_mean, shortened
from audit.wrappers import Wrapper

_AT_ONCE = 4096
_POINTS_AT_ONCE = 16
_LEAST_DIFFERENCE = 0.1
"""Nats. Where the ends of a path differ by less, its gap is compared with this."""


class Integrated(NamedTuple):
    """Attributions [row pos] in nats, zero at tokens that did not move; the objective's difference between the ends of
    the path; how far the attributions are from summing up to it, relative to it; and how many points were taken."""

    attribution: Float[Tensor, "row pos"]
    difference: Float[Tensor, " row"]
    gap: Float[Tensor, " row"]
    points: Int[Tensor, " row"]


class Effort(NamedTuple):
    """How many points of the path are taken at first; doubled, row by row, until the gap is small enough or ``most``
    would be exceeded."""

    first: int = 16
    most: int = 256
    gap: float = 1e-3


class _Work(NamedTuple):
    """What is integrated: the mean log-probability of these rows' content tokens in this model."""

    opened: LoadedModel
    opener: Opener
    targets: Targets
    moved: Bool[Tensor, "row pos"]
    origin: Float[Tensor, " d"]


def integrated(
    opened: LoadedModel, opener: Opener, rows: Rows, moved: Bool[Tensor, "row pos"], effort: Effort, budget: int
) -> Integrated:
    """Integrated gradients of every row, in row order, in float32 on the CPU. ``budget``: padded tokens a batch."""
    n, shape = len(rows), rows.ids.shape
    if n and not (opened.plays or rows.extra):  # what follows the content tokens moves none of them
        rows = shortened(rows)
    work = _Work(opened, opener, Targets(rows), moved, _mean_embedding(opened.wrapper))
    result = Integrated(
        torch.zeros(shape), torch.zeros(n), torch.zeros(n), torch.zeros(n, dtype=torch.long)
    )  # fmt: skip
    unfinished, points = torch.arange(n), effort.first
    while len(unfinished):
        lengths = rows.lengths[unfinished] * min(points, _POINTS_AT_ONCE)
        for part in batches(lengths, int(lengths.max()), budget, opened.wrapper.device):
            chosen = unfinished if part is None else unfinished[part]
            halving(partial(_put, result, work, points), chosen, n)
        points *= 2
        unfinished = unfinished[result.gap[unfinished] > effort.gap] if points <= effort.most else unfinished[:0]
    return result


def _put(result: Integrated, work: _Work, points: int, index: Int[Tensor, " row"] | None) -> None:
    """One batch's numbers, into the place of its rows."""
    assert index is not None, "rows are named"
    device = work.opened.wrapper.device
    where = Geometry(work.targets, index, None, device)
    own = work.opened.wrapper.embed(where.ids).detach()
    moves = work.moved[index][:, : where.width].to(device)
    start = torch.where(moves[..., None], work.origin.to(own), own)
    summed = ((own - start) * _mean_slope(work, index, start, own, points)).sum(-1).float().cpu()
    with torch.no_grad():
        at_start, at_own = _objective(work, torch.cat([start, own]), index.repeat(2)).float().cpu().view(2, -1)
    difference = at_own - at_start
    result.attribution[index, : where.width] = summed
    result.difference[index] = difference
    result.gap[index] = (summed.sum(1) - difference).abs() / difference.abs().clamp_min(_LEAST_DIFFERENCE)
    result.points[index] = points


def _mean_slope(
    work: _Work, index: Int[Tensor, " row"], start: Float[Tensor, "row pos d"], own: Float[Tensor, "row pos d"],
    points: int,
) -> Float[Tensor, "row pos d"]:  # fmt: skip
    """The objective's gradient by the embeddings, averaged over the path by Gauss-Legendre quadrature."""
    nodes, weights = (torch.from_numpy(part / 2).to(own.device, torch.float32) for part in leggauss(points))
    slope, way = torch.zeros_like(own, dtype=torch.float32), (own - start).float()
    for chunk in torch.arange(points).split(_POINTS_AT_ONCE):
        share, weight = (part[chunk, None, None, None] for part in (nodes + 0.5, weights))
        embedded = (start.float() + share * way).to(own.dtype).flatten(0, 1).requires_grad_()
        with torch.enable_grad():
            value = _objective(work, embedded, index.repeat(len(chunk)))
            (gradient,) = torch.autograd.grad(value.sum(), embedded)
        slope += (gradient.float().unflatten(0, (len(chunk), -1)) * weight).sum(0)
    return slope


def _objective(work: _Work, embedded: Float[Tensor, "row pos d"], index: Int[Tensor, " row"]) -> Float[Tensor, " row"]:
    """Mean log-probability of each row's content tokens, from these embeddings in place of its tokens'."""
    where = Geometry(work.targets, index, None, work.opened.wrapper.device)
    job = Job(work.targets.rows, (), (), None, None)
    forward = live(work.opened, work.opener, job, where, (), embedded[:, : where.width]).forward
    return row_mean(forward.logprob[forward.key], forward.row[forward.key], where.n)


def _mean_embedding(wrapper: Wrapper) -> Float[Tensor, " d"]:
    """The mean of all embeddings, in float32."""
    with torch.no_grad():
        total = sum(
            wrapper.embed(ids.to(wrapper.device)[None]).float().sum((0, 1))
            for ids in torch.arange(wrapper.vocab_size).split(_AT_ONCE)
        )
    assert isinstance(total, Tensor)
    return total / wrapper.vocab_size
