"""What an edit changed: which tensors, by how much, or which states its hooks write."""

import math
from collections.abc import Mapping
from typing import NamedTuple

from torch import Tensor

from audit.bench import Bench
from audit.checkpoints import delta_of
from audit.schema import Checkpoint, Listing
from audit.wrappers import block_weights

SHOWN = 12


class Change(NamedTuple):
    """How many tensors of how many, the norm of the change over that of the changed weights (None for a hook), the
    tensors that changed most, and which share of the entries of the blocks' weights differs (None: there are none)."""

    tensors: int
    of_tensors: int
    norm: float | None
    listing: Listing
    of_blocks: float | None


def change_of(bench: Bench, parent: Checkpoint, edited: Checkpoint) -> Change:
    """What the last edit of ``edited`` did to ``parent``."""
    record, live = edited.edits[-1], bench.open(parent).parameters()
    delta = delta_of(edited, record)
    every = len({id(parameter) for parameter in live.values()})
    if record.is_hook:
        return Change(0, every, None, _hooks(record.plays, delta), None)
    sizes = {name: _squares(tensor, live[name]) for name, tensor in delta.items()}
    moved, before = (sum(size[n] for size in sizes.values()) for n in (0, 1))
    ranked = sorted(sizes.items(), key=lambda pair: (-_relative(*pair[1]), pair[0]))
    rows = tuple((name, _rounded(_relative(*size)), _rounded(math.sqrt(size[0]))) for name, size in ranked[:SHOWN])
    columns = ("tensor", "change over its norm", "norm of the change")
    listing = Listing(title="tensors that changed, the most first", columns=columns, rows=rows, of=len(sizes))
    return Change(len(sizes), every, _relative(moved, before), listing, _of_blocks(delta, live))


def _of_blocks(delta: Mapping[str, Tensor], live: Mapping[str, Tensor]) -> float | None:
    """Which share of the entries of the blocks' weights differs: experts to which no row was sent keep theirs."""
    weights = block_weights(live)
    total = sum(weight.numel() for weight in weights.values())
    differ = sum(int((delta[name].to(w) != w).sum()) for name, w in weights.items() if name in delta)
    return differ / total if total else None


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
