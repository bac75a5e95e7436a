"""Scale columns of a state."""

from dataclasses import dataclass

from jaxtyping import Int
from torch import Tensor

from audit.schema import Site


@dataclass(frozen=True, eq=False)
class Scale:
    """Multiply columns of a state: h[..., columns] *= factor, one factor a column, or [row column] with per_row."""

    site: Site
    columns: Int[Tensor, " column"]
    factor: Tensor
    per_row: bool = False
