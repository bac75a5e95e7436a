"""Statistics against somebody else's implementation of them, on whatever Hypothesis thinks of; and their invariants."""

import numpy as np
import pytest
import scipy.stats
from hypothesis import assume, given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from sklearn.isotonic import IsotonicRegression
from sklearn.linear_model import LogisticRegression
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.proportion import proportion_confint

from audit import stats
from audit.stats.clustered import Labelled
from audit.stats.enrichment import log10_tail
from audit.stats.monotone import balanced, cllr, pooled, ridge_logistic
from audit.stats.proportions import more_often
from audit.stats.rank_correlation import spearman
from audit.stats.ranks import midranks

LEVELS = st.floats(0, 1)
P_VALUES = arrays.arrays(float, st.integers(1, 12), elements=LEVELS)
"""Ties and ends included."""
COUNTS = st.integers(1, 60).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n)))


# ---- several tests, counts ----------------------------------------------------------------------------------------
@given(P_VALUES)
def test_adjusted_p_are_statsmodels(p: np.ndarray) -> None:
    np.testing.assert_allclose(stats.holm(p), multipletests(p, method="holm")[1], atol=1e-12)
    np.testing.assert_allclose(stats.benjamini_hochberg(p), multipletests(p, method="fdr_bh")[1], atol=1e-12)


@given(P_VALUES, st.randoms(use_true_random=False))
def test_adjusted_p_follow_their_tests_in_any_order(p: np.ndarray, order) -> None:  # type: ignore[no-untyped-def]
    places = list(range(len(p)))
    order.shuffle(places)
    for adjust in (stats.holm, stats.benjamini_hochberg):
        np.testing.assert_allclose(adjust(p[places]), adjust(p)[places], atol=1e-12)


@given(COUNTS, st.sampled_from([0.8, 0.9, 0.95, 0.99]))
def test_exact_intervals_of_a_proportion_are_scipys_and_statsmodels(count: tuple[int, int], level: float) -> None:
    k, n = count
    ours = stats.clopper_pearson(k, n, level)
    theirs = scipy.stats.binomtest(k, n).proportion_ci(level, "exact")
    assert ours.ends == pytest.approx((theirs.low, theirs.high), abs=1e-9)
    assert ours.ends == pytest.approx(proportion_confint(k, n, 1 - level, "beta"), abs=1e-9)
    assert stats.upper_bound(k, n, level) == pytest.approx(
        scipy.stats.binomtest(k, n, alternative="less").proportion_ci(level, "exact").high, abs=1e-9
    )
    assert ours.lo <= k / n <= ours.hi
    mirrored = stats.clopper_pearson(n - k, n, level)
    assert (mirrored.lo, mirrored.hi) == pytest.approx((1 - ours.hi, 1 - ours.lo), abs=1e-9)


@given(arrays.arrays(float, st.integers(0, 12), elements=st.sampled_from([-np.inf, -1.0, -0.0, 0.0, 2.5, 3.0, np.inf])))
def test_ranks_are_scipys_with_ties_and_infinities(x: np.ndarray) -> None:
    np.testing.assert_array_equal(midranks(x), scipy.stats.rankdata(x))
    np.testing.assert_array_equal(midranks(np.append(x, np.nan)), np.full(len(x) + 1, np.nan))


@given(COUNTS, COUNTS)
def test_what_happens_more_often_is_fishers_exact_test(one: tuple[int, int], other: tuple[int, int]) -> None:
    (a, n), (b, m) = one, other
    p = more_often(np.array([a]), n, np.array([b]), m)
    assert p[0] == pytest.approx(scipy.stats.fisher_exact([[a, n - a], [b, m - b]], "greater").pvalue, abs=1e-9)


@given(st.integers(0, 12), st.integers(0, 40), st.integers(12, 60))
def test_the_tail_of_a_ranking_is_scipys_hypergeometric_one(members: int, first: int, of: int) -> None:
    first = min(first, of)
    tail = log10_tail(members, first, of)
    hits = np.arange(members + 1)
    np.testing.assert_allclose(10.0**tail, scipy.stats.hypergeom.sf(hits - 1, of, members, first), atol=1e-12)
    assert tail[0] == 0.0 and (np.diff(tail[np.isfinite(tail)]) <= 1e-12).all()


def test_the_tail_of_a_ranking_never_underflows() -> None:
    """All 40 of 40 among the first 40 of a million: one over the number of choices."""
    choices = sum(np.log10(1_000_000 - i) - np.log10(40 - i) for i in range(40))
    assert log10_tail(40, 40, 1_000_000)[-1] == pytest.approx(-choices, rel=1e-9)


# ---- ranks --------------------------------------------------------------------------------------------------------
PAIRS = st.integers(3, 25).flatmap(
    lambda n: st.tuples(*[arrays.arrays(float, n, elements=st.integers(-4, 4).map(float))] * 2)
)


@given(PAIRS)
def test_rank_correlation_is_scipys_with_ties(pair: tuple[np.ndarray, np.ndarray]) -> None:
    x, y = pair
    if len(set(x)) == 1 or len(set(y)) == 1:
        assert np.isnan(spearman(x, y))
        return
    assert spearman(x, y) == pytest.approx(scipy.stats.spearmanr(x, y).statistic, abs=1e-12)
    assert spearman(x, -y) == pytest.approx(-spearman(y, x), abs=1e-12)
    assert spearman(np.exp(x), y) == pytest.approx(spearman(x, y), abs=1e-12), "only the order counts"


