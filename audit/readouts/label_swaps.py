"""Label swaps within pairs: the exact randomisation of a read-out that tells memorised texts from their alternates.

Under the null a text and its alternate are exchangeable, so that the two labels of a unit (all pairs of one person) may
be swapped. Because out-of-group scores are linear in the labels (:mod:`audit.readouts.grouped_ridge`), a unit's margin
under swaps s is s_u (Q s)_u with one small matrix Q [site unit unit]: thousands of refits cost one product.
What is tested is separability, not memory: a text and its alternate may differ in register.
"""

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from audit.readouts.grouped_ridge import Smoother

Signs = Float[Tensor, "unit draw"]
Margins = Float[Tensor, "site unit draw"]
TIE = 1e-9
"""Statistics closer than this are tied, so that rounding never turns a tie into a rejection."""


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
) -> Float[Tensor, "site unit unit"]:
    """Q: what unit v's labels contribute to unit u's margin (mean score of its +1 rows less that of its -1 rows).

    ``label`` is +1 for a memorised text and -1 for its alternate; units are numbered from 0 without gaps.
    """
    side, unit = label.to(smoother), unit.to(smoother.device)
    units = int(unit.max()) + 1
    where = torch.zeros(units, len(side), dtype=smoother.dtype, device=smoother.device)
    where[unit, torch.arange(len(side), device=smoother.device)] = 1.0
    contrast = torch.zeros_like(where)
    for sign in (1.0, -1.0):
        mine = where * (side == sign)
        contrast += sign * mine / mine.sum(1, keepdim=True).clamp_min(1)
    return contrast @ smoother @ (where * side).T


def margins(form: Float[Tensor, "site unit unit"], signs: Signs) -> Margins:
    """Every unit's margin under every swap, relative to the swapped labels; rounding dust is zero."""
    s = signs.to(form)
    signed = s * (form @ s)
    return torch.where(signed.abs() > TIE, signed, 0.0)


def concordance(m: Margins) -> Float[Tensor, "site draw"]:
    """Share of units whose margin is positive; a tie counts half."""
    return (m > 0).to(m.dtype).mean(-2) + 0.5 * (m == 0).to(m.dtype).mean(-2)


def studentised(m: Margins) -> Float[Tensor, "site draw"]:
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
