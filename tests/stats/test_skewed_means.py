"""The test of a mean over few people: its parts against scipy and against brute force, its level under skew."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import stats as scipy_stats

from audit import stats
from audit.stats import randomisation, skewed_means
from audit.stats.skewed_means import corrected, hall, held_back, moments, unhall

finite = st.floats(-1e3, 1e3, allow_subnormal=False).map(lambda x: round(x, 3))


def exponential(seed: int, people: int, layers: int = 3) -> np.ndarray:
    """Layers that are half alike, of mean 0."""
    rng = np.random.default_rng(seed)
    return (rng.exponential(1, (people, 1)) + rng.exponential(1, (people, layers))) / 2 - 1


def t_of(x: np.ndarray) -> np.ndarray:
    """Student's t of every layer, by scipy."""
    return np.asarray(scipy_stats.ttest_1samp(x, 0))[0]


# ---- parts
def test_moments_of_one_side_are_scipys() -> None:
    x = np.random.default_rng(0).exponential(1, (9, 2))
    moment = moments(x)
    np.testing.assert_allclose(moment.error, scipy_stats.sem(x))
    np.testing.assert_allclose(moment.skewness, scipy_stats.skew(x, bias=False) / 3, rtol=1e-9)
    np.testing.assert_allclose(moment.value / moment.error, t_of(x))
    assert moment.df.tolist() == [8, 8]


@pytest.mark.parametrize("others", [13, 40])
def test_moments_of_two_large_sides_are_welchs(others: int) -> None:
    rng = np.random.default_rng(1)
    a, b = rng.normal(0, 1, (15, 2)), rng.normal(0, 3, (others, 2))
    moment = moments(np.r_[a, b], np.arange(15 + others) < 15)
    oracle: Any = scipy_stats.ttest_ind(a, b, equal_var=False)
    np.testing.assert_allclose(moment.value / moment.error, oracle.statistic)
    np.testing.assert_allclose(moment.df, oracle.df)


def test_a_small_side_gives_its_own_degrees_of_freedom_whatever_the_other_is() -> None:
    x = np.random.default_rng(2).standard_normal((24, 1))
    assert moments(x, np.arange(24) < 4).df.tolist() == [3] and moments(x, np.arange(24) < 20).df.tolist() == [3]


def test_the_skewness_of_a_contrast_changes_its_sign_with_the_labels_and_cancels_between_alike_sides() -> None:
    x, forget = exponential(3, 12), np.arange(12) < 6
    np.testing.assert_allclose(moments(x, forget).skewness, -moments(x, ~forget).skewness)
    twice = np.r_[x[:6], x[:6]]
    np.testing.assert_allclose(moments(twice, forget).skewness, 0, atol=1e-9)


@given(st.floats(-8, 8), st.floats(-2, 2).filter(lambda a: a == 0 or abs(a) > 1e-6))
@settings(max_examples=80, deadline=None)
def test_halls_transformation_and_its_inverse_undo_each_other(q: float, skewness: float) -> None:
    a, around = np.array([skewness] * 2), np.array([q, q + 0.01])
    assert hall(unhall(around, a), a) == pytest.approx(around, abs=1e-5)
    assert np.diff(hall(around, a)) >= -1e-12


def test_hall_takes_the_skewness_out_of_the_exponential() -> None:
    """Of t at 20 people, 8 % lie below the 2.5 % point and 0.7 % above the other: less so of Hall's."""
    x = np.random.default_rng(4).exponential(1, (20, 20_000)) - 1
    moment, ends = moments(x), scipy_stats.t(19).ppf([0.025, 0.975])
    plain = moment.value / moment.error
    straight = hall(plain, moment.skewness)
    assert (plain < ends[0]).mean() > 0.06 and (plain > ends[1]).mean() < 0.008
    assert (straight < ends[0]).mean() < 0.04 and (straight > ends[1]).mean() > 0.012


