"""Likelihood ratios: both ways against scikit-learn and brute force, limits on any table, 1 where nothing is known."""

import itertools
from itertools import combinations_with_replacement

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.isotonic import IsotonicRegression
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss

from audit.schema import AuditError
from audit.stats import Labelled, Scale, labelled
from audit.stats.clustered import folds, resamples
from audit.stats.likelihood_ratio import _ends, elub, fit_scale, held_out, limits, limits_held_out, ratio
from audit.stats.monotone import Step, balanced, cllr, fit, pooled, ridge_logistic, rising_logistic
from tests.stats.test_clusters import crossed, nested


def ones(data: Labelled) -> np.ndarray:
    return np.ones(data.holds.shape[1])


# ---- the two ways -------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("ridge", [0.01, 1.0, 10.0])
def test_ridge_logistic_equals_sklearn(ridge: float) -> None:
    rng = np.random.default_rng(0)
    x, weight = rng.standard_normal((60, 3)), rng.uniform(0.2, 2, 60)
    knows = rng.uniform(size=60) < 1 / (1 + np.exp(-x @ [1.0, -0.5, 0.0] - 0.3))
    ours = ridge_logistic(x, knows, weight, ridge)
    oracle = LogisticRegression(C=1 / ridge, tol=1e-10, max_iter=10_000).fit(x, knows, sample_weight=weight)
    np.testing.assert_allclose(ours.slope, oracle.coef_[0], atol=1e-4)
    assert ours.intercept == pytest.approx(oracle.intercept_[0], abs=1e-4)


def test_ridge_keeps_separated_labels_finite() -> None:
    x = np.r_[np.full(5, 100.0), np.full(5, -100.0)][:, None]
    found = ridge_logistic(x, x[:, 0] > 0, np.ones(10), 1e-6)
    assert np.isfinite(found.slope).all() and found.slope[0] > 0


def test_rising_logistic_is_the_best_fit_of_any_choice_of_features_whose_slopes_rise() -> None:
    """By brute force: the cheapest free fit among all subsets of features that needs no falling slope."""
    rng = np.random.default_rng(3)
    x, weight = rng.standard_normal((80, 4)) @ (np.eye(4) + 0.5), rng.uniform(0.2, 2, 80)
    knows = rng.uniform(size=80) < 1 / (1 + np.exp(-x @ [1.0, -0.8, 0.4, 0.0]))

    def cost(intercept: float, slope: np.ndarray) -> float:
        eta = intercept + x @ slope
        return float((weight * (np.logaddexp(0, eta) - knows * eta)).sum() + (slope**2).sum() / 2)

    best = np.inf
    for size in range(5):
        for chosen in itertools.combinations(range(4), size):
            free = ridge_logistic(x[:, chosen], knows, weight)
            if (free.slope >= 0).all():
                slope = np.zeros(4)
                slope[list(chosen)] = free.slope
                best = min(best, cost(free.intercept, slope))
    found = rising_logistic(x, knows, weight)
    assert (found.slope >= 0).all() and (found.slope == 0).any()
    assert cost(found.intercept, found.slope) == pytest.approx(best, rel=1e-8)
    assert cost(*ridge_logistic(x, knows, weight)) < best, "here the bound costs something"


def test_pool_adjacent_violators_equals_sklearn_with_ties_and_weights() -> None:
    data = crossed(1, 15)
    data = data.rescored(np.round(data.score, 1))
    weight = np.random.default_rng(2).uniform(0.1, 3, len(data.score))
    found = pooled(data, weight)
    even = np.where(data.knows, weight / weight[data.knows].sum(), weight / weight[~data.knows].sum())
    oracle = IsotonicRegression().fit(data.score, data.knows, sample_weight=even)
    np.testing.assert_allclose(found.p, oracle.predict(found.x), atol=1e-9)


def test_pool_adjacent_violators_is_the_best_monotone_curve_by_brute_force() -> None:
    data = Labelled(np.arange(5.0), np.array([False, True, False, True, True]), np.arange(5))
    grid = np.linspace(0, 1, 21)

    def squared(p: np.ndarray) -> float:
        even = np.where(data.knows, 1 / 3, 1 / 2)
        return float((even * (data.knows - p) ** 2).sum())

    best = min(squared(np.array(p)) for p in combinations_with_replacement(grid, 5))
    assert squared(pooled(data, np.ones(5)).p) <= best + 1e-12


