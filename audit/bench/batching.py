"""Length-sorted batches to a token budget, and halving when memory runs out.

Batches depend on the unit of work alone (lengths and budget), never on what ran before, so that the same rows meet the
same kernels every time.
"""

from collections.abc import Callable

import torch
from jaxtyping import Int
from torch import Tensor

from audit.schema import AuditError, ExitCode

_WASTE = 0.1
_FILL = 0.7
_ENOUGH_TOKENS = 1024


def batches(lengths: Int[Tensor, " row"], width: int, budget: int) -> list[Int[Tensor, " _"] | None]:
    """Row indices batch by batch, longest first; ``[None]`` where one batch of all rows in their order will do.

    ``width`` is the longest length, virtual tokens not counted. A batch is closed when its padded size would exceed
    ``budget`` tokens, or when it is large enough to keep a processor busy and the next row is much shorter.
    """
    n = len(lengths)
    if n * width <= budget and (n == 1 or sum(lengths.tolist()) >= (1 - _WASTE) * n * width):
        return [None]
    ordered, order = torch.sort(lengths, descending=True, stable=True)
    chunks: list[Int[Tensor, " _"] | None] = []
    first = 0
    sizes = ordered.tolist()
    for i in range(1, n + 1):
        padded = (i - first) * sizes[first]
        full = i == n or padded + sizes[first] > budget
        if full or (padded >= _ENOUGH_TOKENS and sizes[i] < _FILL * sizes[first]):
            chunks.append(order[first:i].sort().values)
            first = i
    return chunks


def is_out_of_memory(error: RuntimeError) -> bool:
    """Whether a device ran out of memory, by whatever name its back end gives it."""
    return isinstance(error, torch.OutOfMemoryError) or "out of memory" in str(error).lower()


def halving(run: Callable[[Tensor | None], None], index: Int[Tensor, " row"] | None, n: int) -> int:
    """Run one batch; when memory runs out run its halves instead. Returns the number of halvings.

    Raises AuditError when a single row does not fit.
    """
    try:
        run(index)
        return 0
    except RuntimeError as error:
        if not is_out_of_memory(error):
            raise
        rows = torch.arange(n) if index is None else index
        if len(rows) < 2:
            raise AuditError(
                "one row does not fit into the device's memory",
                "use a smaller dtype, a larger device, or shorter items",
                ExitCode.INTEGRITY,
            ) from error
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    half = len(rows) // 2
    return 1 + halving(run, rows[:half], n) + halving(run, rows[half:], n)
