"""Every unlearning loss against a dense computation from logits that shares no code with it."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import expit, log_softmax

from audit.bench.shapes import Forward
from audit.edits import _losses

VOCAB = 11


def forward_of(seed: int, lengths: tuple[int, ...]) -> Forward:
    """Random scored answers of the given lengths; every third token is content, and each row has one."""
    generator = torch.Generator().manual_seed(seed)
    n = sum(lengths)
    logits = 3 * torch.randn(n, VOCAB, generator=generator)
    target = torch.randint(VOCAB, (n,), generator=generator)
    row = torch.repeat_interleave(torch.arange(len(lengths)), torch.tensor(lengths))
    key = torch.arange(n) % 3 == 0
    return Forward(logits.log_softmax(-1).gather(-1, target[:, None])[:, 0], logits, target, row, key, {})


def dense_nll(forward: Forward) -> np.ndarray:
    """Per-token negative log-likelihood by scipy, in double precision."""
    scores = log_softmax(forward.logits.double().numpy(), axis=-1)
    return -scores[np.arange(len(scores)), forward.target.numpy()]


lengths = st.lists(st.integers(1, 6), min_size=1, max_size=5).map(tuple)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10_000), lengths)
def test_nll_is_the_token_mean_and_ascent_its_negative(seed: int, lengths: tuple[int, ...]) -> None:
    some = forward_of(seed, lengths)
    assert _losses.nll(some).item() == pytest.approx(dense_nll(some).mean(), rel=1e-5)
    assert _losses.ascent(some).item() == pytest.approx(-dense_nll(some).mean(), rel=1e-5)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10_000), lengths, st.floats(0.01, 1))
def test_npo_sums_over_the_sequence_and_averages_over_rows(seed: int, lengths: tuple[int, ...], beta: float) -> None:
    live, frozen = forward_of(seed, lengths), forward_of(seed + 1, lengths)
    frozen = frozen._replace(target=live.target)
    frozen = frozen._replace(logprob=torch.tensor(-dense_nll(frozen), dtype=torch.float32))
    borders = np.cumsum(lengths)[:-1]
    gains = [a.sum() - b.sum() for a, b in zip(
        np.split(dense_nll(live), borders), np.split(dense_nll(frozen), borders), strict=True
    )]  # fmt: skip
    expected = np.mean([-(2 / beta) * np.log(expit(beta * gain)) for gain in gains])
    assert _losses.npo(live, frozen, beta).item() == pytest.approx(expected, rel=1e-4)


def test_npo_at_the_start_is_two_log_two_over_beta() -> None:
    some = forward_of(3, (4, 2))
    assert _losses.npo(some, some, 0.1).item() == pytest.approx(2 / 0.1 * np.log(2), rel=1e-5)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10_000), lengths)
def test_unlikelihood_counts_content_tokens_only(seed: int, lengths: tuple[int, ...]) -> None:
    some = forward_of(seed, lengths)
    p = np.exp(-dense_nll(some))[some.key.numpy()]
    assert _losses.unlikelihood(some).item() == pytest.approx(np.mean(-np.log1p(-p)), rel=1e-3)


def test_unlikelihood_of_a_certain_token_stays_finite() -> None:
    logits = torch.tensor([[60.0, 0.0]], requires_grad=True)
    some = Forward(logits.log_softmax(-1)[:, 0], logits, torch.tensor([0]), torch.tensor([0]), torch.tensor([True]), {})
    assert torch.isfinite(_losses.unlikelihood(some))


def test_gradient_difference_climbs_forget_and_descends_retain() -> None:
    forget, retain = forward_of(1, (3, 4)), forward_of(2, (2, 5))
    expected = -0.5 * dense_nll(forget).mean() + 2 * dense_nll(retain).mean()
    assert _losses.grad_diff(forget, retain, gamma=0.5, alpha=2).item() == pytest.approx(expected, rel=1e-5)


def test_replacement_descends_both_sides() -> None:
    other, retain = forward_of(1, (3, 4)), forward_of(2, (2, 5))
    expected = 0.5 * dense_nll(other).mean() + 2 * dense_nll(retain).mean()
    assert _losses.replacement(other, retain, gamma=0.5, alpha=2).item() == pytest.approx(expected, rel=1e-5)


def test_sequence_nll_adds_each_rows_tokens() -> None:
    some = forward_of(5, (1, 4, 2))
    parts = np.split(dense_nll(some), [1, 5])
    assert _losses.sequence_nll(some, 3).numpy() == pytest.approx([part.sum() for part in parts], rel=1e-5)
