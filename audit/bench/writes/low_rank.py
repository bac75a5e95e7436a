"""An affine low-rank edit of a state."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from audit.bench.layout import Geometry
from audit.bench.writes.write import Write, content_of, content_of_rows, site_of, tap_at
from audit.schema import AuditError, Site
from audit.wrappers import Tap, Wrapper


@dataclass(frozen=True, eq=False)
class LowRank(Write):
    """Affine low-rank edit of a state: h <- h + (h @ v.T) @ u + b; ``rows`` limits it to those rows (None: all).

    On disk ``<site>.u``, ``<site>.v``, ``<site>.b`` per site.
    """

    site: Site
    u: Float[Tensor, "k d"]
    v: Float[Tensor, "k d"]
    b: Float[Tensor, " d"]
    rows: Bool[Tensor, " row"] | None = None

    def key(self) -> tuple[str, ...]:
        u, v, b = (content_of(tensor) for tensor in (self.u, self.v, self.b))
        return str(self.site), u, v, b, content_of_rows(self.rows)

    def bites(self) -> bool:
        product = bool(((self.u != 0).any(1) & (self.v != 0).any(1)).any())
        return (product or bool((self.b != 0).any())) and (self.rows is None or bool(self.rows.any()))

    def taps(self, wrapper: Wrapper, where: Geometry, given: Tensor | None) -> list[Tap]:
        u, v, b = (x.to(wrapper.device, wrapper.dtype) for x in (self.u, self.v, self.b))
        chosen = None if self.rows is None else where.of_rows(self.rows).to(wrapper.device)

        def visit(state: Tensor) -> Tensor:
            new = state + (state @ v.T) @ u + b
            if chosen is None:
                return new
            return torch.where(chosen.view(-1, *[1] * (state.ndim - 1)), new, state)

        return [tap_at(self.site, visit)]

    def to_delta(self) -> dict[str, Tensor]:
        if self.rows is not None or self.site.head is not None:
            raise AuditError("a stored low-rank edit acts on all rows and whole states", "leave out `rows` and `head`")
        return {f"{self.site}.{letter}": t for letter, t in (("u", self.u), ("v", self.v), ("b", self.b))}

    @classmethod
    def from_delta(cls, delta: Mapping[str, Tensor]) -> tuple[Self, ...]:
        sites = sorted({name.rpartition(".")[0] for name in delta})
        if set(delta) != {f"{site}.{letter}" for site in sites for letter in "uvb"}:
            raise ValueError(f"should hold u, v and b for each site, and holds {sorted(delta)}")
        return tuple(cls(site_of(name), *(delta[f"{name}.{letter}"] for letter in "uvb")) for name in sites)
