"""Exact edge patching between two runs."""

import json
from dataclasses import dataclass

from jaxtyping import Bool
from torch import Tensor

from audit.bench.edges.block_patching import edge_taps
from audit.bench.layout import Geometry
from audit.bench.results import Pass
from audit.bench.writes.write import Write, content_of
from audit.wrappers import Tap, Wrapper


@dataclass(frozen=True, eq=False)
class Edges(Write):
    """Exact edge patching: each reader sees the kept writers of this run and the other run's writers for the rest.

    Writers are embed, attn_0, mlp_0, attn_1, ...; readers attn_0, mlp_0, ..., final. keep: Bool [writer reader];
    ``other`` holds ``embed`` and every block's ``attn_out``/``mlp_out`` at all positions. A matrix of the shape of
    :class:`~audit.bench.Graph` cuts between heads instead (also [row writer reader], one a row); then ``other``
    holds ``embed`` and every block's ``z``/``mlp_out``.
    """

    keep: Bool[Tensor, "*row writer reader"]
    other: "Pass"

    def key(self) -> tuple[str, ...]:
        others = sorted((str(r.site), r.at, content_of(t)) for r, t in self.other.reads.items())
        return content_of(self.keep), json.dumps(others)

    def bites(self) -> bool:
        return not bool(self.keep.all())

    def taps(self, wrapper: Wrapper, where: Geometry, given: Tensor | None) -> list[Tap]:
        return edge_taps(self.keep, self.other, wrapper, where)
