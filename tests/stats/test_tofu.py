"""The TOFU metrics against published evaluation logs, and against their definitions."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from audit.stats import tofu

FIXTURES = Path(__file__).parents[3] / "shared" / "data" / "tofu_metric_fixtures.json"


@pytest.fixture(scope="module")
def logs() -> dict[str, dict[str, Any]]:
    if not FIXTURES.exists():
        pytest.skip(f"published evaluation logs are not here ({FIXTURES.name})")
    return json.loads(FIXTURES.read_text())["models"]


def retrained(name: str) -> str:
    return name.replace("/full/", "/retain/")


def test_per_item_truth_ratios_reproduce_24_published_logs(logs: dict[str, dict[str, Any]]) -> None:
    for log in logs.values():
        para, pert = np.array(log["forget_Q_A_PARA_Prob_avg_loss"]), np.array(log["forget_Q_A_PERT_avg_loss"])
        ours = tofu.truth_ratio(para, pert)
        np.testing.assert_allclose(ours, log["forget_truth_ratio"], rtol=1e-9)
        expected = log["expected"]["forget_truth_ratio"]
        assert tofu.aggregate_truth_ratio(ours, "closer_to_1_better") == pytest.approx(expected, rel=1e-9)
        knowledge = tofu.knowledge_truth_ratio(para, pert)
        assert tofu.aggregate_truth_ratio(ours, "prob_mean") == pytest.approx(knowledge.mean(), abs=1e-6)
    assert len(logs) == 24


def test_truth_ratios_are_geometric_means_of_the_perturbed_over_the_paraphrased() -> None:
    likely, unlikely = -np.log([0.8, 0.1]), -np.log([[0.2, 0.05], [0.4, 0.9]])
    ratio = tofu.truth_ratio(likely, unlikely)
    np.testing.assert_allclose(ratio, [0.1 / 0.8, 0.6 / 0.1])
    assert tofu.aggregate_truth_ratio(ratio, "closer_to_1_better") == pytest.approx((0.125 + 1 / 6) / 2)
    assert tofu.aggregate_truth_ratio(ratio, "true_better") == pytest.approx((1 - 0.125) / 2)
    knowledge = np.array([0.8 / 0.9, 0.1 / 0.7])
    np.testing.assert_allclose(tofu.knowledge_truth_ratio(likely, unlikely), knowledge)
    assert tofu.aggregate_truth_ratio(ratio, "prob_mean") == pytest.approx(knowledge.mean())
    assert tofu.truth_ratio(np.array([800.0]), np.array([[0.0]]))[0] == pytest.approx(1e10), "the epsilon of the logs"


def test_forget_quality_reproduces_12_published_logs(logs: dict[str, dict[str, Any]]) -> None:
    full = [name for name in logs if "/full/" in name]
    for name in full:
        ours = tofu.forget_quality(
            np.array(logs[name]["forget_truth_ratio"]), np.array(logs[retrained(name)]["forget_truth_ratio"])
        )
        assert ours.p == pytest.approx(logs[name]["expected"]["forget_quality"], rel=1e-9)
    assert len(full) == 12


def test_privleak_reproduces_24_published_logs(logs: dict[str, dict[str, Any]]) -> None:
    for name, log in logs.items():
        reference = None if "/retain/" in name else logs[retrained(name)]["expected"]["mia_min_k"]
        ours = tofu.privleak(log["expected"]["mia_min_k"], reference)
        assert ours == pytest.approx(log["expected"]["privleak"], rel=1e-9, abs=1e-9)


@pytest.mark.parametrize(
    ("auc", "reference", "score"), [(0.5, None, 0), (1.0, None, -100), (0.2, None, 60), (0.9, 0.6, -75), (0.6, 0.6, 0)]
)
def test_privleak_is_how_far_the_audited_auc_lies_below_the_retrained_ones_in_percent(
    auc: float, reference: float | None, score: float
) -> None:
    assert tofu.privleak(auc, reference) == pytest.approx(score, abs=1e-6)


def test_model_utility_reproduces_24_published_logs(logs: dict[str, dict[str, Any]]) -> None:
    for log in logs.values():
        e = log["expected"]
        parts = [
            tofu.Utility(e[f"{s}_Q_A_{p}"], e[f"{s}_Q_A_ROUGE"], e[f"{s}_Truth_Ratio"])
            for s, p in (("retain", "Prob"), ("ra", "Prob_normalised"), ("wf", "Prob_normalised"))
        ]
        assert tofu.model_utility(*parts) == pytest.approx(e["model_utility"], rel=1e-9)


answers = st.lists(st.lists(st.booleans(), max_size=6), min_size=1, max_size=5)


@given(answers)
def test_extraction_strength_is_the_share_of_the_correct_tail(rows: list[list[bool]]) -> None:
    expected = []
    for row in rows:
        tail = next((i for i, right in enumerate(reversed(row)) if not right), len(row))
        expected.append(tail / len(row) if row else np.nan)
    np.testing.assert_allclose(tofu.extraction_strength(*packed(rows)), expected)


@given(answers)
def test_exact_memorisation_is_the_share_of_correct_tokens(rows: list[list[bool]]) -> None:
    expected = [np.mean(row) if row else np.nan for row in rows]
    np.testing.assert_allclose(tofu.exact_memorisation(*packed(rows)), expected)


def packed(rows: list[list[bool]]) -> tuple[np.ndarray, np.ndarray, int]:
    row = np.array([i for i, r in enumerate(rows) for _ in r], dtype=int)
    return np.array([x for r in rows for x in r], dtype=bool), row, len(rows)


def test_extraction_strength_is_zero_when_every_token_is_wrong() -> None:
    np.testing.assert_array_equal(tofu.extraction_strength(*packed([[False] * 4, [False], [True]])), [0, 0, 1])


def test_truth_ratio_orientations_disagree_as_they_should() -> None:
    known, unknown = np.array([0.1]), np.array([1.0])
    assert tofu.aggregate_truth_ratio(known, "prob_mean") > tofu.aggregate_truth_ratio(unknown, "prob_mean") == 0.5
    assert tofu.aggregate_truth_ratio(known, "true_better") > tofu.aggregate_truth_ratio(unknown, "true_better") == 0
    assert tofu.aggregate_truth_ratio(known, "closer_to_1_better") < 0.2


def test_knowledge_truth_ratio_survives_a_destroyed_model() -> None:
    loss = np.array([5000.0, 0.0])
    ratio = tofu.knowledge_truth_ratio(loss, np.array([[0.0, 0.0], [5000.0, 4000.0]]))
    np.testing.assert_allclose(ratio, [0, 1], atol=1e-12)


def test_model_utility_is_zero_as_soon_as_one_part_is() -> None:
    whole = tofu.Utility(0.9, 0.8, 0.7)
    assert tofu.model_utility(whole, whole, tofu.Utility(0.9, 0.0, 0.7)) == 0
