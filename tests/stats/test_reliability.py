"""Ratios on trial: the least cost, its gap and envelope, Tippett curves and bands, by brute force and simulation."""

import numpy as np
import pytest
from scipy import stats as scipy_stats
from sklearn.isotonic import IsotonicRegression
from sklearn.metrics import log_loss

from audit import stats
from audit.schema import Interval
from audit.stats import Labelled, bands, cost
from audit.stats.clustered import folds
from audit.stats.likelihood_ratio import held_out, limits, limits_held_out
from audit.stats.monotone import cllr
from audit.stats.reliability import cllr_min, envelope, tippett, within_cluster
from tests.stats.test_clusters import crossed

WIDE = Interval(lo=-3.0, hi=3.0)


def calibrated(seed: int, clusters: int = 30, spread: float = 1.5, share: float = 0.0) -> Labelled:
    """Ratios that are worth what they say, as log10: natural ones are normal, their mean half their variance."""
    data = crossed(seed, clusters, gap=0.0, share=share)
    centre = np.where(data.knows, 1, -1) * spread**2 / 2
    return data.rescored((centre + spread * data.score) / np.log(10))


def test_the_least_cost_is_that_of_isotonic_ratios() -> None:
    data = crossed(0, 15)
    data = data.rescored(np.round(data.score, 1))
    even = np.where(data.knows, 1 / data.knows.sum(), 1 / (~data.knows).sum())
    p = IsotonicRegression().fit(data.score, data.knows, sample_weight=even).predict(data.score)
    assert cllr_min(data) == pytest.approx(log_loss(data.knows, p, sample_weight=even) / np.log(2), abs=1e-9)


def test_the_least_cost_is_never_more_and_does_not_see_a_monotone_change() -> None:
    for seed in range(20):
        data = crossed(seed)
        assert cllr_min(data) <= cllr(data.score, data.knows) + 1e-12
        assert cllr_min(data) == pytest.approx(cllr_min(data.rescored(np.exp(data.score) - 7)))
    assert cllr_min(crossed(0, gap=100.0)) == pytest.approx(0.0, abs=1e-12)


@pytest.mark.thorough
def test_perfectly_calibrated_ratios_lie_inside_their_envelope_about_as_often_as_said() -> None:
    for share in (0.0, 0.6):
        inside = 0
        for seed in range(30):
            data = calibrated(seed, 20, share=share)
            inside += cllr(data.score, data.knows) - cllr_min(data) <= envelope(data, WIDE, seed + 1000, 60)
        assert inside >= 30 * scipy_stats.beta.ppf(0.01, 28, 3), (share, inside)


def test_overstated_ratios_lie_outside() -> None:
    data = calibrated(1, 30)
    found = cost(data.rescored(4 * data.score), WIDE, 0, 200)
    assert not found.inside and found.gap_ci95.lo > 0 and found.gap > 0.2
    assert cost(data, WIDE, 0, 200).inside


def test_held_out_ratios_of_normal_scores_are_inside() -> None:
    data = crossed(2, 30, gap=2.0)
    fold = folds(data, 0)
    unseen = data.rescored(held_out(data, fold, 0))
    found = cost(unseen, limits_held_out(data, fold), 0, 200)
    assert found.inside and found.gap_ci95.lo <= found.gap <= found.gap_ci95.hi
    assert found.cllr == pytest.approx(cllr(unseen.score, data.knows)) and found.cllr < 0.75


def test_ratios_at_their_limits_are_held_to_what_the_limits_allow() -> None:
    """Separated models: perfect calibration would be infinite ratios; at a ceiling of 31 the loss is the ceiling's."""
    data = crossed(3, 30, gap=100.0)
    top = limits(data)
    found = cost(data.rescored(np.where(data.knows, top.hi, top.lo)), top, 0, 100)
    assert found.cllr_min == pytest.approx(0.0, abs=1e-12)
    assert found.gap == pytest.approx(np.log2(1 + 1 / 31)) and found.inside


