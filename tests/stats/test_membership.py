"""Statistics of membership against plain loops over every text."""

import math
from itertools import pairwise

import numpy as np
import pytest
from scipy.stats import gumbel_r
from sklearn.metrics import roc_curve

from audit import stats
from audit.stats import membership


def texts(seed: int = 0, rows: int = 12) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A row of every token, differences of log-probabilities, and which tokens are not put first; row 5 has none."""
    rng = np.random.default_rng(seed)
    counts = rng.integers(1, 60, rows)
    counts[5] = 0
    row = np.repeat(np.arange(rows), counts)
    return row, rng.normal(0.1, 1, len(row)), rng.random(len(row)) < 0.4


def test_window_votes_are_those_of_a_loop_over_windows() -> None:
    row, delta, _ = texts()
    sizes = membership.window_sizes()
    assert sizes == (2, 3, 4, 5, 8, 11, 15, 21, 29, 40)
    result = membership.window_votes(delta, row, 12, sizes)
    for i in range(12):
        own = delta[row == i]
        if not len(own):
            assert math.isnan(result[i])
            continue
        shares = []
        for size in sizes:
            w = min(size, len(own))
            sums = [sum(own[a : a + w]) for a in range(len(own) - w + 1)]
            shares.append(sum(s > 0 for s in sums) / len(sums))
        assert result[i] == pytest.approx(sum(shares) / len(shares), abs=1e-12)


def test_a_model_beside_itself_votes_for_neither() -> None:
    row = np.zeros(7, int)
    assert membership.window_votes(np.zeros(7), row, 1, (2, 3)).tolist() == [0.5]
    assert membership.error_zone(np.zeros(7), np.ones(7, bool), row, 1).tolist() == [0.0]


def test_error_zone_orders_texts_as_the_published_ratio() -> None:
    row, delta, wrong = texts(3)
    result = membership.error_zone(delta, wrong, row, 12)
    ratios = {}
    for i in set(row.tolist()):
        moved = delta[(row == i) & wrong]
        rose, fell = moved[moved > 0].sum(), -moved[moved < 0].sum()
        if not len(moved) or (rose > 0 and not fell):
            assert result[i] == 1.0
        elif fell:
            ratios[i] = rose / fell
    order = sorted(ratios, key=ratios.__getitem__)
    never_wrong = membership.error_zone(delta, np.zeros(len(row), bool), row, 12)
    assert set(never_wrong[np.bincount(row, minlength=12) > 0].tolist()) == {1.0}, "all put first: the strongest sign"
    assert len(order) > 5 and all(result[a] < result[b] for a, b in pairwise(order))
    assert math.isnan(result[5])


def test_interpolated_membership_is_that_of_a_loop_over_steps() -> None:
    rng = np.random.default_rng(1)
    p_out, p_fit = rng.uniform(0.01, 0.3, 20), rng.uniform(0.7, 0.99, 20)
    p = rng.uniform(0.01, 0.99, 20)
    signal, out, fit = (membership.gumbel_signal(x) for x in (p, p_out, p_fit))
    assert signal[0] == pytest.approx(-math.log(0.1 - math.log(p[0] + 1e-5)))
    sigma = membership.interpolation_spread(out, fit, 50)
    result = membership.interpolated(signal, out, fit, sigma, 50)
    places = [n / 49 for n in range(50)]
    for i in range(20):
        total = 0.0
        for j in range(49):
            mean = out[i] + places[j] * (fit[i] - out[i])
            spread = np.std([out[k] + places[j] * (fit[k] - out[k]) for k in range(20)])
            scale = math.sqrt(6) / math.pi * spread
            total += places[j + 1] * gumbel_r.cdf(signal[i], mean - 0.5772 * scale, scale)
        assert result[i] == pytest.approx(total / sum(places[1:]), abs=1e-6)


def test_interpolated_membership_is_high_where_the_signal_is_base_s_and_low_where_it_is_the_others() -> None:
    out, fit = (membership.gumbel_signal(np.full(30, p)) for p in (0.05, 0.95))
    as_base = membership.interpolated(fit, out, fit, 0.2)
    as_other = membership.interpolated(out, out, fit, 0.2)
    assert as_base.min() > 0.9 and as_other.max() < 0.1


def test_min_k_plus_is_a_z_of_the_models_own_distribution() -> None:
    rng = np.random.default_rng(2)
    logprob = np.log(rng.dirichlet(np.ones(9), 6))
    p = np.exp(logprob)
    mean, sd = (p * logprob).sum(1), np.sqrt([np.cov(x, ddof=0, aweights=w) for x, w in zip(logprob, p, strict=True)])
    result = membership.min_k_plus(logprob[:, 3], -mean, sd**2)
    np.testing.assert_allclose(result, (logprob[:, 3] - mean) / sd)
    assert membership.min_k_plus(np.zeros(1), np.zeros(1), np.zeros(1)).tolist() == [0.0]


@pytest.mark.parametrize("seed", range(4))
def test_hits_at_few_false_alarms_are_scikit_learns(seed: int) -> None:
    rng = np.random.default_rng(seed)
    member = rng.random(300) < 0.5
    score = np.round(rng.normal(member * 1.5, 1), 1 if seed % 2 else 6)
    alarms, hits, _ = roc_curve(member, score, drop_intermediate=False)
    points = stats.operating_points(score, member, np.arange(300), (0.2, 0.01, 0.001), seed)
    for point in points:
        assert point.hit_rate == pytest.approx(hits[alarms <= point.rate + 1e-12].max())
        assert point.ci95.lo <= point.hit_rate <= point.ci95.hi


def test_intervals_of_hits_are_over_groups_and_not_over_items() -> None:
    """Ten copies of each item say no more than one."""
    rng = np.random.default_rng(5)
    member = np.arange(60) < 30
    score = rng.normal(member * 1.0, 1)
    (pooled,) = stats.operating_points(score, member, np.arange(60), (0.1,), 0)
    (ten,) = stats.operating_points(
        np.repeat(score, 10), np.repeat(member, 10), np.repeat(np.arange(60), 10), (0.1,), 0
    )
    assert ten == pooled
    (ungrouped,) = stats.operating_points(np.repeat(score, 10), np.repeat(member, 10), np.arange(600), (0.1,), 0)
    assert ungrouped.ci95.hi - ungrouped.ci95.lo < 0.6 * (pooled.ci95.hi - pooled.ci95.lo)


def test_intervals_of_hits_are_percentiles_of_resampled_groups() -> None:
    rng = np.random.default_rng(7)
    member, group = np.arange(120) < 60, np.arange(120) // 4
    score = rng.normal(member * 1.0, 1) + rng.normal(0, 1, 30)[group]
    (point,) = stats.operating_points(score, member, group, (0.2,), 0, draws=1999)
    drawn = []
    for _ in range(800):
        chosen = [*rng.choice(15, 15), *rng.choice(np.arange(15, 30), 15)]
        index = np.concatenate([np.flatnonzero(group == g) for g in chosen])
        alarms, hits, _ = roc_curve(member[index], score[index], drop_intermediate=False)
        drawn.append(hits[alarms <= 0.2].max())
    assert np.allclose(point.ci95.ends, np.percentile(drawn, [2.5, 97.5]), atol=0.06)
    assert point.ci95.hi - point.ci95.lo > 0.25


def test_hits_without_any_spread_have_the_exact_interval_of_their_groups() -> None:
    member = np.arange(20) < 8
    (point,) = stats.operating_points(member * 1.0, member, np.arange(20), (0.01,), 0)
    assert point.hit_rate == 1.0 and point.ci95.lo == pytest.approx(stats.clopper_pearson(8, 8).lo)
