"""Edits of states by features: what changes nothing, what equals what, and the published injection step by step."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional

from saes import SparseCoder, StatePair, donated, moved, of_columns, published, summary_swapped
from tests.saes.planted_rows import random_coder

ROWS, POSITIONS, WIDTH = 4, 5, 6


def pair(seed: int = 0, dtype: torch.dtype = torch.float32) -> StatePair:
    """Noise in two models; the first position predicts the answer, the others are described by features."""
    g = torch.Generator().manual_seed(seed)
    own, donor = (torch.randn(ROWS, POSITIONS, WIDTH, generator=g).to(dtype) for _ in range(2))
    summary = torch.zeros(ROWS, POSITIONS, dtype=torch.bool)
    summary[:, 0] = True
    return StatePair(own, donor, ~summary, summary)


def codes(coder: SparseCoder, states: StatePair) -> tuple[Tensor, Tensor]:
    return coder.encode(states.own), coder.encode(states.donor)


def columns(*features: int) -> Tensor:
    return torch.tensor([features] * ROWS, dtype=torch.long).reshape(ROWS, len(features))


@pytest.mark.parametrize("activation", ["topk", "jumprelu", "relu"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_an_empty_set_no_strength_and_a_donor_alike_move_no_bit(activation: str, dtype: torch.dtype) -> None:
    coder, states = random_coder(activation), pair(dtype=dtype)
    both = codes(coder, states)
    for unmoved in (
        donated(coder, states, both, columns()),
        donated(coder, states, both, columns(-1, -1)),
        donated(coder, states, both, columns(0, 3, 7), alpha=0.0),
        donated(coder, states._replace(donor=states.own), (both[0], both[0]), columns(0, 3, 7)),
        summary_swapped(states, alpha=0.0),
    ):
        assert torch.equal(unmoved, states.own) and unmoved.dtype == dtype


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 999), st.sets(st.integers(0, 9), max_size=10), st.sampled_from([0.5, 1.0, 3.0]))
def test_a_donation_is_the_decoded_change_with_the_error_kept(seed: int, chosen: set[int], alpha: float) -> None:
    coder, states = random_coder("topk", seed=seed), pair(seed)
    own, donor = codes(coder, states)
    wanted = own.clone()
    for feature in chosen:
        wanted[..., feature] += alpha * (donor[..., feature] - own[..., feature])
    dense = coder.decode(wanted) + (states.own - coder.decode(own))
    dense = torch.where(states.encoded[..., None], dense, states.own)
    edited = donated(coder, states, (own, donor), columns(*chosen), alpha)
    assert torch.allclose(edited, dense, atol=2e-5)


def test_rows_are_edited_by_their_own_columns() -> None:
    coder, states = random_coder("relu"), pair()
    both = codes(coder, states)
    mixed = torch.tensor([[0, 1], [2, 3], [4, -1], [-1, -1]])
    edited = donated(coder, states, both, mixed)
    for row, chosen in enumerate(([0, 1], [2, 3], [4], [])):
        assert torch.allclose(edited[row], donated(coder, states, both, columns(*chosen))[row], atol=1e-6)


def test_no_feature_reads_a_code_and_writes_nothing() -> None:
    coder, states = random_coder("relu"), pair()
    assert of_columns(coder.encode(states.own), columns(-1)).shape == (ROWS, POSITIONS, 1)
    change = torch.ones(ROWS, POSITIONS, 2)
    assert torch.equal(moved(coder, states.own, columns(-1, -1), change), states.own)


@pytest.mark.parametrize("alpha", [0.0, 1.0, 5.0])
@pytest.mark.parametrize("chosen", [(), (2,), (0, 4, 9)])
def test_the_published_injection_step_by_step(alpha: float, chosen: tuple[int, ...]) -> None:
    """The released formula written out: latents without bias or activation, every latent decoded, no error term."""
    coder, states = random_coder("topk"), pair()
    encoder, decoder = coder.W_enc.T, coder.W_dec.T
    wanted = states.own.clone()
    for row in range(ROWS):
        for position in range(1, POSITIONS):
            f_u = functional.linear(states.own[row, position] - coder.b_dec, encoder)
            f_o = functional.linear(states.donor[row, position] - coder.b_dec, encoder)
            f_r = f_u.clone()
            for j in chosen:
                f_r[j] = f_u[j] + alpha * (f_o[j] - f_u[j])
            wanted[row, position] = functional.linear(f_r, decoder) + coder.b_dec
        wanted[row, 0] = states.own[row, 0] + alpha * (states.donor[row, 0] - states.own[row, 0])
    assert torch.allclose(published(coder, states, columns(*chosen), alpha), wanted, atol=1e-4)


def test_the_published_injection_swaps_the_answer_s_own_state_whatever_the_features() -> None:
    coder, states = random_coder("topk"), pair()
    for chosen in ((), (1, 2)):
        swapped = published(coder, states, columns(*chosen), 1.0)[:, 0]
        assert torch.allclose(swapped, states.donor[:, 0], atol=1e-6)


def test_where_no_state_predicts_the_answer_nothing_is_swapped() -> None:
    states = pair()._replace(summary=torch.zeros(ROWS, POSITIONS, dtype=torch.bool))
    assert torch.equal(summary_swapped(states), states.own)
