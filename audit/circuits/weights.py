"""What base's gradients say of every item: does it share directions, and weights that matter, with what must stay?

cos(g_i, g_r) is the quantity that gradient-based unlearning trades on; Fisher overlap sum min(I_i, I_r) / sum I_i is
the one that selective synaptic dampening (arXiv 2308.07707) selects weights by. I is a squared gradient of one row.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from numpy import ndarray
from torch import Tensor

from audit.bench import Bench
from audit.bench.shapes import Rows
from audit.circuits.objectives import key_loss
from audit.nouns import Checkpoint

Gradient = dict[str, Tensor]
Tick = Callable[[int, int], None]


class Shared(NamedTuple):
    """Per forget row: cosine with the mean retained gradient, overlap with its Fisher information. Per retained row:
    cosine with the mean forget gradient."""

    gradient_cosine: Float[ndarray, " row"]
    fisher_overlap: Float[ndarray, " row"]
    retained_cosine: Float[ndarray, " retained"]


class _Mean(NamedTuple):
    gradient: Gradient
    fisher: Gradient


def of_row(bench: Bench, ckpt: Checkpoint, rows: Rows, n: int) -> Gradient:
    """The gradient of one row's content loss by parameter; tied parameters once."""
    found = bench.gradients(ckpt, rows.take(torch.tensor([n])), "params", key_loss).at_params
    once = {id(g): name for name, g in found.items()}
    return {name: found[name] for name in once.values()}


def shared(bench: Bench, ckpt: Checkpoint, forget: Rows, retain: Rows, tick: Tick | None = None) -> Shared:
    """One forward and backward a row, twice over the retained and the forget rows; nothing is kept but the means."""
    done, total = 0, 2 * (len(forget) + len(retain))

    def each(rows: Rows) -> "list[Callable[[], Gradient]]":
        def at(n: int) -> Callable[[], Gradient]:
            def compute() -> Gradient:
                nonlocal done
                done += 1
                if tick is not None:
                    tick(done, total)
                return of_row(bench, ckpt, rows, n)

            return compute

        return [at(n) for n in range(len(rows))]

    kept, unwanted = _mean(each(retain)), _mean(each(forget))
    by_forget = [
        (one := compute(), _cosine(one, kept.gradient), _overlap(one, kept.fisher))[1:] for compute in each(forget)
    ]
    by_retain = [_cosine(compute(), unwanted.gradient) for compute in each(retain)]
    cosine, overlap = np.array(by_forget, dtype=np.float64).T
    return Shared(cosine, overlap, np.array(by_retain, dtype=np.float64))


def _mean(rows: "list[Callable[[], Gradient]]") -> _Mean:
    gradient, fisher = Gradient(), Gradient()
    for compute in rows:
        for name, g in compute().items():
            gradient[name] = gradient[name] + g if name in gradient else g.clone()
            fisher[name] = fisher[name] + g.square() if name in fisher else g.square()
    return _Mean(*({name: total / len(rows) for name, total in some.items()} for some in (gradient, fisher)))


def _dot(a: Gradient, b: Gradient) -> float:
    return float(sum(torch.dot(a[name].flatten(), b[name].flatten()).double() for name in a))


def _cosine(a: Gradient, b: Gradient) -> float:
    return _dot(a, b) / max(_dot(a, a) ** 0.5 * _dot(b, b) ** 0.5, 1e-30)


def _overlap(g: Gradient, fisher: Gradient) -> float:
    own = sum(float(x.square().sum()) for x in g.values())
    both = sum(float(torch.minimum(x.square(), fisher[name]).sum()) for name, x in g.items())
    return both / max(own, 1e-30)
