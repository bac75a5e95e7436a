"""A constant added to the logits."""

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor


@dataclass(frozen=True, eq=False)
class LogitBias:
    """Add a constant to the logits at every position."""

    bias: Float[Tensor, " vocab"]
