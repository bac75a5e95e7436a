"""What one checkpoint's weights differ from another's by, matrix by matrix, without building a model.

Memory holds one tensor of both and their difference. Each file is read once. A difference is compared in the coarser of
the two stored types, so that a model that was only cast to another type has none. Of a large matrix the largest
singular values come from a randomised range finder (Halko, Martinsson and Tropp 2011, arXiv 0909.4061, algorithms 4.1
and 5.1): they are lower bounds, and close ones where few directions hold the difference. Small matrices, and those that
one direction explains, are decomposed in full.

A stored type rounds: what is left of a difference of low rank is then a floor of noise. It counts as of rank r if what
r directions leave is no more than what rounding base plus those directions leaves, and if rounding them gives back at
least half of what changed.
"""

from collections.abc import Callable, Iterator
from typing import Final, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from audit.bench.displacements import Tensors, tensors_of
from audit.schema import Checkpoint
from audit.wrappers import Wrapper

RANK: Final = 16
"""So many singular values are looked for."""
OVERSAMPLED: Final = 8
"""More random directions than that: five to ten bring the error near the best (Halko et al., section 4.2)."""
SMALL: Final = 192
"""Matrices no wider than this are decomposed in full: that costs less than the random directions."""
EXPLAINED: Final = 1e-5
"""Less than this share of the squared difference is left by the arithmetic of float32 and by no edit."""
NOISE: Final = 2.0
"""So many times the expected energy of rounding is still rounding."""
_PROMISING: Final = 0.25
"""Where the directions hold less of the difference than this, rounding explains no rest: it is not computed."""
_NUMBERS: Final = 1 << 17
"""So many at a time: both parts and their difference stay in the cache."""


class Spectrum(NamedTuple):
    """The largest singular values of a difference, in descending order; all of them if ``exact``.

    ``rank``: so few directions explain the difference, up to rounding; None: more than :data:`RANK`, or a quarter of
    the matrix. ``spike``: the share of the squared difference in the first direction, rounding taken off.
    ``right`` and ``left`` are that direction: unit vectors on the columns and rows of the stored matrix.
    """

    values: tuple[float, ...]
    exact: bool
    rank: int | None
    spike: float
    right: Float[Tensor, " columns"]
    left: Float[Tensor, " rows"]


class Difference(NamedTuple):
    """One matrix, vector or expert of both checkpoints. ``expert``: its number where a tensor holds several.

    ``base_sq`` and ``moved_sq`` are squared norms of base's tensor and of the difference; ``spectrum`` is None for
    vectors and where nothing changed.
    """

    name: str
    expert: int | None
    shape: tuple[int, ...]
    dtype: str
    entries: int
    changed: int
    base_sq: float
    moved_sq: float
    spectrum: Spectrum | None


class Unpaired(NamedTuple):
    """A parameter that only one of the two has, or that they have in other shapes."""

    name: str


class _Pair(NamedTuple):
    """Both matrices as stored, and their difference in the exact type."""

    base: Tensor
    suspect: Tensor
    stored: torch.dtype
    moved: Float[Tensor, "rows columns"]


def differences(
    base: Checkpoint, suspect: Checkpoint, opener: Callable[[Checkpoint], Wrapper]
) -> Iterator[Difference | Unpaired]:
    """Every floating-point parameter of two checkpoints, in the model's order; experts one by one.

    A checkpoint whose weights exist only once its model is built (an adapter) is opened by ``opener``.
    """
    ours, theirs = tensors_of(base, opener), tensors_of(suspect, opener)
    names = dict.fromkeys((*ours.order, *theirs.order))
    for name in (name for name in names if name in ours.names or name in theirs.names):
        yield from _compared(name, ours, theirs)


def _compared(name: str, ours: Tensors, theirs: Tensors) -> Iterator[Difference | Unpaired]:
    if name not in ours or name not in theirs:
        yield Unpaired(name)
        return
    a, b = ours[name], theirs[name]
    if a.shape != b.shape:
        yield Unpaired(name)
    elif a.is_floating_point():
        if _is_stack(name, a):
            pairs = enumerate(zip(a, b, strict=True))
            yield from (difference(name, x, y, expert) for expert, (x, y) in pairs)
        else:
            yield difference(name, a, b)


def _is_stack(name: str, tensor: Tensor) -> bool:
    """Does the tensor hold a matrix for each of several experts (or heads), rather than one kernel?"""
    bare = name.rpartition(".")[2] != "weight" or ".experts." in f".{name}."
    return tensor.ndim == 3 and bare and min(tensor.shape[1:]) > 1