@given(hnp.arrays(float, st.tuples(st.integers(2, 9), st.integers(1, 3)), elements=finite))
@settings(max_examples=80, deadline=None)
def test_the_corrected_statistic_never_says_more_than_t_and_mirrors(x: np.ndarray) -> None:
    moment, n = moments(x), len(x)
    sides, mirrored = corrected(moment, n), corrected(moments(-x), n)
    usual = np.where(moment.error > 0, moment.value / np.where(moment.error > 0, moment.error, 1), 0)
    seen = moment.error > 0
    for factor in (1.0, held_back(n)):
        slack = 1e-9 * (1 + np.abs(usual))
        assert (sides.below >= factor * usual - slack)[seen].all()
        assert (sides.above <= factor * usual + slack)[seen].all()
    np.testing.assert_allclose(sides.above, -mirrored.below, rtol=1e-9)


# ---- the test
@pytest.mark.thorough
@given(hnp.arrays(float, st.tuples(st.integers(2, 13), st.integers(1, 3)), elements=finite))
@settings(max_examples=60, deadline=None)
def test_p_mirrors_under_negation_and_stays_between_its_floor_and_one(x: np.ndarray) -> None:
    forward, mirrored = stats.mean_max_t(x, 0, draws=199), stats.mean_max_t(-x, 0, draws=199)
    assert forward.p == pytest.approx(mirrored.p_below) and forward.p_below == pytest.approx(mirrored.p)
    assert stats.least_p(len(x), 0, 199) <= forward.p <= 1 and stats.least_p(len(x), 0, 199) <= forward.p_below <= 1


@pytest.mark.parametrize("people", [12, 16])
@pytest.mark.parametrize("holdout", [0, 14])
def test_from_twelve_people_on_p_is_never_below_that_of_the_randomisations(people: int, holdout: int) -> None:
    for seed in range(30):
        x = exponential(seed, people + holdout) + 0.5
        if holdout:
            forget = np.arange(people + holdout) < people
            p, plain = stats.mean_max_t(x, 0, forget, 499), stats.label_permutation_max_t(x, forget, 0, 499)
        else:
            p, plain = stats.mean_max_t(x, 0, draws=499), stats.sign_flip_max_t(x, 0, 499)
        assert p.p >= plain.p and p.p_below >= plain.p_below and p.exact == plain.exact
        np.testing.assert_array_equal(p.null_effect, plain.null_effect)


@pytest.mark.parametrize("people", [2, 5, 11])
def test_below_twelve_people_it_is_students_p_of_the_corrected_statistic_times_the_layers(people: int) -> None:
    for seed in range(20):
        x = np.random.default_rng(seed).standard_normal((people, 3)) + 0.5
        symmetric = np.r_[x, 1 - x] if people > 4 else x
        t = t_of(symmetric)
        if len(symmetric) < stats.FEW and len(symmetric) != people:
            usual = scipy_stats.t.sf(held_back(len(symmetric)) * t, len(symmetric) - 1)
            assert stats.mean_max_t(symmetric, 0).p == pytest.approx(min(1, 3 * usual.min()))
        moment = moments(x)
        expected = 3 * scipy_stats.t.sf(corrected(moment, people).above, people - 1).min()
        assert stats.mean_max_t(x, 0).p == pytest.approx(np.clip(expected, stats.least_p(people, 0), 1))


@pytest.mark.parametrize(("people", "holdout"), [(2, 0), (6, 0), (8, 0), (3, 4), (7, 6)])
def test_equal_people_say_no_more_than_their_signs_or_labels_can(people: int, holdout: int) -> None:
    """Without any spread Student's t is endless; what so few people show is one of so many randomisations."""
    x, forget = np.r_[np.ones((people, 1)), np.zeros((holdout, 1))], np.arange(people + holdout) < people
    result = stats.mean_max_t(x, 0, forget if holdout else None)
    plain = stats.label_permutation_max_t(x, forget, 0) if holdout else stats.sign_flip_max_t(x, 0)
    assert result.p == pytest.approx(plain.p) and result.p_below == 1
    assert stats.mean_max_t(0 * x, 0, forget if holdout else None).p >= 0.5


def test_one_person_on_a_side_is_judged_by_labels_alone() -> None:
    x, forget = np.r_[5.0, np.random.default_rng(0).standard_normal(30)][:, None], np.arange(31) < 1
    assert stats.mean_max_t(x, 0, forget).p == stats.label_permutation_max_t(x, forget, 0).p == 1 / 31
    assert stats.mean_max_t(x[:1], 0).p == 0.5


