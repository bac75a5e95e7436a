"""Replace a state on the way."""

from dataclasses import dataclass

from torch import Tensor

from audit.schema import Checkpoint, Positions, Site


@dataclass(frozen=True, eq=False)
class Replace:
    """Replace the state at ``site`` by another model's (or a given tensor), at the given positions only.

    A tensor is [row pos d] for ``all``, packed [token d] for ``answer``/``key``, [row d] for ``last``.
    """

    site: Site
    source: Checkpoint | Tensor
    positions: Positions = "key"
