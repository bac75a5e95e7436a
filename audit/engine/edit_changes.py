"""What an edit changed: which tensors, by how much, or which states its hooks write."""

import math
from typing import NamedTuple

from torch import Tensor

from audit.bench import Bench
from audit.checkpoints import delta_of
from audit.schema import Checkpoint, Listing

SHOWN = 12


class Change(NamedTuple):
    """How many tensors of how many, the norm of the change over that of the changed weights (None for a hook), and
    the tensors that changed most."""

    tensors: int
    of_tensors: int
    norm: float | None
    listing: Listing


def change_of(bench: Bench, parent: Checkpoint, edited: Checkpoint) -> Change:
    """What the last edit of ``edited`` did to ``parent``."""
    record, live = edited.edits[-1], bench.open(parent).parameters()
    delta = delta_of(edited, record)
    every = len({id(parameter) for parameter in live.values()})
    if record.is_hook:
        return Change(0, every, None, _hooks(record.plays, delta))
    sizes = {name: _squares(tensor, live[name]) for name, tensor in delta.items()}
    moved, before = (sum(size[n] for size in sizes.values()) for n in (0, 1))
    ranked = sorted(sizes.items(), key=lambda pair: (-_relative(*pair[1]), pair[0]))
    rows = tuple((name, _rounded(_relative(*size)), _rounded(math.sqrt(size[0]))) for name, size in ranked[:SHOWN])
    columns = ("tensor", "change over its norm", "norm of the change")
    listing = Listing(title="tensors that changed, the most first", columns=columns, rows=rows, of=len(sizes))
    return Change(len(sizes), every, _relative(moved, before), listing)


def _squares(after: Tensor, before: Tensor) -> tuple[float, float]:
    """The squared norms of the change and of what it changed."""
    old = before.detach().double().cpu()
    return float((after.double().cpu() - old).square().sum()), float(old.square().sum())


def _relative(moved: float, before: float) -> float:
    """One norm over another; a tensor of zeros that changed counts as wholly changed."""
    return math.sqrt(moved / before) if before > 0 else float(moved > 0)


def _hooks(plays: str, delta: dict[str, Tensor]) -> Listing:
    rows = tuple((name, str(tuple(t.shape)), _rounded(float(t.double().norm()))) for name, t in delta.items())
    return Listing(
        title=f"arrays of a hook ({plays}): no weight changes", columns=("array", "shape", "norm"),
        rows=rows[:SHOWN], of=len(rows),
    )  # fmt: skip


def _rounded(value: float) -> float:
    return float(f"{value:.4g}")
