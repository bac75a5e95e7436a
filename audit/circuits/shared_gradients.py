"""What base's gradients say of every item: does it share directions, and weights that matter, with what must stay?

cos(g_i, g_r) is the quantity that gradient-based unlearning trades on; Fisher overlap sum min(I_i, I_r) / sum I_i is
the one that selective synaptic dampening (arXiv 2308.07707) selects weights by. I is a squared gradient of one row.
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from numpy import ndarray
from torch import Tensor

from audit.bench import Bench
from audit.case import Rows
from audit.circuits.objectives import key_loss
from audit.schema import Checkpoint

Gradient = dict[str, Tensor]


class Shared(NamedTuple):
    """Per forget row: cosine with the mean retained gradient, overlap with its Fisher information, the gradient's norm,
    and ``first_step``, its product with the mean forget gradient: how fast the row's loss rises, to first order, when
    all are unlearned at once. Per retained row: cosine with the mean forget gradient."""

    gradient_cosine: Float[ndarray, " row"]
    fisher_overlap: Float[ndarray, " row"]
    gradient_norm: Float[ndarray, " row"]
    first_step: Float[ndarray, " row"]
    retained_cosine: Float[ndarray, " retained"]


class _Mean(NamedTuple):
    gradient: Gradient
    fisher: Gradient


def of_row(bench: Bench, ckpt: Checkpoint, rows: Rows, n: int) -> Gradient:
    """The gradient of one row's content loss by parameter; tied parameters once."""
    gradient = bench.gradients(ckpt, rows.take(torch.tensor([n])), "params", key_loss).at_params
    once = {id(g): name for name, g in gradient.items()}
    return {name: gradient[name] for name in once.values()}


def shared(bench: Bench, ckpt: Checkpoint, forget: Rows, retain: Rows) -> Shared:
    """One forward and backward a row, twice over the retained and the forget rows; nothing is kept but the means."""

    def each(rows: Rows) -> Iterator[Gradient]:
        return (of_row(bench, ckpt, rows, n) for n in range(len(rows)))

    retained, unwanted = _mean(each(retain)), _mean(each(forget))
    by_forget = [
        (_cosine(g, retained.gradient), _overlap(g, retained.fisher), _dot(g, g) ** 0.5, _dot(g, unwanted.gradient))
        for g in each(forget)
    ]
    by_retain = [_cosine(gradient, unwanted.gradient) for gradient in each(retain)]
    cosine, overlap, norm, first = np.array(by_forget, dtype=np.float64).T
    return Shared(cosine, overlap, norm, first, np.array(by_retain, dtype=np.float64))


def _mean(rows: Iterator[Gradient]) -> _Mean:
    gradient, fisher, n = Gradient(), Gradient(), 0
    for n, row_gradient in enumerate(rows, 1):  # noqa: B007 - the last n is the count
        for name, g in row_gradient.items():
            gradient[name] = gradient[name] + g if name in gradient else g.clone()
            fisher[name] = fisher[name] + g.square() if name in fisher else g.square()
    return _Mean(*({name: total / n for name, total in sums.items()} for sums in (gradient, fisher)))


def _dot(a: Gradient, b: Gradient) -> float:
    return float(sum(torch.dot(a[name].flatten(), b[name].flatten()).double() for name in a))


def _cosine(a: Gradient, b: Gradient) -> float:
    return _dot(a, b) / max(_dot(a, a) ** 0.5 * _dot(b, b) ** 0.5, 1e-30)


def _overlap(g: Gradient, fisher: Gradient) -> float:
    own = sum(float(x.square().sum()) for x in g.values())
    both = sum(float(torch.minimum(x.square(), fisher[name]).sum()) for name, x in g.items())
    return both / max(own, 1e-30)
