"""The statistics against scipy, scikit-learn and brute force; randomisation tests keep their size under the null."""

from itertools import permutations, product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import stats as scipy_stats
from sklearn.metrics import roc_auc_score
from statsmodels.stats.multitest import multipletests

from audit import stats
from audit.stats import randomisation

finite = st.floats(-1e3, 1e3, allow_subnormal=False).map(lambda x: round(x, 3))


def vectors(lo: int = 2, hi: int = 9) -> st.SearchStrategy[np.ndarray]:
    return hnp.arrays(float, st.integers(lo, hi), elements=finite)


def one_sample_t(x: np.ndarray) -> float:
    return float(x.mean() / (x.std(ddof=1) / np.sqrt(len(x))))


def test_sign_flip_equals_brute_force_over_layers() -> None:
    x = np.random.default_rng(0).normal(0.4, 1, (7, 3))
    flipped = [x * np.array(signs)[:, None] for signs in product([1, -1], repeat=7)]
    top = [max(one_sample_t(f[:, j]) for j in range(3)) for f in flipped]
    bottom = [min(one_sample_t(f[:, j]) for j in range(3)) for f in flipped]
    result = stats.sign_flip_max_t(x, seed=0)
    assert result.exact
    assert result.p == pytest.approx(np.mean(np.array(top) >= max(one_sample_t(x[:, j]) for j in range(3)) - 1e-9))
    assert result.p_below == pytest.approx(
        np.mean(np.array(bottom) <= min(one_sample_t(x[:, j]) for j in range(3)) + 1e-9)
    )
    np.testing.assert_allclose(result.t, scipy_stats.ttest_1samp(x, 0).statistic, rtol=1e-9)


def test_sign_flip_null_effect_is_the_largest_flipped_mean_over_its_scale() -> None:
    x = np.random.default_rng(1).normal(0, 1, (4, 2))
    scale = np.array([2.0, 0.5])
    brute = sorted(float(((x * np.array(s)[:, None]).mean(0) / scale).max()) for s in product([1, -1], repeat=4))
    np.testing.assert_allclose(np.sort(stats.sign_flip_max_t(x, 0, scale=scale).null_effect), brute, atol=1e-12)


def test_sign_flip_drawn_agrees_with_enumeration() -> None:
    x = np.random.default_rng(2).normal(0.25, 1, (20, 2))
    drawn = stats.sign_flip_max_t(x, seed=3)
    signs = 1.0 - 2.0 * ((np.arange(2**20)[:, None] >> np.arange(20)) & 1)
    means = signs @ x / 20
    t = means / np.sqrt((x**2).sum(0) - 20 * means**2)
    exact = np.mean(t.max(1) >= t[0].max() - 1e-12)
    assert not drawn.exact
    assert drawn.p == pytest.approx(exact, abs=4 * np.sqrt(exact * (1 - exact) / 9999) + 1e-4)


@given(hnp.arrays(float, st.tuples(st.integers(1, 6), st.integers(1, 3)), elements=finite))
@settings(max_examples=60, deadline=None)
def test_sign_flip_p_mirrors_under_negation_and_never_reaches_zero(x: np.ndarray) -> None:
    forward, mirrored = stats.sign_flip_max_t(x, 0), stats.sign_flip_max_t(-x, 0)
    assert forward.p == mirrored.p_below and forward.p_below == mirrored.p
    assert 0 < forward.p <= 1 and not np.isnan(forward.t).any()


@given(hnp.arrays(float, st.tuples(st.integers(2, 6), st.just(2)), elements=finite), st.floats(0.1, 10))
@settings(max_examples=40, deadline=None)
def test_sign_flip_does_not_depend_on_the_unit_of_a_layer(x: np.ndarray, unit: float) -> None:
    assert stats.sign_flip_max_t(x * np.array([1.0, unit]), 0).p == pytest.approx(stats.sign_flip_max_t(x, 0).p)


def test_a_constant_shift_without_noise_is_the_most_extreme_sign_vector() -> None:
    result = stats.sign_flip_max_t(np.ones((8, 1)), 0)
    assert result.p == 1 / 256 and result.p_below == 1.0
    assert stats.sign_flip_max_t(np.zeros((8, 1)), 0).p == 1.0


def welch(x: np.ndarray, forget: np.ndarray) -> float:
    return float(scipy_stats.ttest_ind(x[forget], x[~forget], equal_var=False).statistic)


def test_label_permutation_equals_brute_force_over_layers() -> None:
    x = np.random.default_rng(4).normal(0, 1, (7, 2))
    forget = np.array([True] * 3 + [False] * 4)
    labels = {tuple(np.array(order) < 3) for order in permutations(range(7))}
    top = [max(welch(x[:, j], np.array(lab)) for j in range(2)) for lab in labels]
    observed = max(welch(x[:, j], forget) for j in range(2))
    result = stats.label_permutation_max_t(x, forget, seed=0)
    assert result.exact and result.p == pytest.approx(np.mean(np.array(top) >= observed - 1e-9))
    np.testing.assert_allclose(result.t, [welch(x[:, j], forget) for j in range(2)], rtol=1e-9)


