"""The study of few people: the table holds what the code promises, candidates are what they say, seeds reproduce it."""

import json
from typing import Any

import numpy as np
import pytest
from scipy import stats as scipy_stats

from audit import stats
from studies.small_counts import candidates, study

Results = dict[str, Any]


@pytest.fixture(scope="module")
def results() -> Results:
    """What is committed beside the study."""
    return json.loads((study.HERE / "results.json").read_text(encoding="utf-8"))


def chosen(results: Results, table: str) -> dict[int, float]:
    return {int(people): share for people, share in results["worst"][table]["chosen"].items()}


# ---- the committed table against what is promised
def test_the_committed_table_is_whole(results: Results) -> None:
    cells = {(c["shape"], c["people"], c["method"]) for c in results["levels"]}
    shapes, pairs = study.SHAPES | study.BEYOND, [" less ".join(pair) for pair in study.CONTRASTS]
    assert len(cells) == len(study.PEOPLE) * (len(shapes) * len(candidates.TESTS) + 3 * len(pairs))
    single = [c for c in results["coverages"] if c["layers"] == 1]
    assert len(single) == len(study.PEOPLE) * len(shapes) * len(candidates.INTERVALS)
    assert results["draws"] == study.DRAWS == 10_000 and results["draws_of_largest"] == study.LARGEST_DRAWS
    for name, cell, worst in (
        ("level", study.Level, study.worst_level),
        ("coverage", study.Coverage, study.worst_coverage),
    ):
        key = {"level": "levels", "coverage": "coverages"}[name]
        cells_of = [cell(**c) for c in results[key] if c["shape"] in study.SHAPES and c.get("layers", 1) == 1]
        assert results["worst"][name] == json.loads(json.dumps(worst(cells_of)))  # type: ignore[operator]


@pytest.mark.parametrize("table", ["level", "level_beside_holdout"])
def test_the_chosen_test_is_wrong_in_at_most_15_of_1000_draws_at_every_shape_and_count(
    results: Results, table: str
) -> None:
    assert set(chosen(results, table)) == set(study.PEOPLE)
    assert max(chosen(results, table).values()) <= study.MOST_FALSE


@pytest.mark.parametrize("table", ["coverage", "coverage_of_largest"])
def test_the_chosen_interval_covers_what_it_is_said_to(results: Results, table: str) -> None:
    cover = chosen(results, table)
    assert min(share for people, share in cover.items() if people >= 12) >= 0.93
    assert min(share for people, share in cover.items() if people >= stats.ENOUGH_PEOPLE) >= 0.90


def test_the_others_do_not_hold_at_twelve_people(results: Results) -> None:
    level, cover = results["worst"]["level"], results["worst"]["coverage"]
    assert all(by[n] > study.MOST_FALSE for m, by in level.items() if m != "chosen" for n in ("12", "16"))
    assert all(by["12"] < 0.93 for m, by in cover.items() if m != "chosen")


# ---- the study's own parts
@pytest.mark.thorough
@pytest.mark.parametrize("people", [4, 12])
def test_cells_come_out_again(results: Results, people: int) -> None:
    (again,) = [cell for cell in study.level("exponential", people, results["draws"]) if cell.method == "chosen"]
    cells = {(c["shape"], c["people"], c["method"]): c for c in results["levels"]}
    stored = cells["exponential", people, "chosen"]
    for key in ("above", "below", "power"):
        assert getattr(again, key) == pytest.approx(stored[key], abs=0.002)


@pytest.mark.parametrize("people", [2, 7, 12, 16])
@pytest.mark.parametrize("shape", ["exponential", "ties", "ties_skewed"])
def test_the_chosen_candidate_is_what_an_audit_does_with_one_layer(people: int, shape: str) -> None:
    x = (study.SHAPES | study.BEYOND)[shape](np.random.default_rng(people), (people, 40)) - 0.4
    calls = candidates.tests(x, 0)["chosen"]
    audits = [stats.mean_max_t(x[:, [i]], 0, draws=candidates.SIGNS) for i in range(40)]
    assert [a.p < candidates.ALPHA for a in audits] == calls.above.tolist()
    assert [a.p_below < candidates.ALPHA for a in audits] == calls.below.tolist()


def test_bca_is_scipys() -> None:
    x = np.random.default_rng(3).exponential(1, (20, 1))
    ends = candidates.bca_ends(x, candidates.resampled(x, 0), 0.025)
    oracle = scipy_stats.bootstrap((x[:, 0],), np.mean, method="BCa", n_resamples=9999, rng=0).confidence_interval
    assert (ends.lo[0], ends.hi[0]) == pytest.approx((oracle.low, oracle.high), abs=0.06)


@pytest.mark.parametrize("shape", study.SHAPES | study.BEYOND)
def test_shapes_have_mean_zero_and_the_spread_that_the_power_is_said_for(shape: str) -> None:
    x = (study.SHAPES | study.BEYOND)[shape](np.random.default_rng(0), (100, 20_000))
    assert abs(x.mean()) < 0.004 and x.std() == pytest.approx(1, abs=0.03)
