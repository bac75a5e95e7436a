"""Hold columns of a state at given values."""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional

from audit.bench.layout import Geometry
from audit.bench.places import check_position, places
from audit.bench.writes.write import OtherState, Write, check_positions, content_of, tap_at
from audit.schema import AuditError, Checkpoint, Positions, Site
from audit.wrappers import Tap, Wrapper


@dataclass(frozen=True, eq=False)
class Clamp(Write):
    """Set some columns of a state to another model's (or to given values), row by row, at the given positions only.

    ``columns``: every row's own choice, -1 for none. A tensor is [row pos column] for ``all``, packed [token column]
    for ``answer``/``key``, [row column] for ``last``: the values of the row's columns in their order.
    """

    site: Site
    columns: Int[Tensor, "row column"]
    source: Checkpoint | Float[Tensor, "*entry value"]
    positions: Positions = "key"

    def key(self) -> tuple[str, ...]:
        source = self.source.key if isinstance(self.source, Checkpoint) else content_of(self.source)
        return str(self.site), self.positions, content_of(self.columns), source

    def bites(self) -> bool:
        return bool((self.columns >= 0).any())

    def other_state(self) -> OtherState | None:
        return OtherState(self.source, self.site, self.positions) if isinstance(self.source, Checkpoint) else None

    def taps(self, wrapper: Wrapper, where: Geometry, given: Tensor | None) -> list[Tap]:
        check_positions(self.site, self.positions, "clamped")
        spots = places(where, wrapper, self.site)
        check_position(self.site, spots.tower, self.positions)
        if not spots.tower.by_token:
            raise AuditError(f"{self.site} is no state of tokens, whose columns are clamped", "clamp a language model")
        self._fits(self.columns, len(where.rows), "rows")
        row = self._rows(where)
        columns = where.of_rows(self.columns).to(wrapper.device)[row.to(wrapper.device)]
        chosen = columns >= 0
        if given is None:
            assert isinstance(self.source, Tensor), "a checkpoint's state is computed before its batch"
            values = self._packed(self.source, where).to(wrapper.device)
        else:
            values = given.to(wrapper.device).gather(1, columns.clamp_min(0))

        def visit(state: Tensor) -> Tensor:
            packed = spots.take(state, self.positions)
            # What is not chosen goes to a spare column, which is cut off again.
            into = torch.where(chosen, columns, packed.shape[1])
            clamped = functional.pad(packed, (0, 1)).scatter(1, into, values.to(packed.dtype))
            return spots.put(state, self.positions, clamped[:, :-1])

        return [tap_at(self.site, visit)]

    def _rows(self, where: Geometry) -> Int[Tensor, " token"]:
        """The row in the batch of every packed entry."""
        if self.positions == "last":
            return torch.arange(where.n)
        if self.positions == "all":
            return where.mask.nonzero(as_tuple=True)[0].cpu()
        return where.targets.cut(self.positions, where.index).row

    def _packed(self, tensor: Tensor, where: Geometry) -> Float[Tensor, "token column"]:
        """This batch's values, one entry a packed state."""
        at = self.positions
        if at in ("answer", "key"):
            self._fits(tensor, where.targets.total(at), f"tokens at {at!r}")
            place = where.targets.cut(at, where.index).place
            return tensor if place is None else tensor[place.to(tensor.device)]
        self._fits(tensor, len(where.rows), "rows")
        tensor = where.of_rows(tensor)
        return tensor[:, : where.width][where.mask.to(tensor.device)] if at == "all" else tensor

    def _fits(self, tensor: Tensor, entries: int, of: str) -> None:
        if len(tensor) != entries or tensor.shape[-1] != self.columns.shape[-1]:
            raise AuditError(
                f"a clamp of shape {tuple(tensor.shape)} for {entries} {of} and {self.columns.shape[-1]} columns",
                "give [row column] columns and as many values: [row pos column] for all, packed [token column] for "
                "answer or key, [row column] for last",
            )
