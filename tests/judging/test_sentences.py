"""What a joint score is said to be, and how far an interval is widened by several tests."""

from types import SimpleNamespace
from typing import Any

import pytest
from scipy.stats import norm

from audit.calibration.joint_rule import ActiveEvidence, Joined
from audit.judging.axes import widened
from audit.judging.calibrated import _joint_sentence
from audit.schema import Interval
from audit.wording import PERSON
from tests import golden

CAUSAL, FEW = ActiveEvidence("causal", "a.x"), ActiveEvidence("decoding", "b.y", few=True)


@pytest.mark.parametrize(
    ("score", "lit", "found", "said"),
    [
        (0.25, (CAUSAL, FEW), True, "is 0.25, above its threshold of 0 (a model that never knew typically reads -1); "
                                    "findings above their own thresholds: causal (a.x), decoding (b.y, few people)"),
        (0.25, (CAUSAL,), False, "causal (a.x); not enough: it takes two classes, one of them from inside"),
        (0.0, (), False, "is 0.00, not above its threshold"), (-1.5, (), False, "own thresholds: none"),
    ],
)  # fmt: skip
def test_the_sentence_of_a_joint_score_says_its_side_its_evidence_and_what_lacks(
    score: float, lit: tuple[ActiveEvidence, ...], found: bool, said: str
) -> None:
    weights = [SimpleNamespace(measurement=name) for name in ("a.x", "a.x", "b.y")]
    heard: Any = SimpleNamespace(joined=Joined(score, lit, found), joint=SimpleNamespace(weights=weights))
    sentence = _joint_sentence(heard, PERSON)
    assert sentence.startswith("the joint score of 2 measurements is ") and said in sentence
    assert ("not enough" in sentence) == ("not enough" in said)


@pytest.mark.parametrize("tests", [0, 1, 2, 9])
def test_an_interval_is_widened_to_the_level_at_which_all_tests_hold_at_once(tests: int) -> None:
    measured = golden.effect("a", "m", "causal", 0.5, 0.1).model_copy(update={"ci95": Interval(lo=0.45, hi=0.7)})
    found = widened(measured, tests)
    factor = norm.ppf(1 - 0.025 / max(tests, 1)) / norm.ppf(0.975)
    assert found is not None and found.ends == pytest.approx((0.5 - factor * 0.05, 0.5 + factor * 0.2))
