"""Which value vectors name a concept: its tokens among the first of what each vector writes, over all vectors.

Nothing but counts is kept. A vector's projection onto the vocabulary is needed for two numbers alone, the logit of its
last counted place from either end; what a seed token's logit exceeds follows from that. So a few vectors at a time are
multiplied with the whole output head and forgotten, and any number of concepts is counted in the same product.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

_BYTES_AT_ONCE = 32 << 20
PUBLISHED_PLACES = 200
_LARGEST_SHARE = 20


class Seeds(NamedTuple):
    """The seed tokens of several concepts: every token once, and whose it is."""

    tokens: Int[Tensor, " token"]
    member: Bool[Tensor, "concept token"]

    @property
    def sizes(self) -> Int[Tensor, " concept"]:
        """How many tokens each concept has."""
        return self.member.sum(1)


def seeds_of(concepts: Sequence[Sequence[int]]) -> Seeds:
    """Concepts as their token ids."""
    tokens = sorted({token for concept in concepts for token in concept})
    member = torch.tensor([[token in set(concept) for token in tokens] for concept in concepts], dtype=torch.bool)
    return Seeds(torch.tensor(tokens, dtype=torch.long), member.reshape(len(concepts), len(tokens)))


def places_counted(vocabulary: int) -> int:
    """How many first places count: 200 as published, of a small vocabulary a twentieth."""
    return max(1, min(PUBLISHED_PLACES, vocabulary // _LARGEST_SHARE))


def hits_of(
    head: Float[Tensor, "vocab d"], vectors: Float[Tensor, "*unit d"], seeds: Seeds, first: int
) -> Int[Tensor, "concept sign *unit"]:
    """How many of each concept's tokens are among the ``first`` ones that every vector writes, and that it takes away
    (sign 1: the vector as it acts with a negative coefficient). A token as high as the last counted place counts.

    Vectors may be those of experts in one tensor [expert unit d], which is how fused ones act when transposed.
    """
    flat = vectors.reshape(-1, vectors.shape[-1])
    tokens, member = seeds.tokens.to(head.device), seeds.member.to(head.device, head.dtype)
    hits = torch.zeros(len(member), 2, len(flat), dtype=torch.int16)
    at_once = max(1, _BYTES_AT_ONCE // (4 * len(head)))
    for start in range(0, len(flat), at_once):
        logits = flat[start : start + at_once].to(head.dtype) @ head.T
        own = logits[:, tokens]
        for sign, largest in enumerate((True, False)):
            ends = logits.topk(first, dim=1, largest=largest, sorted=False).values
            counted = own >= ends.amin(1, keepdim=True) if largest else own <= ends.amax(1, keepdim=True)
            hits[:, sign, start : start + at_once] = (member @ counted.to(head.dtype).T).to(torch.int16).cpu()
    return hits.unflatten(2, vectors.shape[:-1])


def first_tokens(
    head: Float[Tensor, "vocab d"], vectors: Float[Tensor, "unit d"], first: int
) -> Int[Tensor, "unit place"]:
    """The ``first`` tokens that each of a few vectors writes, highest first."""
    at_once = max(1, _BYTES_AT_ONCE // (4 * len(head)))
    parts = [(part.to(head.dtype) @ head.T).topk(first, dim=1).indices for part in vectors.split(at_once)]
    return torch.cat(parts) if parts else torch.zeros(0, first, dtype=torch.long)
