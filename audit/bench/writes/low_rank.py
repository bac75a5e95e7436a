"""An affine low-rank edit of a state."""

from dataclasses import dataclass

from jaxtyping import Bool, Float
from torch import Tensor

from audit.schema import Site


@dataclass(frozen=True, eq=False)
class LowRank:
    """Affine low-rank edit of a state: h <- h + (h @ v.T) @ u + b; ``rows`` limits it to those rows (None: all)."""

    site: Site
    u: Float[Tensor, "k d"]
    v: Float[Tensor, "k d"]
    b: Float[Tensor, " d"]
    rows: Bool[Tensor, " row"] | None = None
