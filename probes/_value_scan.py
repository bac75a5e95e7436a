"""Concepts as seed tokens, and the value vectors anywhere in a model that name them."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from numpy import ndarray
from torch import Tensor

from audit.probing import PersonRows, enrichment_scan, stats
from probes._value_columns import Columns, ValueModel, groups_of

ALPHA = 0.05


def seed_tokens(sheet: PersonRows, tokenizer: Any) -> list[list[int]]:
    """Every group's concept: the content tokens of its answers, each also with (or without) its leading space where
    that is one other token."""
    row, position = sheet.rows.targets("key")
    group = groups_of(sheet.rows, sheet.people)[row].tolist()
    sets: list[set[int]] = [set() for _ in sheet.people]
    for n, token in zip(group, sheet.rows.ids[row, position].tolist(), strict=True):
        sets[n].add(token)
    variants = {token: _variants(token, tokenizer) for token in set().union(*sets)}
    return [sorted({v for token in tokens for v in variants[token]}) for tokens in sets]


def _variants(token: int, tokenizer: Any) -> list[int]:
    """The token itself, and the one token that its word is with or without a space before it."""
    word = str(tokenizer.decode([token])).strip()
    if not word:
        return [token]
    coded = [tokenizer(text, add_special_tokens=False)["input_ids"] for text in (word, f" {word}")]
    return sorted({token, *(ids[0] for ids in coded if len(ids) == 1)})


def mixed(sets: Sequence[Sequence[int]], others: Sequence[Sequence[int]], seed: int) -> list[list[int]]:
    """For every concept as many tokens drawn from those of all concepts and of some others: what the scan finds of
    these is what it finds of words alike. Words cluster among themselves, so that tokens drawn from the whole
    vocabulary, which is what the test supposes, would be too mild a comparison."""
    pool = np.array(sorted({token for concept in (*sets, *others) for token in concept}))
    rng = np.random.default_rng(seed)
    return [rng.choice(pool, min(len(concept), len(pool)), replace=False).tolist() for concept in sets]


class Named(NamedTuple):
    """Which value vectors of one model name which concepts: ``hits`` of the seed tokens among the counted places, and
    ``log10_p``, of chance alone, that they are as many."""

    hits: Int[ndarray, "group sign column"]
    log10_p: Float[ndarray, "group sign column"]

    @property
    def enriched(self) -> Bool[ndarray, "group sign column"]:
        """Bonferroni over all vectors and both signs."""
        tests = self.log10_p.shape[1] * self.log10_p.shape[2]
        return self.log10_p + np.log10(tests) < np.log10(ALPHA)

    def of(self, groups: slice) -> "Named":
        """Some of the concepts."""
        return Named(self.hits[groups], self.log10_p[groups])


class Concepts(NamedTuple):
    """What is scanned for: concepts as seed tokens, read by one output head (base's)."""

    seeds: enrichment_scan.Seeds
    base: ValueModel
    first: int

    def named_in(self, model: ValueModel) -> Named:
        """Scan every value vector of a model, in the order of blocks and units."""
        bench = model.bench
        seeds = [self.seeds.tokens.tolist(), self.seeds.member.tolist()]
        parts = ("named_value_vectors", self.base.checkpoint.key, model.checkpoint.key, seeds, self.first)
        hits = bench.cached(parts, lambda: {"hits": self._hits(model)})["hits"]
        vocabulary, sizes = len(self.base.unembedding), self.seeds.sizes.tolist()
        tails = {size: stats.log10_tail(size, self.first, vocabulary) for size in sorted(set(sizes))}
        p = np.stack([tails[size][np.minimum(own, size)] for size, own in zip(sizes, hits, strict=True)])
        return Named(hits, p.astype(np.float32))

    def _hits(self, model: ValueModel) -> Int[ndarray, "group sign column"]:
        head = self.base.unembedding
        with torch.inference_mode():
            blocks = [
                enrichment_scan.hits_of(head, model.vectors(block), self.seeds, self.first)
                for block in range(model.blocks)
            ]
        return torch.cat(blocks, 2).numpy()


def concepts_of(base: ValueModel, sets: Sequence[Sequence[int]]) -> Concepts:
    """These seed sets, read by base's head; how many places count depends on the vocabulary."""
    return Concepts(enrichment_scan.seeds_of(sets), base, enrichment_scan.places_counted(len(base.unembedding)))


def column_numbers(model: ValueModel, columns: Columns) -> Int[Tensor, "group column"]:
    """The places of columns in the order of a scan."""
    widths = torch.tensor([0, *(model.vectors(block).shape[0] for block in range(model.blocks))]).cumsum(0)
    return widths[columns.block] + columns.unit


def jaccard(own: tuple[Tensor, Tensor], base: tuple[Tensor, Tensor], first: int) -> Float[Tensor, " column"]:
    """|A and B| / |A or B| of the first tokens that the same columns write in two models; each is given as (output
    head, vectors)."""
    first_own, first_base = (enrichment_scan.first_tokens(head, vectors, first) for head, vectors in (own, base))
    shared = (first_own[:, :, None] == first_base[:, None, :]).any(2).sum(1).float()
    return shared / (2 * first - shared)