def test_pav_ratios_are_shares_of_both_labels_with_half_a_misleading_cluster_of_either_kind() -> None:
    """Ten worlds of one knowing and one clean model: 8 of 10 clean ones score low, all knowing ones high."""
    worlds = np.arange(10)
    score = np.r_[np.ones(10), np.where(worlds < 8, 0.0, 1.0)]
    data = labelled(score, np.arange(20) < 10, np.r_[worlds, worlds])
    step = fit(data, "pav", ones(data))
    np.testing.assert_allclose(
        np.exp(step.at(np.array([0.0, 1.0]))), [(0.5 / 10.5) / (8 / 10.5), (10 / 10.5) / (2.5 / 10.5)]
    )


def test_models_of_one_cluster_share_the_weight_of_one_replication() -> None:
    data = crossed(3, 6)
    copies = Labelled(*(np.tile(x, 5) for x in data))
    np.testing.assert_allclose(balanced(copies, ones(copies)).sum(), balanced(data, ones(data)).sum())
    for way in ("logistic", "pav"):
        one, many = (fit(x, way, ones(x)).at(data.score) for x in (data, copies))
        np.testing.assert_allclose(one, many, atol=1e-6)


def test_how_many_models_of_a_label_there_are_does_not_move_the_ratios() -> None:
    """The same clean models listed five times in their own worlds: a prior, and no evidence."""
    data = crossed(3, 6)
    more = Labelled(*(np.concatenate([x, *[x[~data.knows]] * 4]) for x in data))
    for way in ("logistic", "pav"):
        one, many = (fit(x, way, ones(x)).at(data.score) for x in (data, more))
        np.testing.assert_allclose(one, many, atol=1e-6)


def test_a_cluster_drawn_twice_counts_as_two() -> None:
    data = crossed(4, 5)
    extra = data.part(data.cluster == 2)._replace(cluster=np.full(4, 5))
    doubled = Labelled(*(np.r_[a, b] for a, b in zip(data, extra, strict=True)))
    times = np.array([1.0, 1, 2, 1, 1])
    for way in ("logistic", "pav"):
        weighted, listed = fit(data, way, times).at(data.score), fit(doubled, way, ones(doubled)).at(data.score)
        np.testing.assert_allclose(weighted, listed, atol=1e-8)


# ---- limits -------------------------------------------------------------------------------------------------------
def test_limits_count_clusters_and_not_models() -> None:
    data = crossed(5, 9, each=20)
    np.testing.assert_allclose(limits(data).ends, [-1.0, 1.0])
    lopsided = labelled(np.arange(6.0), [True] * 2 + [False] * 4, [0, 1, 0, 1, 2, 2])
    np.testing.assert_allclose(limits(lopsided).ends, [-np.log10(3), np.log10(4)])


@given(st.integers(2, 6), st.integers(1, 4), st.integers(0, 10_000), st.booleans())
@settings(max_examples=20)
def test_no_ratio_exceeds_its_ceiling_on_any_table_of_scores(worlds: int, each: int, seed: int, ties: bool) -> None:
    rng = np.random.default_rng(seed)
    cluster = np.r_[np.arange(worlds), np.arange(worlds), rng.integers(0, worlds, each)]
    knows = np.r_[np.ones(worlds, bool), np.zeros(worlds, bool), rng.uniform(size=each) < 0.5]
    score = rng.standard_cauchy(len(knows)) * 10.0 ** rng.integers(-3, 4) + rng.choice([0, 5]) * knows
    data = labelled(np.round(score) if ties else score, knows, cluster)
    scale = fit_scale(data, seed, draws=5)
    assert scale.ceiling == pytest.approx(np.log10(worlds + 1), abs=1e-5) and scale.floor == -scale.ceiling
    assert (np.diff(scale.log10_lr) >= 0).all(), "a higher score is never less evidence"
    for one in (*data.score.tolist(), -1e12, 1e12):
        found = ratio(scale, one)
        assert scale.floor <= found.lo <= found.log10_lr <= found.hi <= scale.ceiling
    unseen = held_out(data, folds(data, 0), 0) if worlds > 2 else np.zeros(1)
    assert np.abs(unseen).max() <= np.log10(worlds), "a fit that saw fewer worlds has a lower ceiling"


