"""Add vectors to the first states of every row."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from audit.bench.layout import Geometry
from audit.bench.places import places
from audit.bench.writes.write import Write, content_of, tap_at
from audit.schema import AuditError, Site
from audit.wrappers import Tap, Wrapper


@dataclass(frozen=True, eq=False)
class Shift(Write):
    """Add ``delta`` to the states at the positions ``first``, ``first`` + 1, ... of every row's prompt, the same for
    all rows; virtual tokens are not counted. A prompt that ends earlier takes the vectors it has positions for."""

    site: Site
    delta: Float[Tensor, "pos d"]
    first: int = 1

    def key(self) -> tuple[str, ...]:
        return str(self.site), content_of(self.delta), str(self.first)

    def bites(self) -> bool:
        return bool((self.delta != 0).any())

    def taps(self, wrapper: Wrapper, where: Geometry, given: Tensor | None) -> list[Tap]:
        if not places(where, wrapper, self.site).tower.by_token or self.site.part == "pattern":
            raise AuditError(
                f"{self.site} is no state of tokens, to whose positions something is added", "choose another"
            )
        flat, nth = first_positions(where, self.first, len(self.delta))
        flat, added = flat.to(where.device), self.delta.to(wrapper.device)[nth.to(wrapper.device)]

        def visit(state: Tensor) -> Tensor:
            moved = state.flatten(0, 1).index_add(0, flat, added.to(state.dtype).view(-1, *state.shape[2:]))
            return moved.view(state.shape)

        return [tap_at(self.site, visit)]


def first_positions(where: Geometry, first: int, n: int) -> tuple[Tensor, Tensor]:
    """The flat places of ``n`` positions of every prompt of a batch, from ``first`` on, and which of them each is."""
    ends = where.of_rows(where.rows.answer_spans[:, 0])
    row, nth = (first + torch.arange(n) < ends[:, None]).nonzero(as_tuple=True)
    return row * where.total + where.place(row, first + nth), nth
