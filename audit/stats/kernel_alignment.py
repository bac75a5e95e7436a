"""How alike two models' states of the same items are, without bias of few items, and where a third lies between two.

Centred kernel alignment (CKA) of linear kernels, HSIC(X, Y)/sqrt(HSIC(X, X) HSIC(Y, Y)), with the unbiased estimate
HSIC_1 of each: the plain estimate is near 1 for any two models where items are fewer than dimensions. Nothing of size
item x item is built where there are more items than dimensions: sums over rows say everything, and they add up.
Sources: HSIC_1, Song et al. 2012 (JMLR 13, equation 5); CKA, Kornblith et al. 2019 (arXiv 1905.00414); with HSIC_1,
Nguyen, Raghu and Kornblith 2021 (arXiv 2010.15327); the jackknife of U-statistics, Arvesen 1969.
"""

from typing import NamedTuple

import numpy as np
import scipy
from jaxtyping import Float, Int
from numpy import ndarray

from audit.schema import Interval

FEWEST = 4
"""HSIC_1 is defined from so many items on."""
_TAIL = 0.025


class Sums(NamedTuple):
    """What HSIC_1 needs of rows x_i and y_i: sums over rows, which add up over parts of them.

    ``cross`` of x_i y_i'; ``x`` and ``y`` of the rows; ``x_by_y`` of x_i |y_i|^2 and ``y_by_x`` of y_i |x_i|^2; and of
    |x_i|^2, of |y_i|^2 and of their products.
    """

    n: int
    cross: Float[ndarray, "dx dy"]
    x: Float[ndarray, " dx"]
    y: Float[ndarray, " dy"]
    x_by_y: Float[ndarray, " dx"]
    y_by_x: Float[ndarray, " dy"]
    x_size: float
    y_size: float
    sizes: float

    def plus(self, other: "Sums") -> "Sums":
        """The sums over these rows and others."""
        return Sums(
            self.n + other.n, self.cross + other.cross, self.x + other.x, self.y + other.y,
            self.x_by_y + other.x_by_y, self.y_by_x + other.y_by_x, self.x_size + other.x_size,
            self.y_size + other.y_size, self.sizes + other.sizes,
        )  # fmt: skip


def sums(x: Float[ndarray, "row dx"], y: Float[ndarray, "row dy"]) -> Sums:
    """The sums over some rows: O(row dx dy)."""
    a, b = (x * x).sum(1), (y * y).sum(1)
    return Sums(
        len(x), x.T @ y, x.sum(0), y.sum(0), x.T @ b, y.T @ a, float(a.sum()), float(b.sum()), float(a @ b)
    )  # fmt: skip


def hsic(of: Sums) -> float:
    """HSIC_1 of linear kernels; at least :data:`FEWEST` rows.

    With K and L the kernels less their diagonals: [tr KL + 1'K1 1'L1/((n-1)(n-2)) - 2/(n-2) 1'KL1]/(n(n-3)).
    """
    both = float((of.cross**2).sum()) - of.sizes
    mixed = float(of.x @ of.cross @ of.y - of.x @ of.x_by_y - of.y @ of.y_by_x) + of.sizes
    terms = (of.n, both, float(of.x @ of.x) - of.x_size, float(of.y @ of.y) - of.y_size, mixed)
    return float(_hsic(*(np.array([term], dtype=np.float64) for term in terms))[0])


def _hsic(
    n: Float[ndarray, " set"],
    both: Float[ndarray, " set"],
    x: Float[ndarray, " set"],
    y: Float[ndarray, " set"],
    mixed: Float[ndarray, " set"],
) -> Float[ndarray, " set"]:
    """HSIC_1 of several sets of rows: n, tr KL, 1'K1, 1'L1 and 1'KL1 of each."""
    return (both + x * y / ((n - 1) * (n - 2)) - 2 * mixed / (n - 2)) / (n * (n - 3))


class Kernel(NamedTuple):
    """States of one model as a linear kernel, and HSIC_1 of it with itself: of all rows, and without each group."""

    states: Float[ndarray, "row k"]
    group: Int[ndarray, " row"]
    own: float
    own_without: Float[ndarray, " group"]


def kernel(states: Float[ndarray, "row d"], group: Int[ndarray, " row"]) -> Kernel:
    """The kernel up to its scale and a shift, which leave CKA as it is: mean 0, mean square 1, and no more columns than
    rows. ``group`` numbers the rows' groups from 0 without gaps."""
    x = np.asarray(states, dtype=np.float64)
    x = x - x.mean(0)
    size = float(np.sqrt((x * x).mean())) if x.size else 0.0
    x = x / size if size > 0 else x
    x = x if x.shape[1] <= len(x) else np.asarray(np.linalg.qr(x.T, mode="r")).T
    return Kernel(x, group, *_every(x, x, group))


