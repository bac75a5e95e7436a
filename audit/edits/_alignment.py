"""What PGA aligns: paired texts, their states at the last token, and the directions that tell them apart."""

import re
from collections.abc import Mapping
from typing import Literal, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from audit.case import Rows, stacked
from audit.edits._descent import needed
from audit.edits._edit import EditData
from audit.readouts import Logistic, logistic
from audit.schema import AuditError, Site

Controls = Literal["retain", "relabelled"]


class Paired(NamedTuple):
    """Row 2i is the i-th memorised text, row 2i + 1 the text that it is paired with."""

    rows: Rows
    pairs: int

    @property
    def side(self) -> Float[Tensor, " row"]:
        """1 for memorised texts, 0 for the others."""
        return torch.tensor([1.0, 0.0], dtype=torch.float64).repeat(self.pairs)


def paired_with(data: EditData, controls: Controls) -> Paired:
    """Forget rows, each beside a control: the retained texts in turn (as published), or its own item relabelled.

    AuditError where there is nothing to pair with.
    """
    forget = data.forget
    if controls == "retain":
        other, partner = data.retain, torch.arange(len(forget)) % len(data.retain)
    else:
        other = needed(data.relabelled, "relabelled rows", "give items with alternates, or controls = 'retain'")
        place = {name: i for i, name in enumerate(other.item_ids)}
        unpaired = [name for name in forget.item_ids if name not in place]
        if unpaired:
            raise AuditError(f"no relabelled row of {', '.join(unpaired[:3])}", "give every forget item an alternate")
        partner = torch.tensor([place[name] for name in forget.item_ids])
    order = torch.stack([torch.arange(len(forget)), len(forget) + partner], 1).flatten()
    return Paired(stacked([forget, other]).take(order), len(forget))


def depths(n_blocks: int, shallowest: float, deepest: float) -> tuple[Site, ...]:
    """The outputs of the blocks from one fraction of the depth to another, both included."""
    first, last = round(shallowest * (n_blocks - 1)), round(deepest * (n_blocks - 1))
    if not 0 <= first <= last < n_blocks:
        raise AuditError(
            f"no blocks from {shallowest} to {deepest} of the depth", "give 0 <= shallowest <= deepest <= 1"
        )
    return tuple(Site(part="resid_out", block=block) for block in range(first, last + 1))


def blocks_of(parameters: Mapping[str, Tensor]) -> int:
    """How many blocks a model has, by the first numbers in its parameters' names: later ones may be of experts."""
    numbers = [int(first[1]) for name in parameters if (first := re.search(r"\.(\d+)\.", name))]
    assert numbers, "blocks are numbered in the names of their parameters"
    return 1 + max(numbers)


def fitted(states: Float[Tensor, "site row d"], side: Float[Tensor, " row"], c: float = 1.0) -> Logistic:
    """The published probe at every site: logistic regression on standardised states, all rows."""
    every = torch.ones(states.shape[:2], dtype=torch.bool, device=states.device)
    return logistic(states, side.to(states), every, c)
