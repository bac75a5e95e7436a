"""The largest of many candidates: exact where the tail is exponential, and not hidden by others that stand out."""

import numpy as np
import pytest
from scipy import stats as scipy_stats

from audit.stats import extreme, largest_p, more_often, robust_z
from audit.stats.extremes import FEWEST

DRAWS = 1500


def false_alarms(draw: object, n: int, alpha: float) -> float:
    rng = np.random.default_rng(5)
    return float(np.mean([largest_p(draw(rng, n)).min() <= alpha for _ in range(DRAWS)]))  # type: ignore[operator]


@pytest.mark.sampled
@pytest.mark.parametrize("n", [20, 100, 500])
@pytest.mark.parametrize("alpha", [0.05, 0.2])
def test_false_alarms_are_alpha_where_the_tail_is_exponential(n: int, alpha: float) -> None:
    rate = false_alarms(lambda rng, k: rng.exponential(2.0, k) + 7, n, alpha)
    assert abs(rate - alpha) < 4 * np.sqrt(alpha * (1 - alpha) / DRAWS)


@pytest.mark.thorough
@pytest.mark.parametrize("n", [100, 500])
def test_lighter_tails_alarm_less_often_than_alpha(n: int) -> None:
    assert false_alarms(lambda rng, k: rng.normal(size=k), n, 0.05) < 0.05
    assert false_alarms(lambda rng, k: rng.uniform(size=k), n, 0.05) < 0.01


def test_of_many_values_the_law_is_gumbels() -> None:
    n = 40_000
    x = scipy_stats.expon.ppf((np.arange(n) + 0.5) / n)
    law = scipy_stats.gumbel_r(loc=np.log(n), scale=1.0)
    for value in (np.log(n), np.log(n) + 1, np.log(n) + 3):
        p = largest_p(np.append(x, value))[-1]
        assert p == pytest.approx(law.sf(value), rel=0.05), value


def test_it_is_the_series_of_the_exact_law() -> None:
    from math import comb

    from audit.stats.extremes import _p_of_largest

    for t, n, of in ((2.0, 5, 5), (4.0, 10, 12), (7.0, 3, 20)):
        series = sum((-1) ** (j + 1) * comb(n, j) * (1 + j * t / of) ** -of for j in range(1, n + 1))
        assert _p_of_largest(np.array([t]), n, of)[0] == pytest.approx(series, rel=0.02)


@pytest.mark.parametrize("planted", [1, 5, 20])
def test_candidates_that_stand_out_do_not_hide_one_another(planted: int) -> None:
    rng = np.random.default_rng(3)
    x = np.append(rng.normal(size=400), rng.normal(30.0, 0.1, planted))
    found = extreme(x)
    assert (found.p[400:] < 1e-3).all() and (found.p[:400] > 0.05).all() and found.of == 400 + planted


def test_what_moves_the_reference_as_much_does_not_stand_out() -> None:
    rng = np.random.default_rng(4)
    reference = rng.normal(size=300)
    reference[7] = 25.0
    gains = 0.6 * reference + 0.1 * rng.normal(size=300)
    assert extreme(gains).p[7] < 1e-3
    judged = extreme(gains, reference)
    assert judged.p[7] > 0.05 and judged.reference_p < 1e-3
    gains[9] += 20.0
    assert extreme(gains, reference).p.argmin() == 9 and extreme(gains, reference).p[9] < 1e-3


def test_a_shift_or_a_unit_changes_nothing() -> None:
    x = np.random.default_rng(2).gumbel(size=80)
    np.testing.assert_allclose(largest_p(5 * x - 3), largest_p(x), atol=1e-9)
    np.testing.assert_allclose(robust_z(5 * x - 3), robust_z(x), atol=1e-9)
    normal = np.random.default_rng(2).normal(3.0, 2.0, 20_000)
    np.testing.assert_allclose(robust_z(normal).std(), 1.0, atol=0.02)


def test_few_candidates_and_equal_ones_never_stand_out() -> None:
    few = np.arange(FEWEST - 1.0)
    few[-1] = 1e9
    assert (extreme(few, few).p == 1).all() and extreme(np.zeros(0)).of == 0
    assert (extreme(np.ones(50)).p == 1).all() and (extreme(np.ones(50)).z == 0).all()


def test_more_often_is_fishers_exact_test() -> None:
    for k, n, other_k, other_n in ((5, 20, 1, 30), (0, 10, 3, 10), (10, 10, 0, 10), (0, 5, 0, 5), (3, 64, 3, 64)):
        theirs = scipy_stats.fisher_exact([[k, n - k], [other_k, other_n - other_k]], alternative="greater").pvalue
        assert more_often(np.array([k]), n, np.array([other_k]), other_n)[0] == pytest.approx(theirs)


def test_a_reference_in_which_nothing_stands_out_says_so() -> None:
    rng = np.random.default_rng(8)
    gains, bland = rng.normal(size=200), rng.normal(size=200)
    assert (
        extreme(gains, bland).reference_p == pytest.approx(float(largest_p(bland).min()))
        and extreme(gains, bland).reference_p > 0.01
    )
    assert extreme(gains).reference_p == 1.0