@torch.no_grad()
def difference(name: str, base: Tensor, suspect: Tensor, expert: int | None = None) -> Difference:
    """What two tensors of one shape differ by. All but the first axis count as columns."""
    stored = _coarser(base.dtype, suspect.dtype)
    exact = torch.float64 if stored == torch.float64 else torch.float32
    flat_base, flat_suspect = (x.reshape(len(x), -1) if x.ndim > 1 else x.reshape(1, -1) for x in (base, suspect))
    moved = torch.empty(flat_base.shape, dtype=exact)
    base_sq, moved_sq, changed = 0.0, 0.0, 0
    step = max(1, _NUMBERS // max(1, flat_base.shape[1]))
    for first in range(0, len(flat_base), step):
        span = slice(first, first + step)
        before = flat_base[span].to(stored).to(exact)
        torch.sub(flat_suspect[span].to(stored).to(exact), before, out=moved[span])
        part, before = moved[span].reshape(-1), before.reshape(-1)
        base_sq += float(torch.dot(before, before))
        moved_sq += float(torch.dot(part, part))
        changed += int(torch.count_nonzero(part))
    spectrum = None
    if changed and base.ndim > 1 and min(moved.shape) > 1:
        spectrum = _spectrum(_Pair(flat_base, flat_suspect, stored, moved), moved_sq)
    return Difference(
        name, expert, tuple(base.shape), str(stored).removeprefix("torch."), base.numel(), changed, base_sq, moved_sq,
        spectrum,
    )  # fmt: skip


def _coarser(a: torch.dtype, b: torch.dtype) -> torch.dtype:
    """The type of the two in which fewer numbers can be written."""
    return max((a, b), key=lambda dtype: torch.finfo(dtype).eps)


# ---- spectrum ---------------------------------------------------------------------------------------------------
class _Factors(NamedTuple):
    """moved = left @ diag(values) @ right, or the part of it that was looked for."""

    left: Float[Tensor, "rows r"]
    values: Float[Tensor, " r"]
    right: Float[Tensor, "r columns"]
    exact: bool

    def up_to(self, r: int) -> Float[Tensor, "rows columns"]:
        """The best approximation of rank r."""
        return (self.left[:, :r] * self.values[:r]) @ self.right[:r]


def _spectrum(pair: _Pair, moved_sq: float) -> Spectrum:
    small = min(pair.moved.shape) <= SMALL
    factors = _decomposed(pair.moved) if small else _sketched(pair.moved)
    rank, spike = _rank(pair, factors, moved_sq), _spike(pair, factors, moved_sq)
    values, exact = factors.values if small else factors.values[:RANK], small
    if rank == 1 and not small:
        values, exact = torch.linalg.svdvals(pair.moved), True
    return Spectrum(
        tuple(values.tolist()), exact, rank, spike, factors.right[0].float().clone(), factors.left[:, 0].float().clone()
    )


def _decomposed(moved: Float[Tensor, "rows columns"]) -> _Factors:
    left, values, right = torch.linalg.svd(moved.double(), full_matrices=False)
    return _Factors(left.to(moved.dtype), values.to(moved.dtype), right.to(moved.dtype), True)


def _sketched(moved: Float[Tensor, "rows columns"]) -> _Factors:
    """A basis of the range from random directions, and the exact decomposition of what it holds."""
    draws = torch.Generator().manual_seed(moved.shape[1])
    directions = torch.randn(moved.shape[1], RANK + OVERSAMPLED, generator=draws, dtype=moved.dtype)
    basis = torch.linalg.qr(moved @ directions)[0]
    inner, values, right = torch.linalg.svd(basis.T @ moved, full_matrices=False)
    return _Factors(basis @ inner, values, right, False)


def _rank(pair: _Pair, factors: _Factors, moved_sq: float) -> int | None:
    """How few directions explain the difference, if the singular values fall off there: no more than :data:`RANK`, and
    than a quarter of the matrix."""
    most = min(RANK, max(1, min(pair.moved.shape) // 4))
    sizes = factors.values[: most + 1].double()
    r = int((sizes[:-1] / sizes[1:].clamp_min(torch.finfo(torch.float64).tiny)).argmax()) + 1
    held = min(float(sizes[:r].square().sum()), moved_sq)
    rest = _unexplained(pair, factors, r, held, moved_sq)
    return r if rest <= EXPLAINED * moved_sq else None


def _spike(pair: _Pair, factors: _Factors, moved_sq: float) -> float:
    """The share of the squared difference in the first direction, of all that rounding does not explain."""
    first = min(float(factors.values[0].double().square()), moved_sq)
    return first / (first + _unexplained(pair, factors, 1, first, moved_sq))


def _unexplained(pair: _Pair, factors: _Factors, r: int, held: float, moved_sq: float) -> float:
    """What r directions leave of the squared difference, less what rounding them to the stored type leaves."""
    rest = moved_sq - held
    if rest <= EXPLAINED * moved_sq or held < _PROMISING * moved_sq:
        return max(rest, 0.0)
    noise, given_back = _rounding(pair, factors.up_to(r), moved_sq)
    return max(rest - NOISE * noise, 0.0) if given_back else rest


def _rounding(pair: _Pair, change: Float[Tensor, "rows columns"], moved_sq: float) -> tuple[float, bool]:
    """What is rounded off when base is changed so and stored; and does that give back half of the real change?"""
    exact = torch.float64 if pair.stored in (torch.float32, torch.float64) else torch.float32
    shifted = pair.base.to(pair.stored).to(exact) + change.to(exact)
    stored = shifted.to(pair.stored).to(exact)
    missed = float((stored - pair.suspect.to(pair.stored).to(exact)).square().sum())
    return float((stored - shifted).square().sum()), missed <= moved_sq / 2
