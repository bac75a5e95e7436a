"""What a low-rank change of value vectors does, as a write: concepts are read in an MLP's hidden units."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from audit.bench.layout import Geometry
from audit.bench.writes.write import Write, content_of, content_of_rows, tap_at
from audit.schema import AuditError, Site
from audit.wrappers import NativeWrapper, Tap, Wrapper


@dataclass(frozen=True, eq=False)
class Redirect(Write):
    """Adds (m . reads) writes to what one block's MLP writes, m its hidden units: the change dV = reads^T writes.

    With ``gate`` (one threshold a concept) a concept is written whole where m . reads exceeds it, and not at all
    elsewhere, which no change of weights does. ``rows`` limits it to those rows (None: all), so that one resident model
    serves several edits in one batch. On disk ``<site>.reads``, ``.writes``, ``.gate`` (empty: none) per block.
    """

    block: int
    reads: Float[Tensor, "concept unit"]
    writes: Float[Tensor, "concept d"]
    gate: Float[Tensor, " concept"] | None = None
    rows: Bool[Tensor, " row"] | None = None

    @property
    def site(self) -> Site:
        """Where it writes."""
        return Site(part="mlp_out", block=self.block)

    def key(self) -> tuple[str, ...]:
        gate = "" if self.gate is None else content_of(self.gate)
        return str(self.block), content_of(self.reads), content_of(self.writes), gate, content_of_rows(self.rows)

    def bites(self) -> bool:
        writes = (self.writes != 0).any(1)
        acting = writes if self.gate is not None else writes & (self.reads != 0).any(1)
        return bool(acting.any()) and (self.rows is None or bool(self.rows.any()))

    def taps(self, wrapper: Wrapper, where: Geometry, given: Tensor | None) -> list[Tap]:
        _check_plain(wrapper)
        reads, writes = (x.to(wrapper.device, wrapper.dtype) for x in (self.reads, self.writes))
        gate = None if self.gate is None else self.gate.to(wrapper.device, wrapper.dtype)
        chosen = None if self.rows is None else where.of_rows(self.rows).to(wrapper.device)
        sums: list[Tensor] = []

        def read(hidden: Tensor) -> None:
            by = hidden @ reads.T
            sums.append(by if gate is None else (by > gate).to(by.dtype))

        def write(state: Tensor) -> Tensor:
            added = sums.pop() @ writes
            return state + (added if chosen is None else added * chosen.view(-1, 1, 1))

        return [tap_at(Site(part="mlp_hidden", block=self.block), read), tap_at(self.site, write)]

    def to_delta(self) -> dict[str, Tensor]:
        if self.rows is not None:
            raise AuditError("a stored redirect acts on all rows", "leave out `rows`")
        gate = torch.zeros(0) if self.gate is None else self.gate
        arrays = {"reads": self.reads, "writes": self.writes, "gate": gate}
        return {f"{self.block}.{name}": tensor.float().contiguous() for name, tensor in arrays.items()}

    @classmethod
    def from_delta(cls, delta: Mapping[str, Tensor]) -> tuple[Self, ...]:
        blocks = sorted({name.partition(".")[0] for name in delta})
        wanted = {f"{block}.{name}" for block in blocks for name in ("reads", "writes", "gate")}
        if set(delta) != wanted or not all(block.isdecimal() for block in blocks):
            raise ValueError(f"should hold reads, writes and gate for each block, and holds {sorted(delta)}")
        return tuple(
            cls(int(block), delta[f"{block}.reads"], delta[f"{block}.writes"], delta[f"{block}.gate"] if
                delta[f"{block}.gate"].numel() else None)
            for block in sorted(blocks, key=int)
        )  # fmt: skip


def _check_plain(wrapper: Wrapper) -> None:
    """AuditError where what an MLP writes is not added to the stream as it is."""
    if not isinstance(wrapper, NativeWrapper) or wrapper.anatomy.mlp is None or not _is_plain(wrapper):
        raise AuditError(
            f"a redirect is served where an MLP's own output is added to the stream, and {wrapper.name} behind the "
            f"{wrapper.backend} backend has something in between",
            "use the native backend, or fold the edit into the weights",
        )


def _is_plain(wrapper: NativeWrapper) -> bool:
    """Is it the MLP's own output, or that with some of it dropped in training?"""
    for number, block in enumerate(wrapper.blocks):
        parts = wrapper.anatomy.at(number)
        if parts.mlp_out is None:
            return False
        if parts.mlp_out != parts.mlp and not isinstance(block.get_submodule(parts.mlp_out), nn.Dropout):
            return False
    return True
