"""The edges of a decoder: who writes into the residual stream, and who reads it.

Writers are the embedding, every attention head and every MLP; readers are q of every query head, k and v of every
key/value head, every MLP, and the final norm. An edge leads from a writer to every later reader. Key/value heads stay
grouped: the score of a grouped reader is the sum over the query heads that share it.
Source: edge attribution patching, arXiv 2310.10348; readers and writers as in EAP-IG, arXiv 2403.17806.
"""

from functools import cached_property
from typing import Literal, NamedTuple

import torch
from jaxtyping import Bool
from torch import Tensor

from audit.schema import AuditError
from audit.wrappers import Wrapper

Kind = Literal["q", "k", "v", "mlp", "final"]
EMBED, FINAL_READER = "embed", "final"


class Reader(NamedTuple):
    """One reader: its block (the number of blocks for the final norm), what it is, and which head of its kind."""

    block: int
    kind: Kind
    head: int


class _Size(NamedTuple):
    blocks: int
    heads: int
    kv_heads: int
    parallel: bool


class Graph(_Size):
    """All edges of one model. ``parallel``: a block's MLP does not read its attention."""

    @cached_property
    def writers(self) -> tuple[str, ...]:
        """embed, then block by block a0.h0, a0.h1, ..., m0."""
        names = [EMBED]
        for block in range(self.blocks):
            names += [f"a{block}.h{head}" for head in range(self.heads)] + [f"m{block}"]
        return tuple(names)

    @cached_property
    def readers(self) -> tuple[Reader, ...]:
        """Block by block q, k, v heads and the MLP; the final norm last."""
        readers: list[Reader] = []
        for block in range(self.blocks):
            readers += [Reader(block, "q", head) for head in range(self.heads)]
            readers += [Reader(block, "k", head) for head in range(self.kv_heads)]
            readers += [Reader(block, "v", head) for head in range(self.kv_heads)]
            readers.append(Reader(block, "mlp", 0))
        return (*readers, Reader(self.blocks, "final", 0))

    @property
    def per_block(self) -> int:
        """Readers of one block."""
        return self.heads + 2 * self.kv_heads + 1

    def upstream(self, reader: Reader) -> int:
        """How many of the first writers this reader sees."""
        before = 1 + reader.block * (self.heads + 1)
        return before + (self.heads if reader.kind == "mlp" and not self.parallel else 0)

    @cached_property
    def exists(self) -> Bool[Tensor, "writer reader"]:
        """Which pairs are edges."""
        limits = torch.tensor([self.upstream(reader) for reader in self.readers])
        return torch.arange(len(self.writers))[:, None] < limits

    def writer_place(self, writer: int) -> tuple[int, int]:
        """Block and head of a writer: (-1, -1) for the embedding; head -1 for an MLP."""
        if writer == 0:
            return -1, -1
        block, at = divmod(writer - 1, self.heads + 1)
        return block, at if at < self.heads else -1

    def readers_of(self, writer: int) -> tuple[int, ...]:
        """The readers that feed what this writer writes: its head's q, k, v, or its MLP; none for the embedding."""
        block, head = self.writer_place(writer)
        if block < 0:
            return ()
        first = block * self.per_block
        if head < 0:
            return (first + self.per_block - 1,)
        group = head // (self.heads // self.kv_heads)
        return first + head, first + self.heads + group, first + self.heads + self.kv_heads + group

    def edge_name(self, writer: int, reader: int) -> str:
        """For people: ``a0.h1 -> q2.h3``."""
        block, kind, head = self.readers[reader]
        to = {"mlp": f"m{block}", "final": FINAL_READER}.get(kind, f"{kind}{block}.h{head}")
        return f"{self.writers[writer]} -> {to}"


def graph_of(wrapper: Wrapper) -> Graph:
    """The edges of an open model. AuditError where its attention heads are not known (another backend or family)."""
    from audit.wrappers import NativeWrapper

    needed = {"q", "k", "v", "z", "attn_in", "mlp_in", "attn_out", "mlp_out"}
    if not isinstance(wrapper, NativeWrapper) or not needed <= wrapper.parts:
        lacking = ", ".join(sorted(needed - wrapper.parts)) or "heads"
        raise AuditError(
            f"the {wrapper.backend} backend has no edges for this model: {lacking} not found", "use the native backend"
        )
    anatomy = wrapper.anatomy
    assert anatomy.heads is not None, "a model with z has heads"
    return Graph(wrapper.n_blocks, anatomy.heads.n, anatomy.heads.n_kv, anatomy.parallel)