@pytest.mark.sampled
@pytest.mark.parametrize("people", [4, 8, 12, 16])
@pytest.mark.parametrize("side", ["below", "above"])
def test_skewed_people_are_called_too_high_or_too_low_no_more_often_than_promised(people: int, side: str) -> None:
    """Three layers of exponential people, either way round: at .01 at most 1.5 %, give or take the draws."""
    sign, draws = 1 if side == "below" else -1, 600
    results = [stats.mean_max_t(sign * exponential(seed, people), seed, draws=299) for seed in range(draws)]
    false = sum((test.p_below if side == "below" else test.p) < 0.01 for test in results)
    assert false <= scipy_stats.binom.ppf(0.999, draws, 0.015)


@pytest.mark.sampled
@pytest.mark.parametrize(("people", "holdout"), [(6, 6), (9, 9), (14, 14), (14, 40)])
def test_skewed_people_beside_even_ones_are_called_too_low_no_more_often_than_promised(
    people: int, holdout: int
) -> None:
    forget, draws, false = np.arange(people + holdout) < people, 500, 0
    for seed in range(draws):
        even = 0.1 * np.random.default_rng([seed, 1]).standard_normal((holdout, 3))
        false += stats.mean_max_t(np.r_[exponential(seed, people), even], seed, forget, 299).p_below < 0.01
    assert false <= scipy_stats.binom.ppf(0.999, draws, 0.015)


def test_what_is_held_back_shrinks_with_people_and_is_nothing_for_many() -> None:
    factors = [held_back(n) for n in range(2, 400)]
    assert factors == sorted(factors) and factors[0] == 0.38 and factors[-1] > 0.99
    assert skewed_means.judged_by_t(11, 0) and not skewed_means.judged_by_t(12, 0)
    assert skewed_means.judged_by_t(30, 7) and not skewed_means.judged_by_t(30, 8)
    assert not skewed_means.judged_by_t(30, 1)


@pytest.mark.parametrize("others", [0, 5])
def test_of_few_people_p_is_students_of_the_corrected_statistic_for_as_many_sides(others: int) -> None:
    x = exponential(11, 8 + others) + 0.9
    forget = np.arange(8 + others) < 8 if others else None
    fewest = 5 if others else 8
    moment = moments(x, forget)
    said = corrected(moment, fewest, 2 if others else 1)
    found = stats.mean_max_t(x, 0, forget, draws=99)
    for p, tail in (
        (found.p, scipy_stats.t.sf(said.above, moment.df)),
        (found.p_below, scipy_stats.t.cdf(said.below, moment.df)),
    ):
        assert p == pytest.approx(min(1.0, 3 * max(tail.min(), 1e-4)))
    assert held_back(fewest, 1) != held_back(fewest, 2)


def test_more_than_a_few_people_are_judged_by_the_corrected_statistic_among_randomisations() -> None:
    x, forget = exponential(12, 20, 1) + 0.5, np.arange(20) < 11
    for labels, n, sides in ((None, 20, 1), (forget, 9, 2)):
        family = randomisation.family(x, 5, labels, 499)
        said = corrected(moments(x, labels), n, sides).above
        by_draws = randomisation.judge(family, said, said).p
        by_t = float(scipy_stats.t.sf(said, moments(x, labels).df)[0])
        assert stats.mean_max_t(x, 5, labels, 499).p == pytest.approx(max(by_draws, by_t))


def test_the_third_cumulant_of_two_sides_is_scipys() -> None:
    rng = np.random.default_rng(13)
    a, b = rng.exponential(1, 7), rng.exponential(2, 11)
    third = scipy_stats.kstat(a, 3) / 7**2 - scipy_stats.kstat(b, 3) / 11**2
    moment = moments(np.r_[a, b][:, None], np.arange(18) < 7)
    assert moment.skewness[0] * moment.error[0] ** 3 == pytest.approx(third)
    assert moments(np.r_[a[:2], b[:2]][:, None], np.arange(4) < 2).skewness[0] == 0, "two people show none"
