"""Resume a pass after a block, from another model's state."""

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from audit.schema import Checkpoint, Site


@dataclass(frozen=True, eq=False)
class Start:
    """Resume after ``site`` (a block's ``resid_out``) from another state at all positions: blocks below do not run."""

    site: Site
    source: Checkpoint | Float[Tensor, "row pos d"]
