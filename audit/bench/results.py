"""What comes out of the bench: passes, gradients, and what an objective sees."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import NamedTuple

from jaxtyping import Bool, Float, Int
from torch import Tensor

from audit.case import Rows
from audit.schema import Read, Site


@dataclass(frozen=True, eq=False)
class Pass:
    """What a pass read, in input row order; ``reads[read]`` is a CPU tensor in float32 unless the bench says otherwise.

    ``state``: last/mean [row d], all [row pos d] (padding zero), answer/key packed [token d] in ``Rows.targets`` order,
    patches of an image [row patch d];
    ``pattern`` sites are [row head pos pos]. ``norm``: [row pos head]; ``received``: [row head pos].
    ``logprob``/``rank``: packed [token] (nats; 0 = best).
    """

    rows: Rows
    reads: Mapping[Read, Tensor]

    def __getitem__(self, read: Read) -> Tensor:
        return self.reads[read]


class Grads(NamedTuple):
    """Gradients of the summed objective; value is the objective per row."""

    value: Float[Tensor, " row"]
    at_sites: Mapping[Site, Float[Tensor, "row pos d"]]
    at_inputs: Float[Tensor, "row pos d"] | None
    at_params: Mapping[str, Tensor]
    at_pixels: Float[Tensor, "row channel *pixel"] | None = None


class Forward(NamedTuple):
    """What an objective sees of a pass with gradients: log-probabilities of the targets, and the logits behind them.

    logprob, row: [token] over the answer's tokens (key tokens where ``key`` is true); logits [token vocab].
    states: what ``at_sites`` asked for, all positions; ``states[site][row, at]`` are those that predict the targets.
    ``at`` is None where packed states were scored, which have no place in a row. ``drawn``: in a descent, which of the
    rows of its side the batch holds.
    """

    logprob: Float[Tensor, " token"]
    logits: Float[Tensor, "token vocab"]
    target: Int[Tensor, " token"]
    row: Int[Tensor, " token"]
    key: Bool[Tensor, " token"]
    states: Mapping[Site, Float[Tensor, "row pos d"]]
    at: Int[Tensor, " token"] | None = None
    drawn: Int[Tensor, " batch"] | None = None


RowObjective = Callable[[Forward], Float[Tensor, " row"]]
"""One number a row; the bench sums them, so that rows stay independent."""
WeightStream = Iterator[tuple[str, tuple[Tensor, ...]]]