def test_beyond_the_scores_of_known_truth_a_ratio_stays_what_it_is_there() -> None:
    data = crossed(6, 30)
    scale = fit_scale(data, 0, draws=20)
    assert ratio(scale, 1e9) == ratio(scale, float(data.score.max()))


def test_where_no_world_ever_misled_the_ratio_is_the_limit_of_the_design() -> None:
    data = crossed(8, 20, gap=100.0)
    scale = fit_scale(data, 0, draws=5)
    assert ratio(scale, float(np.median(data.score[data.knows]))).log10_lr == scale.ceiling
    assert ratio(scale, float(np.median(data.score[~data.knows]))).log10_lr == scale.floor
    fold = folds(data, 0)
    unseen = held_out(data, fold, 0)
    assert scale.floor < limits_held_out(data, fold).lo and limits_held_out(data, fold).hi < scale.ceiling
    assert np.clip(unseen, *limits_held_out(data, fold).ends) == pytest.approx(unseen, abs=0.03)


def test_a_ratio_at_its_limit_still_has_an_end_nearer_to_one() -> None:
    """Of 20 clean worlds none reached: by the exact bound up to 1 - .025 ** (1/20) of such worlds might."""
    data = crossed(8, 20, gap=100.0)
    might = 1 - 0.025 ** (1 / 20)
    scale = fit_scale(data, 0, draws=5)
    above, below = (ratio(scale, float(np.median(data.score[kind]))) for kind in (data.knows, ~data.knows))
    assert above.lo == pytest.approx(-np.log10(might), abs=1e-5) and above.hi == above.log10_lr == scale.ceiling
    assert below.hi == pytest.approx(np.log10(might), abs=1e-5) and below.lo == below.log10_lr == scale.floor


def by_hand_cost(t: float, data: Labelled) -> float:
    """Vergeer et al.: the cost of deciding by the ratio at threshold t over that of ignoring it, one pair added."""
    known, never = np.r_[data.score[data.knows], -np.inf], np.r_[data.score[~data.knows], np.inf]
    prior = 1 / (1 + t)  # the prior of knowing at which t is the threshold
    cost = prior * (known <= np.log10(t)).mean() + (1 - prior) * (never > np.log10(t)).mean()
    return float(cost / min(prior, 1 - prior))


def test_elub_ends_the_range_on_which_ratios_cost_less_than_none() -> None:
    data = crossed(7, 40, each=1, gap=2.0)
    data = data.rescored((2.0 * data.score - 2.0) / np.log(10))._replace(cluster=np.arange(80))
    bounds = elub(data)
    assert bounds.lo < -0.3 and bounds.hi > 0.3
    for t in np.linspace(bounds.lo + 1e-6, bounds.hi - 1e-6, 200):
        assert by_hand_cost(10**t, data) < 1 + 1e-9
    assert by_hand_cost(10 ** (bounds.hi + 1e-4), data) >= 1 and by_hand_cost(10 ** (bounds.lo - 1e-4), data) >= 1
    assert bounds.hi <= np.log10(41) and bounds.lo >= -np.log10(41)


def test_elub_of_two_perfect_ratios_is_one() -> None:
    assert elub(Labelled(np.array([300.0, -300.0]), np.array([True, False]), np.arange(2))).ends == (0.0, 0.0)


# ---- cost and choice ----------------------------------------------------------------------------------------------
def test_cllr_is_the_balanced_log_loss_in_bits() -> None:
    data = crossed(8)
    even = np.where(data.knows, 1 / data.knows.sum(), 1 / (~data.knows).sum())
    p = 1 / (1 + 10.0**-data.score)
    assert cllr(data.score, data.knows) == pytest.approx(log_loss(data.knows, p, sample_weight=even) / np.log(2))
    assert cllr(np.zeros(len(p)), data.knows) == pytest.approx(1.0)
    assert cllr(np.where(data.knows, np.inf, -np.inf), data.knows) == 0.0


@pytest.mark.parametrize("make", [crossed, nested])
@pytest.mark.parametrize("way", ["logistic", "pav"])
def test_ratios_of_held_out_null_data_lie_around_one(make, way) -> None:  # type: ignore[no-untyped-def]
    costs, logs, ratios = [], [], []
    for seed in range(24):
        data = make(seed, 20, gap=0.0)
        found = held_out(data, folds(data, seed), seed, way)
        costs.append(cllr(found, data.knows))
        logs.append(np.median(found))
        ratios.append((10.0 ** found[~data.knows]).mean())
    assert abs(np.mean(logs)) < 0.03, "the median ratio is 1"
    assert np.mean(ratios) == pytest.approx(1.0, abs=0.15), "a ratio's mean over clean models is 1"
    assert 0.98 < np.mean(costs) < (1.05 if way == "logistic" else 1.2)


