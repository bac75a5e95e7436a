"""The two rules of concept features against numpy, and a planted dictionary whose feature they must name."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from audit.schema import Site
from saes import (
    ConceptCodes,
    Moves,
    SparseCoder,
    TensorActivations,
    above_percentile,
    by_firing_rate,
    clamped,
    clamped_to,
    concept_codes,
    gated_clamp,
    joined,
    multiplied,
    normalised_mean_scores,
    with_threshold,
)
from tests.saes.planted_rows import random_coder

SITE = Site(part="resid_out", block=0, tower="vision")


def drawn(seed: int, activation: str = "jumprelu") -> tuple[SparseCoder, torch.Tensor, torch.Tensor, ConceptCodes]:
    g = torch.Generator().manual_seed(seed)
    coder = random_coder(activation, seed=seed)
    concept, others = torch.randn(30, 6, generator=g), torch.randn(50, 6, generator=g) - 0.3
    return coder, concept, others, concept_codes(coder, concept, others)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 999), st.sampled_from(["jumprelu", "relu", "topk"]))
def test_codes_of_a_concept_are_means_rates_and_quantiles(seed: int, activation: str) -> None:
    if activation == "topk":
        coder, concept, others, _ = drawn(seed)
        coder = random_coder("topk", seed=seed)
        with pytest.raises(AssertionError, match="all"):
            concept_codes(coder, concept, others)
        return
    coder, concept, others, codes = drawn(seed, activation)
    z, other = coder.encode(concept).numpy(), coder.encode(others).numpy()
    assert codes.mean.numpy() == pytest.approx(z.mean(0), rel=1e-5)
    assert codes.others_mean.numpy() == pytest.approx(other.mean(0), rel=1e-5)
    assert codes.overall.numpy() == pytest.approx(np.concatenate([z, other]).mean(0), rel=1e-5)
    assert codes.rate.numpy() == pytest.approx((z > 0).mean(0)) and codes.others_rate.numpy() == pytest.approx(
        (other > 0).mean(0)
    )
    wanted = [np.quantile(column[column > 0], 0.95) if (column > 0).any() else 0.0 for column in z.T]
    assert codes.typical.numpy() == pytest.approx(wanted, rel=1e-4, abs=1e-6)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 999), st.sampled_from([50.0, 80.0, 99.0, 99.999]))
def test_the_score_of_normalised_means_is_that_of_its_formula(seed: int, percentile: float) -> None:
    coder, concept, others, codes = drawn(seed)
    z, other = coder.encode(concept).double().numpy(), coder.encode(others).double().numpy()
    mu, nu = z.mean(0), other.mean(0)
    wanted = np.array([mu[j] / sum(mu) - nu[j] / sum(nu) for j in range(len(mu))])
    scores = normalised_mean_scores(codes)
    assert scores.numpy() == pytest.approx(wanted, abs=1e-9)
    bar = np.percentile(wanted, percentile)
    best = [j for j in np.argsort(-wanted, kind="stable").tolist() if wanted[j] > max(bar, 0)]
    assert above_percentile(scores, percentile).tolist() == best and len(best) > 0


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 999), st.sampled_from([0.1, 0.3, 0.6]), st.integers(1, 6))
def test_the_rule_of_firing_rates_drops_sorts_and_takes(seed: int, most: float, count: int) -> None:
    coder, concept, others, codes = drawn(seed)
    forget, retain = ((coder.encode(x) > 0).double().mean(0).tolist() for x in (concept, others))
    allowed = [j for j in range(coder.features) if retain[j] < most and forget[j] > 0]
    wanted = sorted(allowed, key=lambda j: (-forget[j], j))[:count]
    assert by_firing_rate(codes, most, count).tolist() == wanted


def planted(noise: float = 0.02) -> tuple[SparseCoder, torch.Tensor, torch.Tensor, torch.Tensor]:
    """A dictionary of orthogonal directions, and states that hold feature 3 where the concept is shown; feature 0 is
    larger and in all of them."""
    g = torch.Generator().manual_seed(0)
    d, n = 16, 12
    basis = torch.linalg.qr(torch.randn(d, d, generator=g)).Q[:n]
    coder = SparseCoder(basis.T.contiguous(), torch.zeros(n), basis, torch.zeros(d), "jumprelu",
                        threshold=torch.full((n,), 0.3))  # fmt: skip
    z = torch.rand(2, 200, n, generator=g) * (torch.rand(2, 200, n, generator=g) < 0.1) * 2
    z[:, :, 0], z[1, :, 3] = 5.0, 0.0
    shown = torch.rand(200, generator=g) < 0.5
    z[0, :, 3] = torch.where(shown, 1.5, 0.0)
    states = z @ basis + noise * torch.randn(2, 200, d, generator=g)
    return coder, states[0], states[1], shown


def test_both_rules_name_the_planted_feature_and_its_clamp_takes_it_out_of_the_states() -> None:
    coder, concept, others, shown = planted()
    codes = concept_codes(coder, concept, others)
    assert above_percentile(normalised_mean_scores(codes), 95).tolist() == [3]
    assert by_firing_rate(codes, 0.01, 5).tolist() == [3]
    write = gated_clamp(coder, SITE, clamped(codes, torch.tensor([3]), 1.0))
    after = write.moved(concept[None])[0]
    at = after @ coder.W_dec[3]
    assert float((at[shown] + 1.5).abs().max()) < 0.1 and torch.equal(after[~shown], concept[~shown])
    rest = [j for j in range(coder.features) if j != 3]
    assert torch.allclose(after @ coder.W_dec[rest].T, concept @ coder.W_dec[rest].T, atol=1e-5)
    assert torch.equal(write.moved(others[None])[0], others)


def test_strengths_are_in_the_units_that_they_say() -> None:
    coder, concept, others, codes = drawn(5)
    at = (codes.typical > 0).nonzero()[:2, 0]
    z = coder.encode(concept)[:, at]
    for moves, wanted in (
        (clamped(codes, at, 2.0), -2.0 * codes.typical[at].float().expand_as(z)),
        (clamped_to(at, 25.0), torch.full_like(z, -25.0)),
        (multiplied(codes, at, -5.0), -5.0 * codes.mean[at].float() * z),
    ):
        write = gated_clamp(coder, SITE, moves)
        moved = z > torch.maximum(coder.threshold[at], moves.gate)  # type: ignore[index]
        codes_before = write.codes(concept)
        after = codes_before + torch.where(moved, write.slope * codes_before + write.offset, 0.0)
        assert bool(moved.any()) and torch.allclose(after[moved], wanted[moved], atol=1e-4)
    assert torch.equal(multiplied(codes, at, -5.0).gate, codes.overall[at].float())


def test_a_strength_of_zero_moves_nothing_in_any_unit() -> None:
    _, _, _, codes = drawn(5)
    at = torch.tensor([1, 2])
    for moves in (clamped(codes, at, 0.0), clamped_to(at, 0.0), multiplied(codes, at, 0.0)):
        assert not moves.slope.any() and not moves.offset.any()


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 99))
def test_several_concepts_are_the_union_and_a_shared_feature_is_moved_once_by_the_stronger(seed: int) -> None:
    coder, concept, others, codes = drawn(seed)
    weak, strong = clamped(codes, torch.tensor([1, 4, 7]), 1.0), clamped(codes, torch.tensor([7, 2]), 3.0)
    both = joined([weak, strong])
    assert both.features.tolist() == [1, 2, 4, 7]
    wanted = dict(zip(weak.features.tolist(), weak.offset.tolist(), strict=True))
    wanted |= dict(zip(strong.features.tolist(), strong.offset.tolist(), strict=True))
    assert both.offset.tolist() == pytest.approx([wanted[j] for j in (1, 2, 4, 7)])
    assert torch.equal(both.slope, torch.full((4,), -1.0))
    again = joined([strong, weak])
    assert all(torch.equal(a, b) for a, b in zip(both, again, strict=True))
    single = joined([weak])
    assert torch.equal(gated_clamp(coder, SITE, single).moved(concept[None]),
                       gated_clamp(coder, SITE, weak).moved(concept[None]))  # fmt: skip
    assert not len(joined([]).features)


def test_a_topk_dictionary_is_given_the_threshold_that_lets_as_many_through() -> None:
    coder = random_coder("topk", d=12, features=40, k=4)
    states = torch.randn(400, 12, generator=torch.Generator().manual_seed(0))
    gated = with_threshold(coder, TensorActivations({"s": states}), "s")
    assert gated.k is None and float((gated.encode(states) > 0).sum(1).float().mean()) == pytest.approx(4, abs=0.02)
    assert with_threshold(gated, TensorActivations({"s": states}), "s") is gated


def test_moves_of_no_feature_are_moves() -> None:
    nothing = Moves(torch.zeros(0, dtype=torch.long), *(torch.zeros(0) for _ in range(3)))
    assert not gated_clamp(random_coder("relu"), SITE, nothing).bites()