def test_label_permutation_drawn_agrees_with_scipy_permutation_test() -> None:
    rng = np.random.default_rng(5)
    x, forget = np.r_[rng.normal(0.6, 1, 12), rng.normal(0, 1, 10)], np.arange(22) < 12

    def t(a: np.ndarray, b: np.ndarray, axis: int) -> np.ndarray:
        return scipy_stats.ttest_ind(a, b, equal_var=False, axis=axis).statistic

    oracle = scipy_stats.permutation_test(
        (x[:12], x[12:]), t, vectorized=True, n_resamples=9999, alternative="greater", rng=0
    )
    drawn = stats.label_permutation_max_t(x[:, None], forget, seed=1)
    assert not drawn.exact and drawn.p == pytest.approx(oracle.pvalue, abs=0.02)


@given(hnp.arrays(float, (7, 2), elements=finite), st.floats(-50, 50).map(lambda c: round(c, 2)))
@settings(max_examples=40, deadline=None)
def test_label_permutation_ignores_a_shift_of_the_whole_model(x: np.ndarray, shift: float) -> None:
    forget = np.arange(7) < 3
    moved = stats.label_permutation_max_t(x + shift, forget, 0)
    assert moved.p == pytest.approx(stats.label_permutation_max_t(x, forget, 0).p)


@pytest.mark.parametrize("test", ["sign", "label"])
def test_randomisation_p_is_uniform_under_the_null(test: str) -> None:
    rng, forget = np.random.default_rng(6), np.arange(10) < 5
    p = []
    for seed in range(400):
        x = rng.standard_t(3, (10, 1)) + rng.normal(0, 0.5, (10, 3))
        result = (
            stats.sign_flip_max_t(x, seed) if test == "sign" else stats.label_permutation_max_t(x + 1, forget, seed)
        )
        p.append((result.p, result.p_below))
    for one_side in np.array(p).T:
        assert scipy_stats.kstest(one_side, "uniform").pvalue > 0.001
        assert np.mean(one_side <= 0.05) <= stats.clopper_pearson(20, 400).hi


SHAPES = {
    "normal": lambda rng, shape: rng.standard_normal(shape),
    "heavy": lambda rng, shape: rng.standard_t(2, shape),
    "two lumps": lambda rng, shape: rng.choice([-1.0, 1.0], shape) + 0.01 * rng.standard_normal(shape),
    "coarse": lambda rng, shape: np.round(rng.standard_normal(shape)),
}


@pytest.mark.sampled
@pytest.mark.parametrize("people", [6, 16])
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("test", ["sign", "label"])
def test_null_p_are_never_too_small(test: str, shape: str, people: int) -> None:
    """One-sided Kolmogorov-Smirnov: p <= u in no more than u of null data, enumerated and drawn, on either side.

    Layers correlate within a person. Sign flips need symmetry, label permutations only people alike in both groups,
    so these get skewed people as well.
    """
    rng, forget, found = np.random.default_rng(11), np.arange(people) < people // 2, []
    for seed in range(250):
        x = SHAPES[shape](rng, (people, 1)) + 0.5 * SHAPES[shape](rng, (people, 3))
        result = (
            stats.sign_flip_max_t(x, seed, 199)
            if test == "sign"
            else stats.label_permutation_max_t(np.exp(x.clip(-3, 3)), forget, seed, 199)
        )
        found.append((result.p, result.p_below))
    for one_side in np.array(found).T:
        assert scipy_stats.kstest(one_side, "uniform", alternative="greater").pvalue > 0.001


def test_a_drawn_p_counts_what_was_seen_among_the_draws() -> None:
    x, forget = np.r_[np.ones(12), np.zeros(12)][:, None] + 0.01 * np.arange(24)[:, None], np.arange(24) < 12
    assert stats.sign_flip_max_t(x[:16] + 1, 0, 199).p == 1 / 200
    assert stats.label_permutation_max_t(x, forget, 0, 199).p == 1 / 200


def test_bootstrap_interval_of_the_effect_covers_the_truth() -> None:
    rng, covered = np.random.default_rng(7), 0
    for seed in range(200):
        known = 0.7 + 0.1 * rng.normal(size=(30, 1))
        left = 0.3 * known + 0.05 * rng.normal(size=(30, 1))
        lo, hi = stats.percentile_interval(stats.bootstrap_effect(left, known, seed, draws=400).effect[:, 0]).ends
        covered += lo <= 0.3 <= hi
    assert covered >= 200 * stats.clopper_pearson(190, 200).lo - 8


