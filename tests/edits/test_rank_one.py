"""The closed forms of rank-one edits, held against the whole linear systems that they stand for."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from audit.edits._rank_one import covariance_factors, leading_directions, null_space_factors

UNITS, D = 40, 24


def drawn(concepts: int, held: int, seed: int) -> tuple[Tensor, Tensor, Tensor]:
    """Keys, residuals, and orthonormal directions that are held."""
    rng = torch.Generator().manual_seed(seed)
    keys, residuals = (torch.randn(concepts, n, generator=rng, dtype=torch.float64) for n in (UNITS, D))
    held_directions = torch.linalg.qr(torch.randn(UNITS, max(held, 1), generator=rng, dtype=torch.float64)).Q[:, :held]
    return keys, residuals, held_directions


def whole(keys: Tensor, residuals: Tensor, held: Tensor, ridge: float, cache: Tensor) -> Tensor:
    """The published system, unit x unit: (P (K K^T + cache) + ridge I) dV = P K R."""
    p = torch.eye(UNITS, dtype=torch.float64) - held @ held.T
    system = p @ (keys.T @ keys + cache) + ridge * torch.eye(UNITS, dtype=torch.float64)
    return torch.linalg.solve(system, p @ keys.T @ residuals)


@given(st.integers(1, 6), st.integers(0, 30), st.sampled_from([1e-3, 0.1, 1.0, 10.0]), st.integers(0, 10**6))
@settings(max_examples=60, deadline=None)
def test_closed_form_is_the_solution_of_the_whole_system(concepts: int, held: int, ridge: float, seed: int) -> None:
    keys, residuals, directions = drawn(concepts, held, seed)
    factors = null_space_factors(keys, residuals, directions, ridge)
    dense = whole(keys, residuals, directions, ridge, torch.zeros(UNITS, UNITS, dtype=torch.float64))
    assert (factors.delta - dense).norm() <= 1e-10 * max(1.0, float(dense.norm()))


@given(st.integers(2, 6), st.integers(0, 20), st.integers(0, 10**6))
@settings(max_examples=40, deadline=None)
def test_concepts_at_once_are_concepts_one_after_another(concepts: int, held: int, seed: int) -> None:
    """Sequentially, as the public code goes: what was edited before is in the cache and in what remains to be sent."""
    keys, residuals, directions = drawn(concepts, held, seed)
    delta, cache = torch.zeros(UNITS, D, dtype=torch.float64), torch.zeros(UNITS, UNITS, dtype=torch.float64)
    for k, r in zip(keys[:, None], residuals[:, None], strict=True):
        delta = delta + whole(k, r - k @ delta, directions, 0.5, cache)
        cache = cache + k.T @ k
    assert (null_space_factors(keys, residuals, directions, 0.5).delta - delta).norm() < 1e-9


def test_what_is_held_is_not_acted_on() -> None:
    keys, residuals, directions = drawn(3, 12, 0)
    factors = null_space_factors(keys, residuals, directions, 0.1)
    assert (directions.T @ factors.delta).norm() < 1e-10 < (keys @ factors.delta).norm()


@given(st.integers(1, 5), st.sampled_from([0.0, 0.3, 5.0]), st.integers(0, 10**6))
@settings(max_examples=40, deadline=None)
def test_covariance_form_is_the_published_one(concepts: int, weight: float, seed: int) -> None:
    """ROME: W' k = W k + r exactly. MEMIT: R K^T (weight C + K K^T)^-1."""
    keys, residuals, _ = drawn(concepts, 0, seed)
    x = torch.randn(200, UNITS, generator=torch.Generator().manual_seed(seed + 1), dtype=torch.float64)
    moment = x.T @ x / 200
    factors = covariance_factors(keys, residuals, moment, weight)
    if weight:
        dense = torch.linalg.solve(weight * moment + keys.T @ keys, keys.T @ residuals)
        assert (factors.delta - dense).norm() < 1e-9 * max(1.0, float(dense.norm()))
    else:
        assert (keys @ factors.delta - residuals).norm() < 1e-8 * float(residuals.norm())


@pytest.mark.parametrize("tokens", [15, 300])
def test_leading_directions_hold_the_stated_energy_and_no_more(tokens: int) -> None:
    x = torch.randn(tokens, UNITS, generator=torch.Generator().manual_seed(3)) * torch.linspace(0.1, 3, UNITS)
    kept = leading_directions(x, energy=0.8)
    shares = [float((x.double() @ u).square().sum() / x.double().square().sum()) for u in (kept, kept[:, :-1])]
    assert shares[0] >= 0.8 > shares[1]
    assert torch.allclose(kept.T @ kept, torch.eye(kept.shape[1], dtype=torch.float64), atol=1e-8)
    values = torch.linalg.svdvals(x.double()).square() / tokens
    assert leading_directions(x, least=1.0).shape[1] == int((values >= 1.0).sum())


def test_random_projections_hold_the_stated_energy_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("audit.edits._rank_one.EXACT", 8)
    x = torch.randn(300, UNITS, generator=torch.Generator().manual_seed(3)) * torch.logspace(0, -2, UNITS)
    kept = leading_directions(x, energy=0.95)
    assert float((x.double() @ kept).square().sum() / x.double().square().sum()) >= 0.95 - 1e-4
    assert kept.shape[1] < UNITS
