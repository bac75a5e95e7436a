"""Virtual tokens in the embedded input."""

from dataclasses import dataclass
from typing import Literal

from jaxtyping import Float, Int
from torch import Tensor

from audit.bench.layout import Geometry, VirtualTokens
from audit.bench.writes.write import Write, content_of
from audit.wrappers import Tap, Wrapper


@dataclass(frozen=True, eq=False)
class Prefix(Write):
    """Virtual tokens put into the embedded input of every row: before everything, or before position ``at`` of each."""

    emb: Float[Tensor, "row n d"]
    at: Int[Tensor, " row"] | Literal["start"] = "start"

    def key(self) -> tuple[str, ...]:
        return content_of(self.emb), self.at if isinstance(self.at, str) else content_of(self.at)

    def bites(self) -> bool:
        return self.emb.shape[1] > 0

    def virtual_tokens(self) -> VirtualTokens | None:
        return VirtualTokens(self.emb, self.at)

    def taps(self, wrapper: Wrapper, where: Geometry, given: Tensor | None) -> list[Tap]:
        return []