def test_bootstrap_effect_resamples_whole_people_within_their_label() -> None:
    numerator, forget = np.array([[1.0], [1.0], [0.0], [0.0]]), np.array([True, True, False, False])
    draws = stats.bootstrap_effect(numerator, 2 * numerator, 0, forget, draws=50)
    np.testing.assert_allclose(draws.effect, 0.5)
    np.testing.assert_allclose(draws.denominator, 2.0)


def test_a_bootstrap_draws_what_its_seed_says() -> None:
    """Written down, so that two versions of an audit with one seed say the same; and another seed draws otherwise."""
    x = np.arange(1.0, 6.0)[:, None] ** 2
    drawn = stats.bootstrap_effect(x, np.ones_like(x), 5, draws=3).effect[:, 0]
    rng = np.random.default_rng(5)
    np.testing.assert_allclose(drawn, rng.multinomial(5, [0.2] * 5, size=3) @ x[:, 0] / 5)
    again, other = (stats.bootstrap_effect(x, np.ones_like(x), seed, draws=50).effect for seed in (5, 6))
    np.testing.assert_array_equal(again, stats.bootstrap_effect(x, np.ones_like(x), 5, draws=50).effect)
    assert not np.array_equal(again, other)
    labels = np.array([True, True, True, False, False])
    drawn = stats.bootstrap_effect(x, labels[:, None] * 1.0, 5, labels, draws=3).effect[:, 0]
    rng = np.random.default_rng(5)
    knew, held = (
        rng.multinomial(m, np.full(m, 1 / m), size=3) @ x[part, 0] / m for m, part in ((3, labels), (2, ~labels))
    )
    np.testing.assert_allclose(drawn, knew - held)


@pytest.mark.parametrize("people", [2, 3, 7, 40])
@pytest.mark.parametrize("level", [0.1, 0.7, 1e-9, 3e7])
def test_an_effect_over_what_rounding_leaves_of_two_equal_means_is_none(people: int, level: float) -> None:
    forget = np.arange(people + 3) < people
    numerator, equal = forget[:, None] * 1.0, np.full((people + 3, 1), level)
    assert np.isnan(stats.bootstrap_effect(numerator, equal, 0, forget, draws=200).effect).all()
    apart = stats.bootstrap_effect(numerator, equal * (1 + 1e-9 * numerator), 0, forget, draws=200).effect
    np.testing.assert_allclose(apart, 1e9 / level, rtol=1e-5)


def test_bootstrap_of_a_mean_equals_scipy() -> None:
    x = np.random.default_rng(8).exponential(1, (25, 1))
    ours = stats.percentile_interval(stats.bootstrap_effect(x, np.ones_like(x), 0, draws=9999).effect[:, 0]).ends
    oracle = scipy_stats.bootstrap((x[:, 0],), np.mean, method="percentile", n_resamples=9999, rng=0)
    np.testing.assert_allclose(ours, oracle.confidence_interval, atol=0.03)


@given(vectors(1), vectors(1))
@settings(max_examples=60, deadline=None)
def test_auroc_equals_sklearn_with_ties(positive: np.ndarray, negative: np.ndarray) -> None:
    truth = np.r_[np.ones(len(positive)), np.zeros(len(negative))]
    assert stats.auroc(positive, negative) == pytest.approx(roc_auc_score(truth, np.r_[positive, negative]))


@given(vectors(), vectors())
@settings(max_examples=40, deadline=None)
def test_ks_distance_is_the_largest_gap_of_the_empirical_distributions(a: np.ndarray, b: np.ndarray) -> None:
    grid = np.r_[a, b]
    gap = np.abs((a <= grid[:, None]).mean(1) - (b <= grid[:, None]).mean(1)).max()
    assert stats.ks_two_sample(a, b).d == pytest.approx(gap)


@given(hnp.arrays(float, st.integers(1, 8), elements=st.floats(0, 1)))
@settings(max_examples=60, deadline=None)
def test_adjusted_p_are_monotone_and_at_least_the_raw_ones(p: np.ndarray) -> None:
    by_family, by_rate = stats.holm(p), stats.benjamini_hochberg(p)
    np.testing.assert_allclose(by_rate, scipy_stats.false_discovery_control(p), atol=1e-12)
    assert (by_family >= by_rate - 1e-12).all() and (by_rate >= p - 1e-12).all() and (by_family <= 1).all()
    assert (np.diff(by_family[np.argsort(p)]) >= -1e-12).all()


@pytest.mark.sampled
@pytest.mark.parametrize("tests", [1, 2, 7, 30])
def test_holm_and_benjamini_hochberg_equal_statsmodels(tests: int) -> None:
    p = np.round(np.random.default_rng(tests).beta(0.5, 1, tests), 2)
    np.testing.assert_allclose(stats.holm(p), multipletests(p, method="holm")[1], atol=1e-12)
    np.testing.assert_allclose(stats.benjamini_hochberg(p), multipletests(p, method="fdr_bh")[1], atol=1e-12)