def test_no_world_is_judged_by_a_fit_that_saw_it() -> None:
    data = crossed(9, 6)
    fold = folds(data, 0)
    whole = held_out(data, fold, 0, "pav")
    spoilt = data._replace(knows=np.where(fold == 0, ~data.knows, data.knows))
    np.testing.assert_allclose(held_out(spoilt, fold, 0, "pav")[fold == 0], whole[fold == 0])


def test_the_way_of_the_smaller_held_out_cost_is_chosen() -> None:
    """A step far from any logistic line needs the free curve; a normal score with few worlds is better as a line."""
    rng = np.random.default_rng(10)
    cluster, knows = np.repeat(np.arange(60), 4), np.tile([True, True, False, False], 60)
    score = np.where(knows, rng.choice([1.0, 1.0, 1.0, 40.0], 240), rng.choice([0.0, 0.0, 0.0, -40.0], 240))
    step = fit_scale(labelled(score + 1e-3 * rng.standard_normal(240), knows, cluster), 0, draws=5)
    lines = [fit_scale(crossed(seed, 12, share=0.0), 0, draws=2) for seed in range(8)]
    assert step.way == "pav" and step.cllr["pav"] < step.cllr["logistic"]
    assert sum(line.way == "logistic" for line in lines) >= 5
    assert all(line.cllr[line.way] == min(line.cllr.values()) for line in lines)


def test_a_score_that_falls_with_knowledge_says_nothing() -> None:
    data = crossed(12, 20, gap=-2.0)
    scale = fit_scale(data, 0, draws=20)
    assert abs(ratio(scale, 0.0).log10_lr) < 0.15 and set(fit(data, "logistic", ones(data)).log_lr) == {0.0}


def test_ratios_of_a_known_normal_model_are_recovered() -> None:
    data = crossed(13, 600, each=1, gap=1.5, share=0.0)
    scale = fit_scale(data, 0, draws=100)
    for score in (-0.5, 0.5, 1.0, 2.0):
        truth = (1.5 * score - 1.5**2 / 2) / np.log(10)
        found = ratio(scale, score)
        assert found.log10_lr == pytest.approx(truth, abs=0.12) and found.lo - 0.05 <= truth <= found.hi + 0.05


def test_a_scale_survives_json_and_too_little_data_is_refused_or_said() -> None:
    data = crossed(14, 2)
    scale = fit_scale(data, 0, draws=20)
    assert scale.way == "logistic" and scale.cllr == {}, "two worlds leave nothing to be left out"
    assert Scale.model_validate_json(scale.model_dump_json()) == scale
    with pytest.raises(AuditError, match="fewer than two clusters"):
        held_out(data, data.cluster, 0)
    with pytest.raises(AuditError, match="has no likelihood ratio"):
        ratio(scale, float("nan"))


def test_of_a_block_of_equal_ratios_both_ends_are_knots() -> None:
    step = Step(np.arange(6.0), np.array([-1.0, -1.0, -1.0, 0.5, 2.0, 2.0]))
    np.testing.assert_array_equal(_ends(step), [0.0, 2.0, 3.0, 4.0, 5.0])
    flat = Step(np.arange(4.0), np.zeros(4))
    np.testing.assert_array_equal(_ends(flat), [0.0, 3.0])


def test_the_ends_of_a_ratio_are_percentiles_of_refits_on_resampled_clusters() -> None:
    data = crossed(5, 9)
    scale = fit_scale(data, 3, draws=60)
    knots, main = np.array(scale.knots), np.array(scale.log10_lr)
    refits = [fit(data, scale.way, times).at(knots) / np.log(10) for times in resamples(data, 3, 60)]
    inside = (main > scale.floor) & (main < scale.ceiling)
    assert inside.sum() > 5
    for ends, q, beyond in ((scale.lo, 2.5, np.minimum), (scale.hi, 97.5, np.maximum)):
        expected = beyond(np.clip(np.percentile(refits, q, axis=0), scale.floor, scale.ceiling), main)
        np.testing.assert_allclose(np.array(ends)[inside], expected[inside], atol=1e-4)
