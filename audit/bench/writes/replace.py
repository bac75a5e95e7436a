"""Replace a state on the way."""

from dataclasses import dataclass

from torch import Tensor

from audit.bench.layout import Geometry
from audit.bench.places import check_position, places
from audit.bench.writes.write import OtherState, Write, check_positions, content_of, tap_at
from audit.schema import AuditError, Checkpoint, Positions, Site
from audit.wrappers import Tap, Wrapper


@dataclass(frozen=True, eq=False)
class Replace(Write):
    """Replace the state at ``site`` by another model's (or a given tensor), at the given positions only.

    A tensor is [row pos d] for ``all`` (and ``patches``), packed [token d] for ``answer``/``key``, [row d] for
    ``last``. Of a convolutional network's map, ``answer``, ``key`` and ``last`` are its mean over all positions: every
    position moves alike until that mean is the one given.
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
        spots = places(where, wrapper, self.site)
        check_position(self.site, spots.tower, self.positions)
        if given is None:
            assert isinstance(self.source, Tensor), "a checkpoint's state is computed before its batch"
            given = self._packed(self.source, where, spots.tower.by_token)
        values = given.to(wrapper.device)

        def visit(state: Tensor) -> Tensor:
            return spots.put(state, self.positions, values)

        return [tap_at(self.site, visit)]

    def _packed(self, tensor: Tensor, where: Geometry, by_token: bool) -> Tensor:
        """This batch's part of a replacement, one entry a flat position."""
        at = self.positions
        if at in ("answer", "key"):
            self._fits(tensor, where.targets.total(at))
            place = where.targets.cut(at, where.index).place
            return tensor if place is None else tensor[place.to(tensor.device)]
        self._fits(tensor, len(where.rows))
        tensor = where.of_rows(tensor)
        return tensor[:, : where.width][where.mask.to(tensor.device)] if at == "all" and by_token else tensor

    def _fits(self, tensor: Tensor, entries: int) -> None:
        if len(tensor) != entries:
            raise AuditError(
                f"a replacement of length {len(tensor)} for {entries} entries at {self.positions!r}",
                "give [row pos d] for all or patches, [token d] packed for answer or key, [row d] for last",
            )