@given(PAIRS)
def test_the_distance_of_two_samples_is_that_of_their_distribution_functions(
    pair: tuple[np.ndarray, np.ndarray],
) -> None:
    x, y = pair
    at = np.concatenate([x, y])
    gap = np.abs((x[:, None] <= at).mean(0) - (y[:, None] <= at).mean(0)).max()
    found = stats.ks_two_sample(x, y)
    assert found.d == pytest.approx(gap, abs=1e-12) and 0 <= found.p <= 1
    assert stats.auroc(x, y) == pytest.approx(1 - stats.auroc(y, x), abs=1e-12)
    wins = (x[:, None] > y).mean() + (x[:, None] == y).mean() / 2
    assert stats.auroc(x, y) == pytest.approx(wins, abs=1e-12)


# ---- bootstrap ----------------------------------------------------------------------------------------------------
PANEL = arrays.arrays(float, st.tuples(st.integers(2, 8), st.integers(1, 3)), elements=st.floats(-5, 5, width=32))


@given(PANEL, st.floats(-3, 3, width=32), st.integers(0, 2**32))
def test_an_effect_that_everybody_shows_is_that_effect_in_every_draw(
    panel: np.ndarray, share: float, seed: int
) -> None:
    base = np.abs(panel) + 1
    drawn = stats.bootstrap_effect(share * base, base, seed, draws=20)
    np.testing.assert_allclose(drawn.effect, share, atol=1e-6)
    assert (drawn.denominator >= base.min(0) - 1e-9).all() and (drawn.denominator <= base.max(0) + 1e-9).all()


@given(PANEL, st.integers(0, 2**32))
def test_a_draw_is_a_mean_of_as_many_people_as_there_are(panel: np.ndarray, seed: int) -> None:
    people = len(panel)
    one_hot = np.eye(people)
    weights = stats.bootstrap_effect(one_hot, np.ones_like(one_hot), seed, draws=30).effect
    np.testing.assert_allclose(weights.sum(1), 1.0)
    np.testing.assert_allclose(weights * people, np.round(weights * people), atol=1e-9)
    drawn = stats.bootstrap_effect(panel, np.ones_like(panel), seed, draws=30)
    np.testing.assert_allclose(drawn.effect, weights @ panel, atol=1e-9)


@given(arrays.arrays(float, st.integers(1, 40), elements=st.floats(-9, 9) | st.just(np.nan)))
def test_a_percentile_interval_is_the_quantiles_of_what_is_a_number(draws: np.ndarray) -> None:
    known = draws[~np.isnan(draws)]
    assume(len(known))
    ends = stats.percentile_interval(draws).ends
    assert ends == pytest.approx(tuple(scipy.stats.mstats.mquantiles(known, [0.025, 0.975], 1, 1)), abs=1e-9)


# ---- monotone -----------------------------------------------------------------------------------------------------
@st.composite
def labelled(draw: st.DrawFn) -> tuple[Labelled, np.ndarray]:
    """Scores with ties, both labels in every cluster, and weights."""
    n = 2 * draw(st.integers(2, 10))
    score = draw(arrays.arrays(float, n, elements=st.integers(-4, 4).map(float)))
    weight = draw(arrays.arrays(float, n, elements=st.floats(0.1, 3)))
    return Labelled(score, np.arange(n) % 2 == 0, np.arange(n) // 2), weight


@given(labelled())
def test_pooled_violators_are_sklearns_isotonic_regression(given_data: tuple[Labelled, np.ndarray]) -> None:
    data, weight = given_data
    found = pooled(data, weight)
    heavy = np.where(data.knows, weight[data.knows].sum(), weight[~data.knows].sum())
    theirs = IsotonicRegression().fit(data.score, data.knows, sample_weight=weight / heavy)
    np.testing.assert_allclose(found.p, theirs.predict(found.x), atol=1e-9)
    assert found.knowing.sum() == pytest.approx(1) == found.clean.sum()


@given(labelled(), st.sampled_from([0.1, 1.0, 5.0]))
def test_ridge_logistic_is_sklearns(given_data: tuple[Labelled, np.ndarray], ridge: float) -> None:
    data, weight = given_data
    x = np.column_stack([data.score, np.cos(np.arange(len(weight)))])
    ours = ridge_logistic(x, data.knows, weight, ridge)
    theirs = LogisticRegression(C=1 / ridge, tol=1e-10, max_iter=5000).fit(x, data.knows, sample_weight=weight)
    np.testing.assert_allclose([ours.intercept, *ours.slope], [*theirs.intercept_, *theirs.coef_[0]], atol=2e-4)


@given(labelled())
def test_balanced_weights_make_both_labels_equally_heavy(given_data: tuple[Labelled, np.ndarray]) -> None:
    data, _ = given_data
    clusters = int(data.cluster.max()) + 1
    weight = balanced(data, np.arange(1.0, clusters + 1))
    assert weight[data.knows].sum() == pytest.approx(weight[~data.knows].sum())
    assert weight.sum() == pytest.approx(clusters * (clusters + 1)), "each cluster as often as it counts, both labels"


@given(arrays.arrays(float, st.integers(2, 20), elements=st.floats(-3, 3)))
def test_the_cost_of_ratios_is_the_mean_of_both_labels_logarithms(log10: np.ndarray) -> None:
    knows = np.arange(len(log10)) % 2 == 0
    ratio = 10.0**log10
    by_hand = (np.log2(1 + 1 / ratio[knows]).mean() + np.log2(1 + ratio[~knows]).mean()) / 2
    assert cllr(log10, knows) == pytest.approx(by_hand, rel=1e-9)
    assert cllr(np.zeros_like(log10), knows) == pytest.approx(1.0)
