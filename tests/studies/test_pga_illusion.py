"""How the study reads an edited model: each reading against a plain loop, and the artefact on planted states."""

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler
from torch import Tensor

from studies.pga_illusion.readings import fitted, frozen, refitted, sign_free, summary
from studies.pga_illusion.subjects import _dealt

PAIRS, WIDTH = 12, 20
PERSON = tuple(f"p{i // 2}" for i in range(PAIRS))


def planted(shift: float, seed: int = 0) -> Tensor:
    """Two depths of pairs of states: learned texts (first of a pair) are moved by ``shift`` along one direction."""
    rng = torch.Generator().manual_seed(seed)
    x = torch.randn(2, 2 * PAIRS, WIDTH, generator=rng, dtype=torch.float64)
    x[:, ::2, 0] += shift
    return x


def matched(x: Tensor) -> Tensor:
    """The same states with the two classes' means made equal, as an edit of these very texts makes them."""
    out = x.clone()
    out[:, ::2] -= x[:, ::2].mean(1, keepdim=True) - x[:, 1::2].mean(1, keepdim=True)
    return out


def test_refitted_accuracy_equals_scikit_learn_fitted_without_each_pair() -> None:
    x = planted(1.0)
    found = refitted(x)
    y, pair = np.tile([1, 0], PAIRS), np.arange(2 * PAIRS) // 2
    for depth in range(2):
        raw = x[depth].numpy()
        for k in range(PAIRS):
            scaler = StandardScaler().fit(raw[pair != k])
            slow = LogisticRegression(C=1.0, max_iter=2000).fit(scaler.transform(raw[pair != k]), y[pair != k])
            assert found[depth, k] == pytest.approx(slow.score(scaler.transform(raw[pair == k]), y[pair == k]))


def test_matching_the_means_of_the_probed_texts_turns_a_refitted_probe_round_and_leaves_fresh_texts_readable() -> None:
    x, fresh = planted(4.0), planted(4.0, seed=1)
    assert refitted(x).mean() > 0.8
    assert refitted(matched(x)).mean() < 0.2
    moved = fresh.clone()
    moved[:, ::2] -= x[:, ::2].mean(1, keepdim=True) - x[:, 1::2].mean(1, keepdim=True)
    assert refitted(moved).mean() > 0.5


def test_frozen_probe_is_the_one_that_was_fitted_before() -> None:
    x = planted(4.0)
    probe = fitted(x)
    assert frozen(probe, x).mean() > 0.95
    assert frozen(probe, x[:, torch.arange(2 * PAIRS).view(-1, 2).flip(1).flatten()]).mean() < 0.05
    assert abs(frozen(probe, matched(x)).mean() - 0.5) < 0.3


def test_sign_free_reading_counts_either_sign() -> None:
    alone = tuple(str(i) for i in range(PAIRS))
    there, inverted = sign_free(planted(4.0), alone, 0, 199), sign_free(matched(planted(4.0)), alone, 0, 199)
    assert there["largest_distance_from_half"] == 0.5 and float(str(there["p"])) < 0.05
    assert np.max(inverted["concordance"]) < 0.2 and float(str(inverted["largest_distance_from_half"])) > 0.3


def test_summary_takes_people_and_not_pairs_as_the_unit() -> None:
    by_pair = np.repeat([[1.0, 0.0, 1.0, 0.0, 1.0, 0.0]], 2, axis=1)
    found = summary(by_pair, PERSON, 0)
    assert found["people"] == 6 and found["mean"] == 0.5 and found["by_depth"] == [0.5]
    lo, hi = found["mean_ci95"]  # type: ignore[misc]
    rows = np.random.default_rng(0).choice(by_pair[0], (4000, 12)).mean(1)
    assert hi - lo > 1.2 * (np.percentile(rows, 97.5) - np.percentile(rows, 2.5))


def test_texts_are_dealt_to_people_in_turn() -> None:
    assert _dealt(("a", "a", "a", "b", "b", "c"), 4).tolist() == [0, 1, 3, 5]
