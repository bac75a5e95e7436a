"""A constant added to the logits."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self

from jaxtyping import Float
from torch import Tensor

from audit.bench.layout import Geometry
from audit.bench.writes.write import Write, content_of
from audit.wrappers import Tap, Wrapper


@dataclass(frozen=True, eq=False)
class LogitBias(Write):
    """Add a constant to the logits at every position. On disk ``bias``."""

    bias: Float[Tensor, " vocab"]

    def key(self) -> tuple[str, ...]:
        return (content_of(self.bias),)

    def bites(self) -> bool:
        return bool((self.bias != 0).any())

    def logit_shift(self) -> Tensor | None:
        return self.bias

    def taps(self, wrapper: Wrapper, where: Geometry, given: Tensor | None) -> list[Tap]:
        return []

    def to_delta(self) -> dict[str, Tensor]:
        return {"bias": self.bias}

    @classmethod
    def from_delta(cls, delta: Mapping[str, Tensor]) -> tuple[Self, ...]:
        if set(delta) != {"bias"} or delta["bias"].ndim != 1:
            raise ValueError(f"should hold one vector 'bias', and holds {sorted(delta)}")
        return (cls(delta["bias"]),)
