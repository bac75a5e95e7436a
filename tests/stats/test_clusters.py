"""Samples in clusters: whole clusters are drawn and left out; intervals against brute force; bad input has words."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats as scipy_stats
from sklearn.metrics import roc_auc_score

from audit import stats
from audit.schema import AuditError
from audit.stats import Labelled, clustered, clustered_auroc, difference, labelled
from audit.stats.clustered import folds, resamples


def crossed(seed: int, clusters: int = 8, each: int = 2, gap: float = 1.0, share: float = 0.4) -> Labelled:
    """Worlds that hold models of both kinds, with a world effect of its own for either kind."""
    rng = np.random.default_rng(seed)
    cluster = np.repeat(np.arange(clusters), 2 * each)
    knows = np.tile(np.repeat([True, False], each), clusters)
    world = rng.standard_normal((clusters, 2))[cluster, knows.astype(int)]
    noise = np.sqrt(share) * world + np.sqrt(1 - share) * rng.standard_normal(len(cluster))
    return Labelled(gap * knows + noise, knows, cluster)


def nested(seed: int, clusters: int = 5, each: int = 3, gap: float = 1.0) -> Labelled:
    """Clusters (recipes) that hold one kind of models only."""
    found = crossed(seed, clusters, each, gap)
    return found._replace(cluster=2 * found.cluster + found.knows)


@pytest.mark.parametrize("make", [crossed, nested])
def test_every_resample_draws_as_many_clusters_and_holds_both_kinds(make) -> None:  # type: ignore[no-untyped-def]
    data = make(0)
    times = resamples(data, 1, 500)
    assert (times.sum(1) == data.holds.shape[1]).all()
    assert ((times @ data.holds.T) > 0).all()
    np.testing.assert_allclose(times.mean(0), 1.0, atol=0.2)


@given(st.integers(0, 10_000), st.integers(2, 14), st.integers(0, 6), st.integers(0, 6))
def test_folds_keep_clusters_whole_and_leave_both_kinds_in_every_rest(
    seed: int, both: int, ins: int, outs: int
) -> None:
    knows, cluster = [], []
    for c in range(both + ins + outs):
        kinds = [True, False] if c < both else [c < both + ins]
        knows += kinds
        cluster += [c] * len(kinds)
    data = labelled([0.0] * len(knows), knows, cluster)
    fold = folds(data, seed)
    assert len(np.unique(fold)) == min(10, both + min(ins, outs))
    for one in np.unique(fold):
        assert not set(data.cluster[fold == one]) & set(data.cluster[fold != one])
        rest = data.knows[fold != one]
        assert rest.any() and not rest.all()


@pytest.mark.parametrize("make", [crossed, nested])
def test_percentile_interval_equals_resampling_rows_by_hand(make) -> None:  # type: ignore[no-untyped-def]
    data = make(3)
    found = clustered_auroc(data, seed=0, method="percentile", draws=2000)
    assert found.auc == pytest.approx(roc_auc_score(data.knows, data.score))
    rng, drawn = np.random.default_rng(9), []
    for _ in range(800):
        rows = []
        for group in ([0], [1]) if make is nested else ([0, 1],):
            own = np.unique(data.cluster[np.isin(data.knows, group)])
            rows += [np.flatnonzero(data.cluster == c) for c in rng.choice(own, len(own))]
        row = np.concatenate(rows)
        drawn.append(stats.auroc(data.score[row][data.knows[row]], data.score[row][~data.knows[row]]))
    np.testing.assert_allclose(found.ci95.ends, np.percentile(drawn, [2.5, 97.5]), atol=0.04)


def test_the_standard_error_of_single_models_is_delongs() -> None:
    data = crossed(4, clusters=20, each=1)
    alone = data._replace(cluster=np.arange(len(data.score)))
    positive, negative = data.score[data.knows], data.score[~data.knows]
    won = np.greater.outer(positive, negative).astype(float)
    se = np.sqrt(won.mean(1).var(ddof=1) / 20 + won.mean(0).var(ddof=1) / 20)
    found = clustered_auroc(alone, 0, "logit_t")
    a, t = found.auc, scipy_stats.t.ppf(0.975, 19)
    half = t * se / (a * (1 - a))
    ends = [1 / (1 + np.exp(-(np.log(a / (1 - a)) + side * half))) for side in (-1, 1)]
    np.testing.assert_allclose(found.ci95.ends, ends, rtol=1e-9)


def moved(seed: int) -> Labelled:
    """Worlds that move both kinds alike, which an AUROC within a world does not see."""
    data = crossed(seed, 40)
    return data.rescored(data.score + np.random.default_rng(seed + 1000).standard_normal(40)[data.cluster])


@pytest.mark.parametrize("make", [lambda seed: crossed(seed, 40), moved])
def test_obuchowskis_standard_error_agrees_with_the_spread_over_fresh_samples(make) -> None:  # type: ignore[no-untyped-def]
    spread = np.std([clustered_auroc(make(s), 0, "percentile", 2).auc for s in range(200)], ddof=1)
    widths = [np.diff(clustered_auroc(make(s), 0, "logit_t").ci95.ends)[0] for s in range(20)]
    assert np.mean(widths) / (2 * scipy_stats.t.ppf(0.975, 39)) == pytest.approx(spread, rel=0.15)


@pytest.mark.parametrize("method", ["percentile", "logit_t", "bootstrap_t"])
def test_separated_models_have_the_exact_bound_of_their_clusters(method) -> None:  # type: ignore[no-untyped-def]
    data = crossed(5, clusters=6, gap=100.0)
    assert clustered_auroc(data, 0, method).ci95.ends == (stats.clopper_pearson(6, 6).lo, 1.0)
    turned = clustered_auroc(data.rescored(-data.score), 0, method)
    assert turned.auc == 0.0 and turned.ci95.ends == (0.0, stats.clopper_pearson(0, 6).hi)


@pytest.mark.parametrize("method", ["percentile", "logit_t", "bootstrap_t"])
@pytest.mark.parametrize("make", [crossed, nested])
def test_an_interval_turns_round_with_the_score(make, method) -> None:  # type: ignore[no-untyped-def]
    data = make(6)
    up, down = clustered_auroc(data, 0, method), clustered_auroc(data.rescored(-data.score), 0, method)
    assert up.auc == pytest.approx(1 - down.auc)
    np.testing.assert_allclose(up.ci95.ends, [1 - down.ci95.hi, 1 - down.ci95.lo], atol=1e-9)


@pytest.mark.parametrize(
    ("score", "knows", "cluster", "words"),
    [
        ([1.0, 2.0], [True], [0, 1], "do not belong together"),
        ([1.0, np.nan, 2.0, 3.0], [True, True, False, False], [0, 1, 0, 1], "1 scores are no finite"),
        ([1.0, 0.5, 2.0, 3.0], [True, True, False, False], [0, 0, 0, 1], "knowing ones from 1"),
        ([1.0, 2.0], [True, True], [0, 1], "clean models come from 0"),
        ([], [], [], "clean models come from 0"),
    ],
)
def test_what_cannot_be_calibrated_is_refused_with_a_reason(score, knows, cluster, words) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(AuditError, match=words):
        labelled(score, knows, cluster)


def test_clusters_may_be_named() -> None:
    data = labelled([1, 2, 3, 4], [True, False, True, False], ["npo", "rmu", "rmu", "npo"])
    assert data.cluster.tolist() == [0, 1, 1, 0] and data.part(data.cluster == 1).cluster.tolist() == [0, 0]


# ---- two scores of the same models --------------------------------------------------------------------------------
def paired(make, seed: int, share: float = 0.6) -> tuple[Labelled, np.ndarray]:  # type: ignore[no-untyped-def]
    """A score, and another of the same models that shares a part of it."""
    data, again = make(seed), make(seed + 500)
    return data, share * data.score + (1 - share) * again.score


def test_the_difference_of_single_models_is_delongs() -> None:
    data, other = paired(lambda seed: crossed(seed, clusters=20, each=1), 4)
    alone = data._replace(cluster=np.arange(len(data.score)))
    won = [
        np.greater.outer(score[data.knows], score[~data.knows])
        + 0.5 * np.equal.outer(score[data.knows], score[~data.knows])
        for score in (data.score, other)
    ]
    placed = won[0] - won[1]
    se = np.sqrt(placed.mean(1).var(ddof=1) / len(placed) + placed.mean(0).var(ddof=1) / placed.shape[1])
    found = difference(alone, other, 0)
    assert found.gap == pytest.approx(placed.mean()) and found.se == pytest.approx(se)
    assert found.p == pytest.approx(2 * scipy_stats.t.sf(abs(found.gap) / se, 19))
    half = scipy_stats.t.ppf(0.975, 19) * se
    np.testing.assert_allclose(found.ci95.ends, [found.gap - half, found.gap + half])


def obuchowski(data: Labelled, other: np.ndarray) -> float:
    """The variance of two correlated AUROCs' difference, from placement values, loop by loop (Obuchowski 1997)."""
    ins, outs = np.flatnonzero(data.knows), np.flatnonzero(~data.knows)
    clusters = range(int(data.cluster.max()) + 1)
    m, n = len(ins), len(outs)

    def covariance(a: np.ndarray, b: np.ndarray) -> float:
        total = {"10": 0.0, "01": 0.0, "11": 0.0, "11_turned": 0.0}
        sums = []
        for score in (a, b):
            v10 = {i: np.mean([(score[i] > score[j]) + (score[i] == score[j]) / 2 for j in outs]) for i in ins}
            v01 = {j: np.mean([(score[i] > score[j]) + (score[i] == score[j]) / 2 for i in ins]) for j in outs}
            auc = np.mean(list(v10.values()))
            sums.append(
                [(sum(v10[i] - auc for i in ins if data.cluster[i] == c),
                  sum(v01[j] - auc for j in outs if data.cluster[j] == c)) for c in clusters]
            )  # fmt: skip
        for (x10, x01), (y10, y01) in zip(*sums, strict=True):
            total["10"] += x10 * y10
            total["01"] += x01 * y01
            total["11"] += x10 * y01
            total["11_turned"] += x01 * y10
        held_in, held_out = (len({data.cluster[i] for i in some}) for some in (ins, outs))
        every = len(set(data.cluster.tolist()))
        return (
            total["10"] * held_in / (held_in - 1) / m**2
            + total["01"] * held_out / (held_out - 1) / n**2
            + (total["11"] + total["11_turned"]) * every / (every - 1) / (m * n)
        )

    return covariance(data.score, data.score) + covariance(other, other) - 2 * covariance(data.score, other)


