"""Virtual tokens in the embedded input."""

from dataclasses import dataclass
from typing import Literal

from jaxtyping import Float, Int
from torch import Tensor


@dataclass(frozen=True, eq=False)
class Prefix:
    """Virtual tokens put into the embedded input of every row: before everything, or before position ``at`` of each."""

    emb: Float[Tensor, "row n d"]
    at: Int[Tensor, " row"] | Literal["start"] = "start"
