"""States pooled as they stream by: the last real token, a mean, or the positions that predict the answer."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from audit.bench.layout import Geometry, Targets
from audit.bench.reads.readout import Readout
from audit.case import Rows
from audit.schema import Positions, Read
from audit.wrappers import Tap, Wrapper


class PooledRead(Readout):
    """Pooled states of one tower's width at several of its sites: one buffer, one copy to the host a batch."""

    def __init__(self, rows: Rows, targets: Targets, reads: Sequence[Read], wrapper: Wrapper) -> None:
        super().__init__(rows, targets, reads)
        self.at: Positions = reads[0].at
        self.width = wrapper.tower(reads[0].site.tower).d_model
        self.kept = torch.empty(len(reads), self.size(self.at), self.width)
        self.views = self.kept.unbind(0)
        self.direct = wrapper.device.type == "cpu" and wrapper.dtype == torch.float32

    def taps(self, wrapper: Wrapper, where: Geometry, bias: Tensor | None) -> list[Tap]:
        self.at_place = self.place(where)
        in_place = self.direct and self.at_place is None
        wide = wrapper.dtype != torch.float32
        if self.at == "mean":
            n, make = where.n, _mean_wide if wide else _mean
            index = where.weights
        else:
            index = where.flat(self.at)
            n, make = len(index), _gather
        dtype = torch.float32 if self.at == "mean" else wrapper.dtype
        if in_place:
            self.buffer, outs = self.kept, self.views
        else:
            self.buffer = torch.empty(len(self.reads), n, self.width, dtype=dtype, device=wrapper.device)
            outs = self.buffer.unbind(0)
        return [Tap(r.site, make(index, out)) for r, out in zip(self.reads, outs, strict=True)]

    def close(self) -> None:
        if self.buffer is not self.kept:
            new = self.buffer.float().cpu()
            if self.at_place is None:
                self.kept.copy_(new)
            else:
                self.kept[:, self.at_place] = new
        del self.buffer

    def results(self) -> list[Tensor]:
        return list(self.views)


def _gather(index: Tensor, out: Tensor) -> Callable[[Tensor], None]:
    def visit(state: Tensor) -> None:
        torch.index_select(state.flatten(0, 1), 0, index, out=out)

    return visit


def _mean(weights: Tensor, out: Tensor) -> Callable[[Tensor], None]:
    out = out.unsqueeze(1)

    def visit(state: Tensor) -> None:
        torch.bmm(weights, state, out=out)

    return visit


def _mean_wide(weights: Tensor, out: Tensor) -> Callable[[Tensor], None]:
    """Half-precision states: the mask is exact in any dtype, the sum and the division are in float32."""
    weights = weights.squeeze(1)
    scale, real = weights.amax(1, keepdim=True), (weights > 0).unsqueeze(-1)

    def visit(state: Tensor) -> None:
        torch.sum(state * real, 1, dtype=torch.float32, out=out)
        out.mul_(scale)

    return visit
