"""Label swaps within pairs: the exact randomisation of a read-out that tells memorised texts from their alternates.

Under the null a text and its alternate are exchangeable, so that the two labels of a unit (all pairs of one person) may
be swapped. Because out-of-group scores are linear in the labels (:mod:`audit.readouts.grouped_ridge`), a unit's margin
under swaps s is s_u (Q s)_u with one small matrix Q [unit unit]: thousands of refits cost one product. Where a read-out
has two narrow factors so has Q, and where it has lists of neighbours Q is sparse: the cost is linear in the units.
What is tested is separability, not memory: a text and its alternate may differ in register.
"""

from collections.abc import Callable, Iterator
from functools import partial
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from audit.readouts.grouped_ridge import ENTRIES_AT_ONCE, Dense, Factored, Neighbours, Readout, Smoother

Signs = Float[Tensor, "unit draw"]
Margins = Float[Tensor, "*site unit draw"]
UnitMargins = Float[Tensor, "unit draw"]
Form = Callable[[Signs], UnitMargins]
"""What swaps make of every unit's margin, less its own sign: s -> Q s."""
TIE = 1e-9
"""Statistics closer than this are tied, so that rounding never turns a tie into a rejection."""


class UnderSwaps(NamedTuple):
    """One read-out's statistics under every swap, the true labelling first."""

    concordance: Float[Tensor, " draw"]
    studentised: Float[Tensor, " draw"]


class SwapTest(NamedTuple):
    """A family of sites under one set of swaps: a statistic a site, the largest under every swap, and its p."""

    statistic: Float[Tensor, " site"]
    null_largest: Float[Tensor, " draw"]
    p: float


def swaps(units: int, draws: int, seed: int) -> Signs:
    """Signs +-1 of every unit: the true labelling first, then all 2^units where they are at most ``draws``, else draws.

    Enumerated swaps include the true labelling; it is not counted twice (:func:`p_value`).
    """
    truth = torch.ones(units, 1, dtype=torch.float64)
    if units < 40 and 2**units <= draws:
        codes = torch.arange(1, 2**units)
        bits = (codes[None] >> torch.arange(units)[:, None]) & 1
        return torch.cat([truth, 1.0 - 2.0 * bits.double()], 1)
    generator = torch.Generator().manual_seed(seed)
    drawn = torch.randint(0, 2, (units, draws), generator=generator).double()
    return torch.cat([truth, 1 - 2 * drawn], 1)


def pair_form(
    smoother: Smoother, label: Float[Tensor, " row"], unit: Int[Tensor, " row"]
) -> Float[Tensor, "*site unit unit"]:
    """Q: what unit v's labels contribute to unit u's margin (mean score of its +1 rows less that of its -1 rows).

    ``label`` is +1 for a memorised text and -1 for its alternate; units are numbered from 0 without gaps.
    """
    side, unit = label.to(smoother), unit.to(smoother.device)
    rows, units = torch.arange(len(side), device=smoother.device), int(unit.max()) + 1
    theirs, mine = (torch.zeros(units, len(side), dtype=smoother.dtype, device=smoother.device) for _ in range(2))
    theirs[unit, rows], mine[unit, rows] = side, _contrast(side, unit)
    return mine @ smoother @ theirs.T


def unit_form(readout: Readout, label: Float[Tensor, " row"], unit: Int[Tensor, " row"]) -> Form:
    """:func:`pair_form` of a read-out as what it does to signs. Units are the read-out's groups.

    Another kind of read-out than those of :mod:`audit.readouts.grouped_ridge` is asked for its scores, block by block.
    """
    if isinstance(readout, Dense):
        return pair_form(readout.matrix, label, unit).__matmul__
    weight = _contrast(label, unit)
    if isinstance(readout, Factored):
        mine, theirs = _unit_factors(readout, weight, label, unit)
        if len(mine) <= 2 * mine.shape[1]:
            return (mine @ theirs.T).fill_diagonal_(0.0).__matmul__
        own = (mine * theirs).sum(1, keepdim=True)
        return lambda signs: mine @ (theirs.T @ signs) - own * signs
    if isinstance(readout, Neighbours):
        each = readout.nearest.shape[1]
        place = torch.stack([unit.repeat_interleave(each), unit[readout.nearest.flatten()]])
        share = weight.repeat_interleave(each) * label[readout.nearest.flatten()] / each
        units = int(unit.max()) + 1
        sparse = torch.sparse_coo_tensor(place, share, (units, units), check_invariants=True).coalesce()
        return lambda signs: torch.sparse.mm(sparse, signs)
    return partial(_relabelled, readout, label, unit)


def _unit_factors(
    readout: Factored, weight: Float[Tensor, " row"], label: Float[Tensor, " row"], unit: Int[Tensor, " row"]
) -> tuple[Float[Tensor, "unit k"], Float[Tensor, "unit k"]]:
    """Both factors of Q: what a unit's rows say of it, and what its labels say to the others."""
    mine = readout.columns.new_zeros(int(unit.max()) + 1, readout.columns.shape[1])
    theirs = torch.zeros_like(mine)
    for index, left, right in readout.factors():
        mine.index_add_(0, unit[index[:, 0]], (weight[index][:, None] @ left)[:, 0])
        theirs.index_add_(0, unit[index[:, 0]], (label[index][:, None] @ right)[:, 0])
    return mine, theirs


