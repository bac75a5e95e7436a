"""Sparse statistics: one person of sixteen stands out, null people do not, and what cannot be studentised is absent."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import stats as scipy_stats

from audit.stats.sparse_effects import higher_criticism, sparse


def direct(p: list[float]) -> float:
    """The definition, one p after another; p below 1/n^2 counts as that."""
    n, values = len(p), []
    for i, one in enumerate(sorted(p)[: max(1, n // 2)], 1):
        one = min(max(one, 1 / max(n, 2) ** 2), 1 - 1e-12)
        values.append(n**0.5 * (i / n - one) / (one * (1 - one)) ** 0.5)
    return max(values)


@given(hnp.arrays(float, st.integers(1, 20), elements=st.floats(0, 1)))
def test_higher_criticism_equals_its_definition(p: np.ndarray) -> None:
    assert higher_criticism(p) == pytest.approx(direct(p.tolist()), rel=1e-9)


def test_higher_criticism_of_uniform_p_stays_small_and_grows_with_every_planted_one() -> None:
    rng = np.random.default_rng(0)
    null = [higher_criticism(rng.uniform(size=16)) for _ in range(2000)]
    assert np.median(null) < 1.5 and np.quantile(null, 0.9) < 4
    quiet = (np.arange(16) + 0.5) / 16
    planted = [higher_criticism(np.r_[np.full(k, 1e-9), quiet[k:]]) for k in range(9)]
    assert all(a < b for a, b in zip(planted, planted[1:], strict=False))
    assert 3 < planted[1] < 4, "one person alone gives less than sqrt(16)"


def test_one_person_of_sixteen_stands_out_where_the_mean_does_not() -> None:
    rng, seen, mean_seen, false = np.random.default_rng(1), 0, 0, 0
    for _ in range(200):
        null, clean = 0.05 * rng.standard_normal(32), 0.05 * rng.standard_normal(16)
        planted = clean + np.r_[0.5, np.zeros(15)]
        found, quiet = sparse(planted, [null]), sparse(clean, [null])
        assert found is not None and quiet is not None
        seen += found.largest_person > 5
        false += quiet.largest_person > 5
        mean_seen += bool(scipy_stats.ttest_1samp(planted, 0, alternative="greater").pvalue < 0.01)
    assert seen >= 190 and false <= 6 and mean_seen <= 20


def test_the_largest_person_is_studentised_by_median_and_median_absolute_deviation() -> None:
    null, people = np.random.default_rng(2).exponential(1, 21), np.array([0.3, 4.0])
    spread = scipy_stats.median_abs_deviation(null, scale="normal")
    found = sparse(people, [null])
    assert found is not None
    assert found.largest_person == pytest.approx((4.0 - np.median(null)) / (spread * np.sqrt(1 + np.pi / 42)), rel=1e-4)


def test_a_few_odd_null_people_do_not_hide_a_person() -> None:
    null = 0.05 * np.random.default_rng(3).standard_normal(30)
    found, spoilt = (sparse(np.r_[0.5, np.zeros(15)], [x]) for x in (null, np.r_[null[:-2], 5.0, -5.0]))
    assert found is not None and spoilt is not None
    assert spoilt.largest_person > 0.7 * found.largest_person


def test_a_person_has_to_stand_out_against_every_group_of_null_people() -> None:
    rng = np.random.default_rng(4)
    people, narrow, wide = np.r_[0.5, np.zeros(15)], 0.02 * rng.standard_normal(20), 0.5 * rng.standard_normal(20)
    both, alone = sparse(people, [narrow, wide]), sparse(people, [wide])
    assert both is not None and alone is not None
    assert both.largest_person == alone.largest_person and both.higher_criticism <= alone.higher_criticism


def test_a_common_shift_of_suspect_and_holdout_people_is_no_trace() -> None:
    rng = np.random.default_rng(5)
    people, null = 0.05 * rng.standard_normal(16), 0.05 * rng.standard_normal(16)
    assert sparse(people + 0.4, [null + 0.4]) == pytest.approx(sparse(people, [null]))


@pytest.mark.parametrize("null", [np.zeros(0), np.array([0.1, 0.2]), np.zeros(20), np.full(20, 0.3) + 1e-9])
def test_without_null_people_that_differ_there_is_no_reading(null: np.ndarray) -> None:
    assert sparse(np.ones(16), [null]) is None


def test_where_most_null_people_agree_exactly_the_standard_deviation_serves() -> None:
    null = np.r_[np.zeros(15), 0.1]
    found = sparse(np.array([1.0, 0.0]), [null])
    assert found is not None and found.largest_person == pytest.approx(1 / (null.std(ddof=1) * np.sqrt(1 + np.pi / 32)))
