"""States of a tower of an image: the one that the head reads, means, patches, or all of them; no row is padded."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from audit.bench.layout import Geometry, Targets
from audit.bench.places import Places, places
from audit.bench.reads.readout import Readout, of_head, tapped
from audit.bench.reads.scores import normal
from audit.bench.reads.vocabulary_sweep import biased
from audit.case import Rows
from audit.schema import Read
from audit.wrappers import Tap, Wrapper


class ImageRead(Readout):
    """States of a tower whose positions are patches, read by read: blocks of one model may differ in their widths."""

    def __init__(self, rows: Rows, targets: Targets, reads: Sequence[Read]) -> None:
        super().__init__(rows, targets, reads)
        self.kept: list[Tensor | None] = [None] * len(reads)

    def taps(self, wrapper: Wrapper, where: Geometry, bias: Tensor | None) -> list[Tap]:
        self.at_place = self.place(where)
        visits = [self._visit(i, read, places(where, wrapper, read.site)) for i, read in enumerate(self.reads)]
        self.score = lambda state: biased(wrapper.head(state), bias)
        return [Tap(tapped(read.site), visit) for read, visit in zip(self.reads, visits, strict=True)]

    def _visit(self, i: int, read: Read, place: Places) -> Callable[[Tensor], None]:
        site, at = read.site, read.at

        def visit(state: Tensor) -> None:
            state = of_head(state, site)
            taken = state if site.part == "pattern" else place.take(state, at)
            if site.part == "logits":
                taken = self.score(taken)
            buffer = self.kept[i]
            if buffer is None:
                buffer = self.kept[i] = normal(self.size(at), *taken.shape[1:])
            buffer[slice(None) if self.at_place is None else self.at_place] = taken.to("cpu", torch.float32)

        return visit

    def close(self) -> None:
        """Nothing is left on the device."""

    def results(self) -> list[Tensor]:
        return [buffer if buffer is not None else normal(0) for buffer in self.kept]