def _relabelled(readout: Readout, label: Float[Tensor, " row"], unit: Int[Tensor, " row"], signs: Signs) -> UnitMargins:
    weight = _contrast(label, unit)[:, None]
    blocks = (readout.scores(label[:, None] * block[unit]) for block in _blocks(signs, len(label)))
    return torch.cat([_summed(scores * weight, unit) for scores in blocks], 1)


def _blocks(signs: Signs, rows: int) -> tuple[Tensor, ...]:
    """Some swaps at a time."""
    return signs.split(max(1, ENTRIES_AT_ONCE // rows), 1)


def _contrast(label: Float[Tensor, " row"], unit: Int[Tensor, " row"]) -> Float[Tensor, " row"]:
    """What a row weighs in its unit's margin: +1 over the unit's rows of label +1, or -1 over those of -1."""
    up = label > 0
    counts = torch.stack([torch.bincount(unit[mine], minlength=int(unit.max()) + 1) for mine in (~up, up)])
    return label / counts[up.long(), unit]


def _summed(rows: Float[Tensor, "row ..."], unit: Int[Tensor, " row"]) -> Float[Tensor, "unit ..."]:
    return rows.new_zeros(int(unit.max()) + 1, *rows.shape[1:]).index_add(0, unit, rows)


def margins(form: Float[Tensor, "*site unit unit"], signs: Signs) -> Margins:
    """Every unit's margin under every swap, relative to the swapped labels; rounding dust is zero."""
    s = signs.to(form)
    return _without_dust(s * (form @ s))


def _without_dust(signed: Margins) -> Margins:
    return torch.where(signed.abs() > TIE, signed, 0.0)


def under_swaps(form: Form, signs: Signs) -> UnderSwaps:
    """Concordance and the studentised mean margin under every swap, block by block."""
    statistics = [UnderSwaps(concordance(m), studentised(m)) for m in _margins_under(form, signs)]
    return UnderSwaps(*(torch.cat(parts) for parts in zip(*statistics, strict=True)))


def studentised_under_swaps(form: Form, signs: Signs) -> Float[Tensor, " draw"]:
    """The studentised mean margin alone."""
    return torch.cat([studentised(m) for m in _margins_under(form, signs)])


def _margins_under(form: Form, signs: Signs) -> Iterator[Margins]:
    """Every unit's margin, some swaps at a time."""
    return (_without_dust(s * form(s)) for s in _blocks(signs, len(signs)))


def concordance(m: Margins) -> Float[Tensor, "*site draw"]:
    """Share of units whose margin is positive; a tie counts half."""
    return (m > 0).to(m.dtype).mean(-2) + 0.5 * (m == 0).to(m.dtype).mean(-2)


def studentised(m: Margins) -> Float[Tensor, "*site draw"]:
    """Mean margin over its standard error over units: the continuous statistic."""
    units = m.shape[-2]
    spread = m.std(-2) / units**0.5
    return m.mean(-2) / spread.clamp_min(torch.finfo(m.dtype).tiny)


def p_value(null: Float[Tensor, " draw"], observed: float) -> float:
    """(1 + #{null >= observed}) / (1 + draws); ``null`` is without the true labelling."""
    return float(1 + (null >= observed - TIE * max(1.0, abs(observed))).sum()) / (1 + len(null))


def max_t(statistic: Float[Tensor, "site draw"], family: Bool[Tensor, " site"] | None = None) -> SwapTest:
    """The largest of a family of sites against its own largest under every swap; column 0 is the true labelling."""
    chosen = statistic if family is None else statistic[family]
    largest = chosen.amax(0)
    return SwapTest(chosen[:, 0], largest[1:], p_value(largest[1:], float(largest[0])))


def sign_free(a: Float[Tensor, "site draw"]) -> Float[Tensor, "site draw"]:
    """|A - 1/2|: readable either way round. Far below 1/2 is an inverted read-out, never erasure."""
    return (a - 0.5).abs()


def minimum_detectable(a: Float[Tensor, "site draw"], alpha: float = 0.05, power: float = 0.8) -> float:
    """The smallest true accuracy that max-T over these sites finds with this power, from the simulated null.

    The critical value is the null's 1 - alpha quantile of max |A - 1/2|; the spread of A about a true accuracy is the
    null's, which correlation of the folds makes wider than binomial, scaled by sqrt(4 a (1 - a)). At most 1.
    """
    null = a[:, 1:]
    bar = float(torch.quantile(sign_free(null).amax(0), 1 - alpha))
    spread = float(null.std(-1).median())
    z = float(torch.distributions.Normal(0.0, 1.0).icdf(torch.tensor(power)))
    grid = torch.linspace(0.5, 1.0, 1001, dtype=torch.float64)
    reach = grid - z * spread * (4 * grid * (1 - grid)).clamp_min(0).sqrt()
    enough = grid[reach >= 0.5 + bar]
    return float(enough[0]) if len(enough) else 1.0
