"""States of heads as one number a head and position, reduced where they are computed: norms, attention received."""

from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor

from audit.bench.layout import Geometry, Targets
from audit.bench.reads.readout import Readout, of_head, tapped
from audit.bench.reads.scores import normal
from audit.case import Rows
from audit.schema import AuditError, Read
from audit.wrappers import Tap, Wrapper


class ReducedRead(Readout):
    """Norms of heads' vectors, and what positions receive of attention: nothing of size positions x positions and
    nothing of a head's width leaves the device. At padding they are zero."""

    def __init__(self, rows: Rows, targets: Targets, reads: Sequence[Read]) -> None:
        super().__init__(rows, targets, reads)
        self.scores: list[Tensor | None] = [None] * len(reads)

    def taps(self, wrapper: Wrapper, where: Geometry, bias: Tensor | None) -> list[Tap]:
        if where.prefix is not None:
            raise AuditError("heads are not reduced beside virtual tokens", "read them in a pass without Prefix")
        for read in self.reads:
            if not wrapper.tower(read.site.tower).by_token:
                raise AuditError(f"{read.site} has no positions of tokens", "reduce heads of a tower of tokens")
        return [Tap(tapped(read.site), self._visit(i, read, where)) for i, read in enumerate(self.reads)]

    def _visit(self, i: int, read: Read, where: Geometry) -> Callable[[Tensor], None]:
        rows = slice(None) if where.index is None else where.index
        lengths = where.lengths.to(where.device)

        def visit(state: Tensor) -> None:
            state = of_head(state, read.site)
            reduced = received(state, lengths) if read.reduce == "received" else state.float().norm(dim=-1)
            scores = self.scores[i]
            position = -1 if read.reduce == "received" else 1
            if scores is None:
                shape = list(reduced.shape)
                shape[0], shape[position] = self.rows.ids.shape
                scores = self.scores[i] = normal(*shape)
            scores.narrow(position, 0, where.width)[rows] = reduced.cpu()

        return visit

    def close(self) -> None:
        """Nothing is left on the device."""

    def results(self) -> list[Tensor]:
        masked: list[Tensor] = []
        for read, scores in zip(self.reads, self.scores, strict=True):
            assert scores is not None, "every tap of a whole pass is called"
            padding = ~self.rows.mask
            if read.reduce == "received" and scores.ndim == 3:
                padding = padding[:, None]
            elif scores.ndim == 3:
                padding = padding[..., None]
            masked.append(scores.masked_fill_(padding, 0.0))
        return masked


def received(
    pattern: Float[Tensor, "row *head pos column"], lengths: Int[Tensor, " row"]
) -> Float[Tensor, "row *head pos"]:
    """What each position is paid by itself and the positions after it, on average: Gu et al.'s importance score of a
    token (arXiv 2410.10781, section 3.1), in float32.

    ``lengths``: real positions of each row, the first ones. Columns beyond the positions (a learned sink, which is no
    token) are left out: of softmax over tokens alone the scores times their numbers of queries sum up to the length.
    """
    n = pattern.shape[-2]
    position = torch.arange(n, device=pattern.device)
    real = (position < lengths[:, None]).float()
    queries = real.view(len(real), *[1] * (pattern.ndim - 3), n)
    total = torch.einsum("r...q,r...qk->r...k", queries.expand(pattern.shape[:-1]), pattern[..., :n].float())
    followers = (lengths[:, None] - position).clamp_min(1).float()
    return total / followers.view(queries.shape)
