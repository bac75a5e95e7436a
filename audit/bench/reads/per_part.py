"""Parts that are no residual state: queries, keys, values, patterns, head outputs."""

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


class PartRead(Readout):
    """Pooled states of any other width (heads, hidden units, logits), kept read by read."""

    def __init__(self, rows: Rows, targets: Targets, reads: Sequence[Read]) -> None:
        super().__init__(rows, targets, reads)
        self.kept: list[Tensor | None] = [None] * len(reads)

    def taps(self, wrapper: Wrapper, where: Geometry, bias: Tensor | None) -> list[Tap]:
        self.at_place = self.place(where)
        return [Tap(tapped(r.site), self._visit(i, r, wrapper, where, bias)) for i, r in enumerate(self.reads)]

    def _visit(
        self, i: int, read: Read, wrapper: Wrapper, where: Geometry, bias: Tensor | None
    ) -> Callable[[Tensor], None]:
        if read.site.part == "pattern":
            raise AuditError(f"a pattern is read at all positions, not at {read.at!r}", "use Read(at='all')")
        logits = read.site.part == "logits"

        def visit(state: Tensor) -> None:
            state = of_head(state, read.site)
            if read.at == "mean":
                size = max(1, rows_at_once(wrapper) // state.shape[1]) if logits else len(state)
                pooled = torch.cat([
                    torch.einsum("rxp,rp...->r...", w, (biased(wrapper.head(s), bias) if logits else s).float())
                    for w, s in zip(where.weights.split(size), state.split(size), strict=True)
                ])  # fmt: skip
            else:
                pooled = state.flatten(0, 1)[where.flat(read.at)]
                pooled = biased(wrapper.head(pooled), bias) if logits else pooled
            kept = self.kept[i]
            if kept is None:
                kept = self.kept[i] = normal(self.size(read.at), *pooled.shape[1:])
            kept[slice(None) if self.at_place is None else self.at_place] = pooled.float().cpu()

        return visit

    def close(self) -> None:
        """Nothing is left on the device."""

    def results(self) -> list[Tensor]:
        return [kept if kept is not None else normal(0) for kept in self.kept]
