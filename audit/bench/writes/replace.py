"""Replace a state on the way."""

from dataclasses import dataclass

from torch import Tensor

from audit.bench.layout import Geometry
from audit.bench.writes.write import OtherState, Write, check_positions, content_of, tap_at
from audit.schema import AuditError, Checkpoint, Positions, Site
from audit.wrappers import Tap, Wrapper


@dataclass(frozen=True, eq=False)
class Replace(Write):
    """Replace the state at ``site`` by another model's (or a given tensor), at the given positions only.

    A tensor is [row pos d] for ``all``, packed [token d] for ``answer``/``key``, [row d] for ``last``.
    """

    site: Site
    source: Checkpoint | Tensor
    positions: Positions = "key"

    def key(self) -> tuple[str, ...]:
        source = self.source.key if isinstance(self.source, Checkpoint) else content_of(self.source)
        return str(self.site), self.positions, source

    def bites(self) -> bool:
        return isinstance(self.source, Checkpoint) or self.source.numel() > 0

    def other_state(self) -> OtherState | None:
        return OtherState(self.source, self.site, self.positions) if isinstance(self.source, Checkpoint) else None

    def taps(self, wrapper: Wrapper, where: Geometry, given: Tensor | None) -> list[Tap]:
        check_positions(self.site, self.positions, "replaced")
        if given is None:
            assert isinstance(self.source, Tensor), "a checkpoint's state is computed before its batch"
            given = self._packed(self.source, where)
        values, index = given.to(wrapper.device), where.flat(self.positions)

        def visit(state: Tensor) -> Tensor:
            return state.flatten(0, 1).index_copy(0, index, values.to(state.dtype)).view(state.shape)

        return [tap_at(self.site, visit)]

    def _packed(self, tensor: Tensor, where: Geometry) -> Tensor:
        """This batch's part of a replacement, one entry a flat position."""
        at = self.positions
        if at in ("answer", "key"):
            self._fits(tensor, where.targets.total(at))
            place = where.targets.cut(at, where.index).place
            return tensor if place is None else tensor[place.to(tensor.device)]
        self._fits(tensor, len(where.rows))
        tensor = where.of_rows(tensor)
        return tensor[:, : where.width][where.mask.to(tensor.device)] if at == "all" else tensor

    def _fits(self, tensor: Tensor, entries: int) -> None:
        if len(tensor) != entries:
            raise AuditError(
                f"a replacement of length {len(tensor)} for {entries} entries at {self.positions!r}",
                "give [row pos d] for all, [token d] packed for answer or key, [row d] for last",
            )
