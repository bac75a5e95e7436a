"""Length-sorted batches to a token budget, and halving when memory runs out.

Batches depend on the unit of work alone (lengths and budget), never on what ran before, so that the same rows meet the
same kernels every time.
"""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor

from audit.schema import AuditError, ExitCode

_CPU = torch.device("cpu")
FORWARD_TOKENS = 128
"""What one more forward pass costs beside its tokens, in tokens, where a processor's core computes: 115 at width 64, 27
at width 256, less above."""
_CACHED_TOKENS = 2048
"""Of so many tokens a core still finds a block's states in its cache: 16,384 at once take a fifth to a quarter longer a
token at widths 64 to 512 (measured on one core)."""
_DEVICE_FORWARD_TOKENS = 4096
"""The same where a device waits for work: a pass of few tokens takes as long as one of many."""


def padded_tokens(budget: int, device: torch.device | str = _CPU) -> int:
    """How many padded tokens go forward at once: what memory is meant for, no more than a processor's cache is good
    for."""
    return min(budget, _CACHED_TOKENS) if torch.device(device).type == "cpu" else budget


def batches(
    lengths: Int[Tensor, " row"], width: int, budget: int, device: torch.device = _CPU
) -> list[Int[Tensor, " _"] | None]:
    """Row indices batch by batch, longest first; ``[None]`` where one batch of all rows in their order will do.

    ``width`` is the longest length, virtual tokens not counted. No batch has more than ``budget`` padded tokens, or
    more than :func:`padded_tokens` says. Rows are cut apart by length where that saves more padding than a pass costs.
    """
    n, most = len(lengths), padded_tokens(budget, device)
    if n < 2:
        return [None]
    ordered, order = torch.sort(lengths, descending=True, stable=True)
    parts = _cut(ordered.tolist(), most, FORWARD_TOKENS if device.type == "cpu" else _DEVICE_FORWARD_TOKENS)
    if len(parts) == 1:
        return [None]
    return [order[first:end].sort().values for first, end in parts]


def _cut(lengths: Sequence[int], most: int, forward: int) -> list[tuple[int, int]]:
    """Rows from the longest to the shortest, cut where padded tokens and forward passes together cost least."""
    levels = [n for n in range(len(lengths)) if not n or lengths[n] != lengths[n - 1]]
    starts = np.array([*levels, len(lengths)])
    best, cut = np.zeros(len(starts)), np.zeros(len(starts), dtype=int)
    for n in range(len(levels) - 1, -1, -1):
        longest = max(lengths[levels[n]], 1)
        rows = starts[n + 1 :] - starts[n]
        cost = longest * rows + forward * np.ceil(rows / max(most // longest, 1)) + best[n + 1 :]
        cut[n] = n + 1 + int(cost.argmin())
        best[n] = cost[cut[n] - n - 1]
    parts, n = list[tuple[int, int]](), 0
    while n < len(levels):
        first, end = levels[n], int(starts[cut[n]])
        size = max(most // max(lengths[first], 1), 1)
        parts += [(row, min(row + size, end)) for row in range(first, end, size)]
        n = int(cut[n])
    return parts


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
