"""The best of k of n draws, against every subset, and against simulation."""

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import comb

from audit.stats import best_of_k


@settings(max_examples=60, deadline=None)
@given(st.lists(st.floats(0, 1), min_size=1, max_size=9), st.data())
def test_best_of_k_is_the_mean_over_every_subset(scores: list[float], data: st.DataObject) -> None:
    k = data.draw(st.integers(1, len(scores)))
    every = [max(subset) for subset in combinations(scores, k)]
    assert best_of_k(np.array([scores]), k)[0] == pytest.approx(np.mean(every), abs=1e-12)


@pytest.mark.parametrize(("n", "k"), [(32, 16), (128, 128), (200, 64), (4096, 128)])
def test_of_hits_and_misses_it_is_one_less_the_chance_of_a_subset_without_a_hit(n: int, k: int) -> None:
    for hits in {0, 1, 3, n // 2, n}:
        scores = np.random.default_rng(0).permutation(np.arange(n) < hits).astype(float)
        expected = 1 - comb(n - hits, k) / comb(n, k) if n < 1000 else 1 - _without(n, hits, k)
        assert best_of_k(scores[None], k)[0] == pytest.approx(expected, abs=1e-9)


def _without(n: int, hits: int, k: int) -> float:
    """No hit among k, drawn one after another."""
    return float(np.prod([max(n - hits - step, 0) / (n - step) for step in range(k)]))


def test_it_is_unbiased_for_the_best_of_k_new_draws() -> None:
    rng = np.random.default_rng(1)
    estimated = best_of_k(rng.random((20_000, 8)) ** 2, 4).mean()
    simulated = (rng.random((20_000, 4)) ** 2).max(1).mean()
    assert estimated == pytest.approx(simulated, abs=0.01)
    assert (rng.random((20_000, 8)) ** 2)[:, :4].mean() < simulated - 0.2, "a mean is no best"


@pytest.mark.parametrize("k", [0, 5])
def test_more_of_the_best_than_there_are_draws_is_refused(k: int) -> None:
    with pytest.raises(ValueError, match="needs as many draws"):
        best_of_k(np.zeros((1, 4)), k)
