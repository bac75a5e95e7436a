"""Which features speak for an answer, and which stand in their place."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import f1_score

from saes import Activity, activity, expert_features, matched_sets
from saes.expert_features import f1_scores, widely_active
from tests.saes.planted_rows import random_coder


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 999))
def test_f1_is_that_of_a_test_by_the_feature(seed: int) -> None:
    g = torch.Generator().manual_seed(seed)
    active, own = torch.rand(30, 4, generator=g) < 0.4, torch.rand(30, generator=g) < 0.3
    wanted = [f1_score(own.numpy(), active[:, j].numpy(), zero_division=0) for j in range(4)]
    assert f1_scores(active, own).numpy() == pytest.approx(wanted)


def test_experts_are_the_best_of_those_that_speak_for_few_classes() -> None:
    kind = torch.arange(40) % 4
    active = torch.zeros(40, 5, dtype=torch.bool)
    active[:, 0] = True  # fires everywhere: would be a test of recall 1
    active[:, 1] = kind == 2
    active[:, 2] = (kind == 2) & (torch.arange(40) < 20)
    active[:, 3] = kind == 1
    assert widely_active(active, kind).tolist() == [True, False, False, False, False]
    assert expert_features(active, kind, 2, 3).tolist() == [1, 2]
    assert expert_features(active, kind, 1, 1).tolist() == [3]
    assert expert_features(active, kind, 0, 3).tolist() == []


def test_activity_counts_the_described_states_alone() -> None:
    coder = random_coder("relu")
    codes = torch.zeros(2, 3, 10)
    codes[0, 1, 4], codes[1, 0, 4], codes[1, 2, 7] = 2.0, 6.0, 3.0
    described = torch.tensor([[True, True, False], [True, False, False]])
    seen = activity(coder, codes, described)
    assert seen.active[:, 4].tolist() == [True, True] and not seen.active[:, 7].any()
    assert seen.rate[4] == pytest.approx(2 / 3) and seen.rate[7] == 0
    assert seen.size[4] == pytest.approx(4.0 * float(coder.W_dec[4].norm())) and seen.size[7] == 0


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 999))
def test_matched_sets_are_alike_in_rate_and_size_and_hold_no_expert(seed: int) -> None:
    rng = np.random.default_rng(seed)
    n = 400
    seen = Activity(torch.zeros(1, n, dtype=torch.bool), rng.random(n), rng.random(n))
    experts = torch.from_numpy(rng.choice(n, 8, replace=False))
    excluded = torch.from_numpy(rng.choice(n, 20, replace=False))
    sets = matched_sets(experts, excluded, seen, 30, seed)
    assert sets.shape == (30, 8)
    assert not np.isin(sets.numpy(), experts.numpy()).any() and not np.isin(sets.numpy(), excluded.numpy()).any()
    assert all(len(set(drawn)) == 8 for drawn in sets.tolist())
    for numbers in (seen.rate, seen.size):
        assert abs(numbers[sets.numpy()] - numbers[experts.numpy()]).max() < 0.25
    assert torch.equal(sets, matched_sets(experts, excluded, seen, 30, seed))
    assert len({tuple(drawn) for drawn in sets.tolist()}) > 5


def test_features_that_never_fire_stand_in_for_nobody() -> None:
    rate = np.array([0.01, 0.9, 0.0, 0.8, 0.0])
    seen = Activity(torch.zeros(1, 5, dtype=torch.bool), rate, rate)
    sets = matched_sets(torch.tensor([0]), torch.tensor([0]), seen, 20, 0)
    assert set(sets.flatten().tolist()) <= {1, 3}, "however near the silent ones are"
