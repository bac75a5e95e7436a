"""What a backend must do: one batch, forward, with taps. Everything else (batching, cache, pooling) is the bench's.

A :class:`Tap` is called with the whole state at its site and may return another state in its place. Backends run the
blocks and the final norm but never the LM head: scores are read at the few positions that are asked for, by
:meth:`Wrapper.head` on ``final_in`` states, so that nothing of size positions x vocabulary exists unless someone asks.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from audit.schema import Op, Part, Site


class Batch(NamedTuple):
    """One right-padded batch on the model's device. ``embeds`` replaces ``ids`` as input where given."""

    ids: Int[Tensor, "row pos"]
    mask: Bool[Tensor, "row pos"]
    embeds: Float[Tensor, "row pos d"] | None = None


class Tap(NamedTuple):
    """``visit(state)`` sees the state at ``site`` ([row pos d]; q k v z [row pos head d_head]; pattern
    [row head pos pos]) and returns None, or the state to put in its place. Taps at one site run in the given order."""

    site: Site
    visit: Callable[[Tensor], Tensor | None]


class Resume(NamedTuple):
    """Start after block ``block`` from ``state``: blocks 0..block do not run."""

    block: int
    state: Float[Tensor, "row pos d"]


class Wrapper(ABC):
    """One opened model behind one backend."""

    supports: frozenset[Op]
    parts: frozenset[Part]
    n_blocks: int
    d_model: int
    vocab_size: int
    device: torch.device
    dtype: torch.dtype
    backend: str
    attention: str

    @abstractmethod
    def forward(self, batch: Batch, taps: Sequence[Tap], resume: Resume | None = None, stop: int | None = None) -> None:
        """Run the blocks (and the final norm), calling the taps; ``stop=b``: nothing after block b is computed.

        Gradients flow iff the caller's grad mode is on. Raises AuditError for a site whose part is not in ``parts``.
        """

    @abstractmethod
    def embed(self, ids: Int[Tensor, "row pos"]) -> Float[Tensor, "row pos d"]:
        """Input embeddings as the first block's tower expects them through ``Batch.embeds``."""

    @abstractmethod
    def norm(self, states: Float[Tensor, "*batch d"]) -> Float[Tensor, "*batch d"]:
        """The final norm, applied to residual states."""

    @abstractmethod
    def head(self, states: Float[Tensor, "*batch d"]) -> Float[Tensor, "*batch vocab"]:
        """Logits of normed states, with the family's own soft cap, exactly as the model computes them."""

    @abstractmethod
    def parameters(self) -> dict[str, Tensor]:
        """Parameters by their checkpoint names (the live tensors; ties appear under every name)."""

    def size_bytes(self) -> int:
        """Bytes of the parameters, tied ones counted once."""
        return sum({p.data_ptr(): p.nbytes for p in self.parameters().values()}.values())
