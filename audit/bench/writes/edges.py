"""Exact edge patching between two runs."""

from dataclasses import dataclass

from jaxtyping import Bool
from torch import Tensor

from audit.bench.results import Pass


@dataclass(frozen=True, eq=False)
class Edges:
    """Exact edge patching: each reader sees the kept writers of this run and the other run's for the rest.

    Writers are embed, attn_0, mlp_0, attn_1, ...; readers attn_0, mlp_0, ..., final. keep: Bool [writer reader];
    ``other`` holds ``embed`` and every block's ``attn_out``/``mlp_out`` at all positions. A matrix of the shape of
    :class:`~audit.bench.Graph` cuts between heads instead (also [row writer reader], one a row); then ``other``
    holds ``embed`` and every block's ``z``/``mlp_out``.
    """

    keep: Bool[Tensor, "*row writer reader"]
    other: "Pass"
