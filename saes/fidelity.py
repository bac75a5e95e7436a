"""Does a dictionary describe the states of this model? Explained variance, active and dead features, and a gate.

A dictionary is fitted to base's states. Where it explains much less of a suspect's, what its features do there says
nothing of the suspect: an edit of them edits something else.
"""

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from audit.schema import AuditError, ExitCode
from saes.activations import Activations
from saes.records import MIN_BASE_FVE, MIN_FVE_RATIO, Fidelity, Validity
from saes.sparse_coder import SparseCoder

_ROWS_AT_ONCE = 1 << 22
_ROUNDING = 1e-9


class Measured(NamedTuple):
    """How well a dictionary does on some states, and how often each feature is active there (share of rows)."""

    fidelity: Fidelity
    firing_rates: Float[Tensor, " feature"]


def measure(coder: SparseCoder, source: Activations, name: str) -> Measured:
    """The dictionary on all rows of one site, a chunk at a time. Raw states against raw reconstructions, in float64
    sums about these rows' own mean.

    AuditError: code 2 for states of another width, 4 where they do not vary, so that nothing can be explained.
    """
    width = source.widths[source.names.index(name)]
    if width != coder.width:
        do = "use the dictionary on the site that it was trained on"
        raise AuditError(f"{name}: states of width {width}, and a dictionary of {coder.width}", do)
    fired = torch.zeros(coder.features, dtype=torch.float64)
    count, mean, squares, missed = 0, torch.zeros(width, dtype=torch.float64), 0.0, 0.0
    with torch.no_grad():
        for n in range(len(source.sizes)):
            for states in source.chunk(n)[name].split(max(1, _ROWS_AT_ONCE // coder.features)):
                codes = coder.encode(states)
                missed += float((states - coder.decode(codes)).double().square().sum())
                fired += (codes > 0).sum(0)
                x = states.double()
                size, own = len(x), x.mean(0)
                step = own - mean
                squares += float((x - own).square().sum() + step.square().sum() * count * size / (count + size))
                count, mean = count + size, mean + step * size / (count + size)
    if squares <= 0:
        raise AuditError(f"{name}: {count} states that do not vary", "read more texts", ExitCode.UNDECIDED)
    rates = fired / count
    fidelity = Fidelity(
        fve=1 - missed / squares, l0=float(rates.sum()), dead=int((fired == 0).sum()), features=coder.features,
        rows=count,
    )  # fmt: skip
    return Measured(fidelity, rates.float())


def validity(base: Fidelity, other: Fidelity) -> Validity:
    """May base's dictionary be used on the other model? Only if it explains .8 of base's variance, and on the other
    model at least .9 of what it explains on base."""
    if base.fve < MIN_BASE_FVE:
        valid, because = False, f"it explains {base.fve:.3f} of base's variance, less than {MIN_BASE_FVE:g}"
    elif other.fve < MIN_FVE_RATIO * base.fve - _ROUNDING:
        least = f"less than {MIN_FVE_RATIO:g} of the {base.fve:.3f} on base"
        valid, because = False, f"it explains {other.fve:.3f} of this model's variance, {least}"
    else:
        valid, because = True, f"it explains {other.fve:.3f} of this model's variance, {base.fve:.3f} of base's"
    return Validity(valid=valid, because=because, base=base, other=other)
