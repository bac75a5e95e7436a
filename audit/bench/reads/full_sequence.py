"""States at all positions, kept padded."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from audit.bench.layout import Geometry, Targets
from audit.bench.reads.readout import Readout, of_head, tapped
from audit.bench.reads.scores import normal
from audit.bench.reads.vocabulary_sweep import biased, rows_at_once
from audit.case import Rows
from audit.schema import AuditError, Read
from audit.wrappers import Tap, Wrapper


class SequenceRead(Readout):
    """States at all positions, in token order, padding zero; written to the host as the forward goes."""

    def __init__(self, rows: Rows, targets: Targets, reads: Sequence[Read]) -> None:
        super().__init__(rows, targets, reads)
        self.kept: list[Tensor | None] = [None] * len(reads)

    def taps(self, wrapper: Wrapper, where: Geometry, bias: Tensor | None) -> list[Tap]:
        return [Tap(tapped(r.site), self._visit(i, r, wrapper, where, bias)) for i, r in enumerate(self.reads)]

    def _visit(
        self, i: int, read: Read, wrapper: Wrapper, where: Geometry, bias: Tensor | None
    ) -> Callable[[Tensor], None]:
        site, n, width = read.site, len(self.rows), where.width
        rows = slice(None) if where.index is None else where.index
        if site.part == "pattern" and where.prefix is not None:
            raise AuditError("a pattern cannot be read beside virtual tokens", "read it in a pass without Prefix")

        def visit(state: Tensor) -> None:
            state = of_head(state, site)
            if site.part == "pattern":
                state = state[..., : state.shape[-2]]  # a learned sink has a column after those of the tokens
            if site.part == "logits":
                size = max(1, rows_at_once(wrapper) // state.shape[1])
                state = torch.cat(
                    [biased(wrapper.head(part), bias).to("cpu", torch.float32) for part in state.split(size)]
                )
            if where.prefix is not None:
                packed, real = state.flatten(0, 1)[where.flat("all").to(state.device)], where.mask.to(state.device)
                state = state.new_zeros(where.n, width, *state.shape[2:])
                state[real] = packed
            kept = self.kept[i]
            if kept is None:
                trail = (*state.shape[1:-2], self.rows.ids.shape[1], self.rows.ids.shape[1])
                shape = trail if site.part == "pattern" else (self.rows.ids.shape[1], *state.shape[2:])
                kept = self.kept[i] = normal(n, *shape)
            region = kept[..., :width, :width] if site.part == "pattern" else kept[:, :width]
            region[rows] = state.to("cpu", torch.float32)

        return visit

    def close(self) -> None:
        """Nothing is left on the device."""

    def results(self) -> list[Tensor]:
        found = []
        for read, kept in zip(self.reads, self.kept, strict=True):
            assert kept is not None, "every tap of a whole pass is called"
            padding = ~self.rows.mask
            if read.site.part == "pattern":
                padding = padding.view(len(padding), *[1] * (kept.ndim - 3), -1)
                kept.masked_fill_(padding[..., None, :], 0.0)
            found.append(kept.masked_fill_(padding.view(*padding.shape, *[1] * (kept.ndim - padding.ndim)), 0.0))
        return found