@pytest.mark.parametrize("make", [crossed, nested])
def test_the_difference_over_clusters_has_obuchowskis_covariance(make) -> None:  # type: ignore[no-untyped-def]
    data, other = paired(make, 7)
    found = difference(data, np.round(other, 1), 0)
    assert found.gap == pytest.approx(roc_auc_score(data.knows, data.score) - roc_auc_score(data.knows, other.round(1)))
    assert found.se == pytest.approx(np.sqrt(obuchowski(data, other.round(1))))


@pytest.mark.thorough
@pytest.mark.parametrize("make", [lambda seed: crossed(seed, 40), lambda seed: nested(seed, 30)])
def test_standard_error_and_bootstrap_of_a_difference_agree_with_fresh_samples(make) -> None:  # type: ignore[no-untyped-def]
    gaps = [difference(*paired(make, 1000 * s), 0, draws=2).gap for s in range(200)]
    found = [difference(*paired(make, 1000 * s), 0, draws=300) for s in range(12)]
    spread = np.std(gaps, ddof=1)
    assert np.mean([one.se for one in found]) == pytest.approx(spread, rel=0.15)
    assert np.mean([np.diff(one.bootstrap95.ends)[0] for one in found]) / 3.92 == pytest.approx(spread, rel=0.2)


def test_a_difference_turns_round_and_scores_that_rank_alike_do_not_differ() -> None:
    data, other = paired(crossed, 8)
    one, turned = difference(data, other, 0), difference(data.rescored(other), data.score, 0)
    assert one.gap == pytest.approx(-turned.gap) and one.p == pytest.approx(turned.p)
    same = difference(data, np.exp(data.score), 0)
    assert same.gap == 0 and same.p == 1.0 and same.ci95.ends == pytest.approx([-0.3694, 0.3694], abs=1e-4)


