"""What lies between clusters, and what a count is worth in worlds that share one base."""

import numpy as np
import pytest

from audit.stats import effective_worlds, intraclass_share, upper_bound, widened_bound


@pytest.mark.parametrize("share", [0.0, 0.3, 0.8])
def test_the_share_between_clusters_is_found_again_in_clusters_of_unequal_size(share: float) -> None:
    rng = np.random.default_rng(0)
    cluster = np.repeat(np.arange(400), rng.integers(2, 9, 400))
    score = np.sqrt(share) * rng.standard_normal(400)[cluster]
    score += np.sqrt(1 - share) * rng.standard_normal(len(cluster))
    assert intraclass_share(score, cluster) == pytest.approx(share, abs=0.05)


def test_no_share_is_stated_of_a_single_cluster_or_of_models_alone() -> None:
    assert np.isnan(intraclass_share(np.arange(4.0), np.zeros(4, int)))
    assert np.isnan(intraclass_share(np.arange(4.0), np.arange(4)))


def test_independent_worlds_are_bounded_exactly_and_worlds_alike_as_one() -> None:
    assert effective_worlds(19, 0.0) == 19
    assert widened_bound(0, 19, 0.0) == pytest.approx(upper_bound(0, 19))
    assert widened_bound(2, 19, 0.0) == pytest.approx(upper_bound(2, 19))
    assert widened_bound(0, 19, 1.0) == pytest.approx(upper_bound(0, 1))
    assert widened_bound(0, 0, 0.1) == widened_bound(3, 3, 0.1) == 1.0


def test_a_widened_bound_holds_for_other_bases_where_the_exact_one_does_not() -> None:
    """Bases differ in how often they err (a beta spread with this share); 19 worlds are drawn of one of them."""
    rng, share, rate, n = np.random.default_rng(1), 0.3, 0.2, 19
    spread = (1 - share) / share
    bases = rng.beta(rate * spread, (1 - rate) * spread, 4000)
    counts = rng.binomial(n, bases)
    widened = np.mean([widened_bound(int(k), n, share) >= rate for k in counts])
    exact = np.mean([upper_bound(int(k), n) >= rate for k in counts])
    assert widened >= 0.9 > exact
