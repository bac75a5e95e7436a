"""Which value vectors name a concept: planted ones are found, and in random models no more than the stated rate."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import hypergeom

from audit.readouts import enrichment_scan
from audit.readouts.enrichment_scan import Seeds, hits_of, seeds_of
from audit.stats import benjamini_hochberg
from audit.stats.enrichment import log10_tail

VOCAB, WIDTH, UNITS, FIRST = 400, 64, 64, 20


def counted_by_hand(head: torch.Tensor, vectors: torch.Tensor, concepts: list[list[int]], first: int) -> torch.Tensor:
    """One vector, one sign and one concept at a time, from whole rankings."""
    hits = torch.zeros(len(concepts), 2, len(vectors), dtype=torch.int16)
    for unit, vector in enumerate(vectors):
        for sign, way in enumerate((1.0, -1.0)):
            top = set((way * head @ vector).argsort(descending=True)[:first].tolist())
            for n, concept in enumerate(concepts):
                hits[n, sign, unit] = len(top & set(concept))
    return hits


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 60), st.integers(1, 5), st.integers(1, 12))
def test_counts_are_those_of_whole_rankings(seed: int, first: int, concepts: int, size: int) -> None:
    rng = torch.Generator().manual_seed(seed)
    head, vectors = torch.randn(97, 7, generator=rng), torch.randn(13, 7, generator=rng)
    sets = [torch.randperm(97, generator=rng)[:size].tolist() for _ in range(concepts)]
    assert torch.equal(hits_of(head, vectors, seeds_of(sets), first), counted_by_hand(head, vectors, sets, first))


def test_chunks_and_experts_change_no_count(monkeypatch: pytest.MonkeyPatch) -> None:
    """A fused tensor of experts is counted as its value vectors are, one after the other."""
    rng = torch.Generator().manual_seed(0)
    head, fused = torch.randn(VOCAB, WIDTH, generator=rng), torch.randn(3, WIDTH, UNITS, generator=rng)
    seeds = seeds_of([[1, 2, 3], [3, 9]])
    by_expert = hits_of(head, fused.transpose(1, 2), seeds, FIRST)
    assert by_expert.shape == (2, 2, 3, UNITS)
    monkeypatch.setattr(enrichment_scan, "_BYTES_AT_ONCE", 4 * VOCAB * 7)
    for expert in range(3):
        assert torch.equal(by_expert[:, :, expert], hits_of(head, fused[expert].T, seeds, FIRST))


@pytest.mark.parametrize("sign", [0, 1])
@pytest.mark.parametrize("unit", [0, 17, UNITS - 1])
def test_a_planted_vector_is_found_with_its_sign(sign: int, unit: int) -> None:
    rng = torch.Generator().manual_seed(unit)
    head, vectors = torch.randn(VOCAB, WIDTH, generator=rng), torch.randn(UNITS, WIDTH, generator=rng)
    concept = [5, 50, 150, 250, 350, 399]
    vectors[unit] = (1 - 2 * sign) * head[concept].mean(0) * 10
    hits = hits_of(head, vectors, seeds_of([concept]), FIRST)[0]
    p = 10 ** log10_tail(len(concept), FIRST, VOCAB)[hits.numpy()]
    place = np.unravel_index(p.argmin(), p.shape)
    assert tuple(int(x) for x in place) == (sign, unit)
    assert benjamini_hochberg(p.ravel()).min() < 0.05
    assert (p * p.size < 0.05).sum() == 1


@pytest.mark.thorough
def test_in_random_models_no_more_is_found_than_the_stated_rate() -> None:
    """Bonferroni at 5 % over all vectors and both signs, in 400 random models with a random concept each."""
    alarms, models = 0, 400
    tail = log10_tail(6, FIRST, VOCAB)
    for seed in range(models):
        rng = torch.Generator().manual_seed(seed)
        head, vectors = torch.randn(VOCAB, WIDTH, generator=rng), torch.randn(UNITS, WIDTH, generator=rng)
        concept = torch.randperm(VOCAB, generator=rng)[:6].tolist()
        hits = hits_of(head, vectors, seeds_of([concept]), FIRST)
        alarms += bool((10 ** tail[hits.numpy()] * hits.numel() < 0.05).any())
    assert alarms <= 31  # the 99 % point of 400 draws at 5 %


@pytest.mark.parametrize(("members", "first", "of"), [(1, 1, 2), (4, 19, 396), (10, 200, 32000), (300, 200, 32000)])
def test_the_tail_is_the_hypergeometric_one_and_never_underflows(members: int, first: int, of: int) -> None:
    tail = log10_tail(members, first, of)
    hits = np.arange(members + 1)
    exact = hypergeom.sf(hits - 1, of, members, first)
    assert tail[0] == 0.0
    large = exact > 1e-12
    assert tail[large] == pytest.approx(np.log10(exact[large]), abs=1e-9)
    assert np.isfinite(tail[: min(members, first) + 1]).all()
    assert (np.diff(tail[: min(members, first) + 1]) < 0).all()


def test_a_small_vocabulary_counts_fewer_places() -> None:
    assert [enrichment_scan.places_counted(v) for v in (10, 96, 396, 4000, 32000)] == [1, 4, 19, 200, 200]


def test_first_tokens_are_the_highest_logits() -> None:
    rng = torch.Generator().manual_seed(1)
    head, vectors = torch.randn(VOCAB, WIDTH, generator=rng), torch.randn(9, WIDTH, generator=rng)
    first = enrichment_scan.first_tokens(head, vectors, 5)
    assert torch.equal(first, (vectors @ head.T).argsort(1, descending=True)[:, :5])
    assert enrichment_scan.first_tokens(head, vectors[:0], 5).shape == (0, 5)


def test_seeds_say_whose_every_token_is() -> None:
    seeds = seeds_of([[4, 2, 4], [2], []])
    assert seeds.tokens.tolist() == [2, 4]
    assert seeds.member.tolist() == [[True, True], [True, False], [False, False]]
    assert isinstance(seeds, Seeds) and seeds.sizes.tolist() == [2, 1, 0]