class Alignment(NamedTuple):
    """CKA of two models' states, and of what is left of them without each group (NaN where it is not defined)."""

    value: float
    without: Float[ndarray, " group"]

    @property
    def ci95(self) -> Interval | None:
        """Delete-a-group jackknife, Student's t; None where a value is not defined."""
        return jackknifed(self.value, self.without)


def alignment(first: Kernel, second: Kernel) -> Alignment:
    """CKA of two kernels of the same rows: NaN where a side does not vary, exactly 1 where the states are equal."""
    if np.array_equal(first.states, second.states):
        both, without = first.own, first.own_without
    else:
        both, without = _every(first.states, second.states, first.group)
    value = _ratio(np.asarray(both), np.asarray(first.own), np.asarray(second.own))
    return Alignment(float(value), _ratio(without, first.own_without, second.own_without))


def _ratio(both: ndarray, x: ndarray, y: ndarray) -> ndarray:
    defined = (x > 0) & (y > 0)
    return np.where(defined, both / np.sqrt(np.where(defined, x * y, 1.0)), np.nan)


def _every(x: ndarray, y: ndarray, group: ndarray) -> tuple[float, Float[ndarray, " group"]]:
    """HSIC_1 of all rows, and of the rows without each group."""
    total = sums(x, y)
    groups = int(group.max()) + 1 if len(group) else 0
    count = np.bincount(group, minlength=groups)
    a, b = (x * x).sum(1), (y * y).sum(1)

    def by_group(rows: ndarray) -> ndarray:
        out = np.zeros((groups, *rows.shape[1:]))
        np.add.at(out, group, rows)
        return out

    u, w = total.x - by_group(x), total.y - by_group(y)
    inside = _within(x, y, group, count)
    sizes = total.sizes - by_group(a * b)
    both = (total.cross**2).sum() - 2 * by_group(((x @ total.cross) * y).sum(1)) + inside - sizes
    ends = ((u @ total.cross) * w).sum(1) - by_group((u[group] * x).sum(1) * (w[group] * y).sum(1))
    x_by_y, y_by_x = total.x_by_y - by_group(x * b[:, None]), total.y_by_x - by_group(y * a[:, None])
    mixed = ends - (u * x_by_y).sum(1) - (w * y_by_x).sum(1) + sizes
    of_x = (u * u).sum(1) - (total.x_size - by_group(a))
    of_y = (w * w).sum(1) - (total.y_size - by_group(b))
    n = (len(x) - count).astype(np.float64)
    value = hsic(total) if len(x) >= FEWEST else float("nan")
    enough = n >= FEWEST
    return value, np.where(enough, _hsic(np.where(enough, n, FEWEST), both, of_x, of_y, mixed), np.nan)


def _within(x: ndarray, y: ndarray, group: ndarray, count: ndarray) -> Float[ndarray, " group"]:
    """Of each group sum of (x_i x_j)(y_i y_j) over its rows, itself included: |sum of x_i y_i'|^2."""
    order, first = np.argsort(group, kind="stable"), np.cumsum(count) - count
    out = np.zeros(len(count))
    for size in np.unique(count[count > 0]).tolist():
        chosen = np.flatnonzero(count == size)
        rows = order[first[chosen][:, None] + np.arange(size)]
        of_x, of_y = (np.einsum("gid,gjd->gij", part[rows], part[rows]) for part in (x, y))
        out[chosen] = (of_x * of_y).sum((1, 2))
    return out


def jackknifed(value: float, without: Float[ndarray, " group"]) -> Interval | None:
    """Nominal 95 % interval of a statistic of groups from its values without each of them; None below two groups, or
    where one of these is not defined."""
    groups = len(without)
    if groups < 2 or not np.isfinite(without).all() or not np.isfinite(value):
        return None
    error = float(np.sqrt((groups - 1) / groups * ((without - without.mean()) ** 2).sum()))
    reach = -float(scipy.special.stdtrit(groups - 1, _TAIL)) * error
    return Interval(lo=value - reach, hi=value + reach)


class Position(NamedTuple):
    """Where a model lies on the way from base (0) to a model that never knew (1), clipped to it."""

    value: float
    ci95: Interval


def position(suspect: Alignment, base: Alignment, other: Alignment) -> Position | None:
    """(suspect - base)/(other - base) of alignments with one reference, ``other`` that of a second one.

    None where two references are not clearly more alike (95 %) than base and a reference: there is nothing between.
    """
    room = jackknifed(other.value - base.value, other.without - base.without)
    if room is None or room.lo <= 0:
        return None
    value = (suspect.value - base.value) / (other.value - base.value)
    ends = jackknifed(value, (suspect.without - base.without) / (other.without - base.without))
    if ends is None:
        return None
    lo, hi, at = (float(np.clip(end, 0.0, 1.0)) for end in (ends.lo, ends.hi, value))
    return Position(at, Interval(lo=lo, hi=hi))
