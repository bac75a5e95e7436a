"""Intervals of ratios over people, of one layer and of the largest of several, against their definitions."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats as scipy_stats

from audit import stats
from audit.stats.ratio_intervals import linearised


def kept_shares(seed: int, people: int, layers: int, skewed: bool = False) -> tuple[np.ndarray, np.ndarray]:
    """Suspect and base over the null: shares around .3 of what base knows, layers half alike."""
    rng = np.random.default_rng(seed)
    base = 0.7 + 0.1 * rng.standard_normal((people, layers))
    draw = (lambda size: rng.exponential(1, size) - 1) if skewed else rng.standard_normal
    return (0.3 + 0.2 * (draw((people, 1)) + draw((people, layers)))) * base, base


def test_without_skewness_it_is_students_interval_of_the_mean() -> None:
    half = np.random.default_rng(0).standard_normal((7, 2))
    x = np.r_[half, -half] + 2
    found, oracle = stats.ratio_bounds(x, np.ones_like(x)), scipy_stats.ttest_1samp(x, 0).confidence_interval()
    np.testing.assert_allclose(found.lo, oracle.low)
    np.testing.assert_allclose(found.hi, oracle.high)


def test_a_long_tail_moves_its_own_end_out_and_leaves_the_other() -> None:
    x = np.random.default_rng(1).exponential(1, (12, 1))
    found, oracle = stats.ratio_bounds(x, np.ones_like(x)), scipy_stats.ttest_1samp(x, 0).confidence_interval()
    assert found.lo == pytest.approx(oracle.low) and found.hi > oracle.high + 0.05
    mirrored = stats.ratio_bounds(-x, np.ones_like(x))
    assert mirrored.lo == pytest.approx(-found.hi) and mirrored.hi == pytest.approx(-found.lo)


def test_the_linearised_ratio_is_what_leaving_a_person_out_changes() -> None:
    left, base = kept_shares(2, 200, 1)
    ratio, rest = linearised(left, base, None)
    assert ratio == pytest.approx(left.sum() / base.sum()) and rest.sum() == pytest.approx(0, abs=1e-9)
    without = [np.delete(left, i).sum() / np.delete(base, i).sum() for i in range(200)]
    np.testing.assert_allclose(199 * (ratio - without), rest[:, 0], rtol=0.02, atol=1e-4)


@given(st.integers(0, 10_000), st.integers(2, 16), st.integers(1, 5), st.floats(0.1, 10))
@settings(max_examples=40, deadline=None)
def test_the_interval_holds_its_ratio_and_does_not_depend_on_the_unit(
    seed: int, people: int, layers: int, unit: float
) -> None:
    left, base = kept_shares(seed, people, layers, skewed=seed % 2 == 0)
    found, scaled = (stats.largest_ratio_bounds(u * left, u * base, 0) for u in (1, unit))
    largest = float((left.mean(0) / base.mean(0)).max())
    assert found.lo <= largest <= found.hi and found.ends == pytest.approx(scaled.ends)
    single = stats.ratio_bounds(left, base)
    assert found.hi == pytest.approx(single.hi.max()) and found.lo <= single.lo.max() + 1e-12
    if layers == 1:
        assert found.ends == pytest.approx((single.lo[0], single.hi[0]))


@pytest.mark.parametrize("people", [8, 16])
def test_the_largest_of_equal_effects_is_not_called_larger_than_they_are(people: int) -> None:
    """A bootstrap of the maximum lies above the truth in a quarter of draws."""
    over, under, boot = 0, 0, 0
    for seed in range(300):
        left, base = kept_shares(seed, people, 6, skewed=True)
        found = stats.largest_ratio_bounds(left, base, seed)
        over, under = over + (found.lo > 0.3), under + (found.hi < 0.3)
        drawn = stats.bootstrap_effect(left, base, seed, draws=199).effect.max(1)
        boot += stats.percentile_interval(drawn).lo > 0.3
    assert over + under <= scipy_stats.binom.ppf(0.999, 300, 0.07) < boot


def test_layers_that_are_copies_cost_nothing_and_independent_ones_do() -> None:
    left, base = kept_shares(3, 16, 1)
    copies = [np.repeat(x, 6, 1) for x in (left, base)]
    one, six = stats.largest_ratio_bounds(left, base, 0), stats.largest_ratio_bounds(copies[0], copies[1], 0)
    assert six.lo == pytest.approx(one.lo, abs=0.02) and six.hi == pytest.approx(one.hi)
    rng = np.random.default_rng(4)
    x = rng.standard_normal((16, 40))
    wide = stats.largest_ratio_bounds((x - x.mean(0)) / x.std(0), np.ones_like(x), 0)
    single = scipy_stats.t(15).ppf(0.975) / np.sqrt(15)
    assert wide.lo < -1.2 * single


def test_holdout_people_widen_the_interval_of_a_difference_by_their_own_spread() -> None:
    rng, forget = np.random.default_rng(5), np.arange(40) < 20
    half = [rng.standard_normal((10, 1)) for _ in range(2)]
    x = np.r_[half[0], -half[0], 3 * half[1], -3 * half[1]] + forget[:, None]
    unit = np.where(forget, 1.0, 0.0)[:, None]
    found = stats.ratio_bounds(x, unit, forget)
    oracle = scipy_stats.ttest_ind(x[forget, 0], x[~forget, 0], equal_var=False).confidence_interval()
    assert (found.lo[0], found.hi[0]) == pytest.approx((oracle.low, oracle.high))