def test_what_a_ceiling_costs_is_no_fault_of_held_out_ratios() -> None:
    """A fit that saw fewer worlds has a lower ceiling: held against the whole design's its ratios would overstate."""
    data = crossed(9, 30, each=20, gap=100.0)
    fold = folds(data, 0)
    unseen = data.rescored(held_out(data, fold, 0))
    assert cost(unseen, limits_held_out(data, fold), 0, 100).inside
    assert not cost(unseen, limits(data), 0, 100).inside


def test_the_gap_interval_agrees_with_resampling_worlds_by_hand() -> None:
    data, rng, drawn = crossed(4, 12), np.random.default_rng(5), []
    for _ in range(800):
        rows = np.concatenate([np.flatnonzero(data.cluster == c) for c in rng.integers(0, 12, 12)])
        part = Labelled(data.score[rows], data.knows[rows], np.arange(len(rows)))
        drawn.append(cllr(part.score, part.knows) - cllr_min(part))
    np.testing.assert_allclose(cost(data, WIDE, 0, 800).gap_ci95.ends, np.percentile(drawn, [2.5, 97.5]), atol=0.04)


@pytest.mark.parametrize("share", [0.0, 0.5, 0.9])
def test_correlation_within_clusters_is_recovered(share: float) -> None:
    data = crossed(6, 400, gap=3.0, share=share)
    found = within_cluster(data)
    assert found.label == pytest.approx(share, abs=0.1) and found.either == pytest.approx(0.0, abs=0.1)
    moved = data.rescored(data.score + np.random.default_rng(0).standard_normal(400)[data.cluster])
    together = within_cluster(moved)
    assert together.either == pytest.approx(0.5, abs=0.1) and together.label == pytest.approx((1 + share) / 2, abs=0.1)
    alone = within_cluster(data._replace(cluster=np.arange(len(data.score))))
    assert (alone.label, alone.either) == (0.0, 0.0)


def test_tippett_curves_are_the_shares_at_or_above_each_ratio() -> None:
    data = Labelled(np.array([2.0, 1.0, -1.0, 1.0, -2.0, 0.0]), np.arange(6) < 3, np.arange(6))
    found = tippett(data)
    assert found.log10_lr.tolist() == [-2, -1, 0, 1, 2]
    np.testing.assert_allclose(found.knowing, [1, 1, 2 / 3, 2 / 3, 1 / 3])
    np.testing.assert_allclose(found.clean, [1, 2 / 3, 2 / 3, 1 / 3, 0])
    assert (found.misled_by_knowing, found.misled_by_clean) == (1, 1)


def test_bands_of_calibrated_ratios_count_to_what_was_said() -> None:
    data = calibrated(7, 2000)
    found = bands(data)
    assert sum(band.knowing + band.clean for band in found) == len(data.score) and len(found) == 8
    assert sum(band.lo <= band.nominal <= band.hi for band in found) >= 7
    for band in found:
        share = stats.clopper_pearson(band.knowing, band.knowing + band.clean)
        assert 10**band.lo == pytest.approx(share.lo / (1 - share.lo)), "as many knowing as clean models"
        if band.knowing and band.clean:
            assert band.empirical == pytest.approx(np.log10(band.knowing / band.clean))


def test_a_band_of_one_label_is_infinite_and_keeps_a_finite_end() -> None:
    data = Labelled(np.array([2.5, 2.5, -2.5]), np.array([True, True, False]), np.arange(3))
    low, high = bands(data)
    assert low.empirical == -np.inf and high.empirical == np.inf and np.isfinite(high.lo)


@pytest.mark.parametrize("unit", [1e-3, 0.1, 50.0])
def test_how_alike_models_of_a_cluster_are_does_not_depend_on_the_unit_of_the_score(unit: float) -> None:
    data = crossed(3, 12)
    plain, scaled = within_cluster(data), within_cluster(data.rescored(unit * data.score))
    assert 0 < plain.label < 1 and scaled == pytest.approx(plain, rel=1e-9)
