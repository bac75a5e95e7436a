"""Dictionary features scaled in place."""

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from jaxtyping import Int
from torch import Tensor

from audit.schema import Site


@runtime_checkable
class Dictionary(Protocol):
    """What :class:`Features` needs of a sparse autoencoder (sae_lens objects fit)."""

    def encode(self, x: Tensor) -> Tensor: ...
    def decode(self, feature_acts: Tensor) -> Tensor: ...


@dataclass(frozen=True, eq=False)
class Features:
    """Scale dictionary features in place: h <- h + decode(f') - decode(f), f'[columns] = scale * f[columns].

    ``name`` is the content hash of the dictionary; without it the pass is not cached.
    """

    site: Site
    sae: Dictionary
    columns: Int[Tensor, " column"]
    scale: float
    name: str | None = None