def test_holm_equals_the_worked_step_down() -> None:
    np.testing.assert_allclose(stats.holm(np.array([0.01, 0.04, 0.03, 0.005])), [0.03, 0.06, 0.06, 0.02])


@pytest.mark.parametrize(("k", "n"), [(0, 5), (1, 5), (3, 10), (10, 10)])
def test_clopper_pearson_equals_scipy(k: int, n: int) -> None:
    oracle = scipy_stats.binomtest(k, n).proportion_ci(0.95, "exact")
    np.testing.assert_allclose(stats.clopper_pearson(k, n).ends, [oracle.low, oracle.high], atol=1e-10)


def test_no_error_in_59_bounds_the_rate_at_5_percent_and_in_58_does_not() -> None:
    assert stats.upper_bound(0, 59) < 0.05 < stats.upper_bound(0, 58)
    assert stats.upper_bound(0, 59) == pytest.approx(1 - 0.05 ** (1 / 59))
    assert stats.upper_bound(7, 7) == 1.0


@pytest.mark.parametrize(("k", "n", "level"), [(0, 5, 0.95), (1, 60, 0.95), (3, 10, 0.99), (9, 10, 0.95)])
def test_the_one_sided_bound_equals_scipy_and_its_own_definition(k: int, n: int, level: float) -> None:
    bound = stats.upper_bound(k, n, level)
    oracle = scipy_stats.binomtest(k, n, alternative="less").proportion_ci(level, "exact")
    assert bound == pytest.approx(oracle.high, abs=1e-10)
    assert scipy_stats.binom.cdf(k, n, bound) == pytest.approx(1 - level), "a rate this large shows so few so seldom"


@given(hnp.arrays(float, st.integers(1, 9), elements=st.floats(1e-3, 1e3)))
@settings(max_examples=30, deadline=None)
def test_harmonic_mean_equals_scipy_and_collapses_at_zero(x: np.ndarray) -> None:
    assert stats.harmonic_mean(x) == pytest.approx(scipy_stats.hmean(x))
    assert stats.harmonic_mean(np.r_[x, 0.0]) == 0.0
    with pytest.raises(ValueError, match="negative"):
        stats.harmonic_mean(np.r_[x, -1.0])


def test_quantile_summary_has_101_monotone_points() -> None:
    q = stats.quantile_summary(np.random.default_rng(10).normal(size=999))
    assert len(q) == 101 and list(q) == sorted(q)


@given(st.lists(st.lists(finite, min_size=0, max_size=7), min_size=1, max_size=5), st.floats(0.05, 1))
@settings(max_examples=60, deadline=None)
def test_min_k_is_the_mean_of_the_lowest_tokens_of_each_row(rows: list[list[float]], k: float) -> None:
    values = np.array([x for row in rows for x in row])
    names = np.array([i for i, row in enumerate(rows) for _ in row], dtype=int)
    expected = [np.mean(sorted(row)[: max(int(len(row) * k), 1)]) if row else np.nan for row in rows]
    np.testing.assert_allclose(stats.min_k(values, names, len(rows), k), expected, atol=1e-9)


def test_randomisations_are_enumerated_up_to_their_limit_and_no_further() -> None:
    x = np.random.default_rng(12).standard_normal((18, 1))
    assert randomisation.EXACT_UP_TO == 2**13
    assert stats.sign_flip_max_t(x[:13], 0).exact and not stats.sign_flip_max_t(x[:14], 0, 99).exact
    assert len(stats.sign_flip_max_t(x[:13], 0).null_effect) == 2**13
    assert stats.label_permutation_max_t(x[:17], np.arange(17) < 5, 0).exact
    assert not stats.label_permutation_max_t(x, np.arange(18) < 5, 0, 99).exact
    for groups, others, least in ((13, 0, 2.0**-13), (14, 0, 1 / 100), (5, 12, 1 / 6188), (5, 13, 1 / 100)):
        assert randomisation.least_p(groups, others, 99) == least


def test_drawn_labels_are_the_smallest_of_the_seeds_numbers() -> None:
    labels, exact = randomisation._labels(20, 9, 40, 3)
    order = np.random.default_rng(3).random((40, 20)).argsort(1)
    assert not exact and [set(np.flatnonzero(row)) for row in labels] == [set(row[:9]) for row in order]


def test_drawn_signs_are_those_of_the_seed() -> None:
    x = np.random.default_rng(13).standard_normal((14, 2))
    signs = np.random.default_rng(4).choice([-1.0, 1.0], size=(30, 14))
    np.testing.assert_allclose(stats.sign_flip_max_t(x, 4, 30).null_effect, (signs @ x / 14).max(1))
