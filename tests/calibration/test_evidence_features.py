"""What a calibration reads of a score, number by number against the formula, and where a measurement shows a trace."""

import math
from typing import Any

import pytest

from audit.calibration import Score, features
from audit.calibration.evidence_features import DECADES, LEAST_TAIL, class_of, exceeds, feature_row
from audit.schema import ALPHA, Interval, Missing, Overall
from tests.calibration.test_pools import GONE, measurement


def scored(**changes: Any) -> Score:
    return Score.of(measurement(True)).model_copy(update=changes)


def overall(value: float) -> Overall:
    return Overall(value=value, ci95=Interval(lo=value, hi=value), floor=GONE)


def test_every_feature_is_its_formula_within_its_bounds() -> None:
    score = scored(value=0.9, floor=0.25, p=0.001, overall=GONE, readings={"largest_person": -99.0, "other": 5.0})
    assert features(score) == pytest.approx(
        {"effect": 0.9, "over_floor": 0.65, "tail": 3.0, "largest_person": -2.0}
    )  # fmt: skip
    assert features(scored(overall=overall(0.4), floor=GONE, p=GONE, readings={})) == {"effect": 0.4}
    far = scored(value=9.0, floor=-9.0, p=1e-9, overall=overall(-9.0), readings={"higher_criticism": 1e9})
    assert features(far) == {"effect": -1.0, "over_floor": 2.0, "tail": DECADES, "higher_criticism": DECADES}
    assert features(scored(p=1.0))["tail"] == 0


@pytest.mark.parametrize(
    "silent", [{"value": Missing(missing="x")}, {"control_found": False}, {"mode": "paper"}, {"kind": "gate"}]
)
def test_what_can_say_nothing_has_no_features(silent: dict[str, Any]) -> None:
    assert features(scored()) and features(scored(**silent)) == {}


@pytest.mark.parametrize(
    ("effect", "tail", "shows"),
    [
        (0.31, LEAST_TAIL + 0.01, True), (0.31, None, True), (0.3, LEAST_TAIL + 0.01, False), (0.3, None, False),
        (0.31, LEAST_TAIL, False), (0.31, 0.0, False), (0.29, 0.0, False),
    ],
)  # fmt: skip
def test_a_trace_is_an_effect_above_its_threshold_that_its_own_test_finds(
    effect: float, tail: float | None, shows: bool
) -> None:
    assert exceeds({"effect": effect} | ({} if tail is None else {"tail": tail}), 0.3) == shows


def test_the_least_tail_is_that_of_a_one_sided_test_at_the_stated_level() -> None:
    assert pytest.approx(ALPHA) == 10**-LEAST_TAIL
    assert math.isclose(features(scored(p=ALPHA))["tail"], LEAST_TAIL)


def test_columns_are_named_by_measurement_and_feature() -> None:
    row = feature_row(measurement(True))
    assert row.measurement == "asked.effect" and set(row.values) == {"effect", "over_floor", "tail", "largest_person"}
    assert {column.key: value for column, value in row.columns.items()} == {
        f"asked.effect:{feature}": value for feature, value in row.values.items()
    }


def test_outputs_are_evidence_by_their_people_alone_and_other_kinds_by_their_effect_too() -> None:
    kinds = ("causal", "decoding", "recovery", "output", "gate", "context")
    assert [class_of(kind, "effect") for kind in kinds] == ["causal", "decoding", "recovery", None, None, None]
    assert [class_of(kind, "largest_person") for kind in kinds] == [*kinds[:4], None, None]
    assert {class_of(kind, feature) for kind in kinds for feature in ("tail", "over_floor")} == {None}