def test_a_difference_that_every_cluster_shows_has_the_p_of_as_many_equal_signs() -> None:
    data = crossed(5, clusters=6, gap=100.0)
    found = difference(data, -data.score, 0)
    assert found.gap == 1.0 and found.p == pytest.approx(2 * 0.5**6) and found.ci95.hi == 1.0
    assert found.ci95.lo == pytest.approx(1 - stats.clopper_pearson(0, 6).hi)


@pytest.mark.parametrize("make", [crossed, nested])
@pytest.mark.parametrize("at_once", [1, 7, 1 << 20])
def test_wins_are_the_same_however_many_pairs_are_compared_at_a_time(make, at_once, monkeypatch) -> None:  # type: ignore[no-untyped-def]
    data = make(3)
    data = data.rescored(np.where(np.arange(len(data.score)) == 4, np.inf, data.score.round(1)))
    monkeypatch.setattr(clustered, "PAIRS_AT_ONCE", at_once)
    wins = clustered._wins(data)
    n = len(wins.clean)
    slow = np.zeros((n, n))
    for i, j in zip(*np.nonzero(data.knows[:, None] & ~data.knows), strict=True):
        slow[data.cluster[i], data.cluster[j]] += float(data.score[i] > data.score[j]) + 0.5 * float(
            data.score[i] == data.score[j]
        )
    assert np.array_equal(wins.wins, slow)
    assert wins.knowing.tolist() == [int((data.knows & (data.cluster == c)).sum()) for c in range(n)]
    assert wins.clean.tolist() == [int((~data.knows & (data.cluster == c)).sum()) for c in range(n)]
