"""The joint rule on tables made by hand: its features, its scale, what lights up and what suffices."""

from typing import Any

import numpy as np
import pytest

from audit.calibration import Calibration, Feature, Joint
from audit.calibration.error_rates import Roster
from audit.calibration.evidence_features import LEAST_TAIL
from audit.calibration.joint_rule import (
    ActiveEvidence,
    Line,
    Table,
    Weight,
    _bar,
    _fit,
    _joined,
    _lit,
    _usable,
    apply,
    table_of,
)
from audit.calibration.records import Calibrated, Column, Subject, Subjects

EFFECT, TAIL, FLOOR, FEW = (Feature("a.effect", name) for name in ("effect", "tail", "over_floor", "largest_person"))
OTHER = Feature("b.effect", "effect")
WORLDS = 12


def roster() -> Roster:
    """Two clean models and one that knows everything in each world."""
    n = 3 * WORLDS
    pool = np.array(["clean", "clean", "knowing"] * WORLDS, object)
    same = np.array(["same"] * n, object)
    return Roster(np.repeat(np.arange(WORLDS), 3), np.array(["m1", "m2", "m3"] * WORLDS, object), pool,
                  np.where(pool == "knowing", 4, 0), np.full(n, 4), same, same)  # fmt: skip


def table(x: np.ndarray, *columns: Feature) -> Table:
    kinds: Any = tuple("causal" if c == EFFECT else "decoding" if c == OTHER else None for c in columns)
    return Table(roster(), columns, kinds, x)


def told(seed: int = 0) -> np.ndarray:
    """Two features that tell the knowing from the clean, not without overlap."""
    rng = np.random.default_rng(seed)
    return (roster().pool == "knowing")[:, None] * [1.0, 0.6] + 0.3 * rng.standard_normal((3 * WORLDS, 2))


# ---- fit --------------------------------------------------------------------------------------------------------
def test_the_score_is_0_at_the_highest_clean_world_and_minus_1_at_the_median_clean_model() -> None:
    x, every = told(), np.ones(3 * WORLDS, bool)
    clean = roster().clean
    line = _fit(table(x, EFFECT, OTHER), every)
    score = line.score(x)
    assert score[clean].max() == pytest.approx(0) and np.median(score[clean]) == pytest.approx(-1)
    assert (line.slope > 0).all() and np.mean(score[~clean] > 0) > 0.8
    assert line.bar == pytest.approx(x[clean].max(0)), "in fewer than fifty worlds none may exceed a bar"


def test_neither_the_unit_nor_the_zero_of_a_feature_moves_the_score() -> None:
    x, every = told(), np.ones(3 * WORLDS, bool)
    plain = _fit(table(x, EFFECT, OTHER), every).score(x)
    for unit, zero in (([1e-3, 1.0], 0.0), ([40.0, 1e-3], 0.0), ([1.0, 1.0], 5.0), ([1e-3, 1e-3], -2.0)):
        other = x * unit + zero
        np.testing.assert_allclose(_fit(table(other, EFFECT, OTHER), every).score(other), plain, atol=1e-4)


def test_a_feature_that_never_differs_adds_nothing_and_a_missing_one_reads_0() -> None:
    x, every = told(), np.ones(3 * WORLDS, bool)
    still = np.c_[x, np.full(len(x), 0.7)]
    plain, more = _fit(table(x, EFFECT, OTHER), every), _fit(table(still, EFFECT, OTHER, TAIL), every)
    np.testing.assert_allclose(more.score(still), plain.score(x), atol=1e-6)
    gone = x.copy()
    gone[5, 0] = np.nan
    assert plain.score(gone)[5] == pytest.approx(plain.score(np.nan_to_num(gone))[5])


def test_subjects_that_are_not_seen_move_nothing() -> None:
    x, seen = told(), roster().world < 8
    moved = x + np.where(seen, 0.0, 9.0)[:, None]
    for a, b in zip(_fit(table(x, EFFECT, OTHER), seen), _fit(table(moved, EFFECT, OTHER), seen), strict=True):
        np.testing.assert_array_equal(a, b)
    everything = np.full((3 * WORLDS, 2), np.nan)
    everything[4, 1] = 0.0
    np.testing.assert_array_equal(np.flatnonzero(_usable(table(everything, EFFECT, OTHER))), [4])


def test_a_bar_is_what_clean_worlds_reach_and_beyond_reach_where_none_has_the_feature() -> None:
    worlds = np.arange(4)
    assert _bar(np.array([0.1, np.nan, 0.4, 0.3]), worlds) == 0.4
    assert _bar(np.full(4, np.nan), worlds) == np.inf


# ---- evidence ---------------------------------------------------------------------------------------------------
LINE = Line(np.zeros(5), np.ones(5), np.array([1.0, 0, 0, 0, 1.0]), np.full(5, 0.5), -1.0)
ROW = {EFFECT: 0.9, TAIL: LEAST_TAIL + 1, FLOOR: 0.2, FEW: 0.4, OTHER: 0.8}
CAUSAL, DECODING = ActiveEvidence("causal", "a.effect"), ActiveEvidence("decoding", "b.effect")


def joined(**changes: float) -> Any:
    names = {"effect": EFFECT, "tail": TAIL, "floor": FLOOR, "few": FEW, "other": OTHER}
    row = ROW | {names[name]: value for name, value in changes.items()}
    kinds: Any = ("causal", None, None, "causal", "decoding")
    whole = Table(roster(), tuple(row), kinds, np.empty((0, len(row))))
    values = np.array(list(row.values()))
    found = _joined(whole, LINE, values)
    assert found.lit == _lit(whole, LINE, values)
    return found


@pytest.mark.parametrize(
    ("changes", "lit"),
    [
        ({}, (CAUSAL,)), ({"effect": 0.5}, ()), ({"effect": float("nan")}, ()), ({"tail": LEAST_TAIL}, ()),
        ({"few": 0.6}, (CAUSAL, CAUSAL._replace(few=True))), ({"few": 0.5}, (CAUSAL,)),
        ({"few": 0.6, "tail": 0.0}, (CAUSAL._replace(few=True),)), ({"tail": float("nan")}, ()),
    ],
)  # fmt: skip
def test_an_effect_lights_up_above_its_bar_where_its_own_test_finds_it_and_few_people_by_themselves(
    changes: dict[str, float], lit: tuple[ActiveEvidence, ...]
) -> None:
    """The other measurement has no test of its own, and is no evidence whatever its effect."""
    assert joined(**changes).lit == lit


@pytest.mark.parametrize(
    ("changes", "score", "found"),
    [
        ({}, 0.7, True), ({"floor": 0.0}, 0.7, False), ({"floor": -0.1}, 0.7, False), ({"other": 0.1}, 0.0, False),
        ({"other": 0.11}, 0.01, True), ({"tail": 0.0}, 0.7, False),
    ],
)  # fmt: skip
def test_a_trace_is_a_score_above_0_and_evidence_that_suffices(
    changes: dict[str, float], score: float, found: bool
) -> None:
    model = joined(**changes)
    assert model.score == pytest.approx(score) and model.found == found


def test_a_stored_rule_is_applied_by_its_own_numbers() -> None:
    numbers = {EFFECT: (0.1, 0.5, 2.0, 0.3), TAIL: (1.0, 2.0, 0.5, 9.0), FLOOR: (0.0, 1.0, 0.0, 9.0)}
    weights = tuple(
        Weight(measurement=f.measurement, feature=f.feature, mean=m, sd=sd, slope=slope, bar=bar,
               evidence="causal" if f == EFFECT else None)
        for f, (m, sd, slope, bar) in numbers.items()
    )  # fmt: skip
    joint = Joint.model_construct(intercept=-1.0, weights=weights)
    row = {EFFECT: 0.6, TAIL: 3.0, FLOOR: 0.1}
    assert joint.columns == tuple(row)
    found = apply(joint, row)
    assert found.score == pytest.approx(-1 + 0.5 / 0.5 * 2.0 + 2.0 / 2.0 * 0.5)
    assert found.lit == (CAUSAL,) and found.found


# ---- tables -----------------------------------------------------------------------------------------------------
def calibration(probe: str, joins: bool = True, **columns: dict[int, float]) -> Calibration:
    made = tuple(
        Column(feature=name, subject=tuple(values), value=tuple(values.values())) for name, values in columns.items()
    )
    kinds = {"context": ("context", "trained"), "held": ("causal", "paraphrase")}
    kind, form = kinds.get(probe, ("causal", "trained"))
    measured = Calibrated.model_construct(name="effect", kind=kind, form=form, columns=made)
    return Calibration.model_construct(probe=probe, joins=joins, measurements=(measured,))


def test_a_table_holds_the_features_that_half_of_the_clean_and_knowing_have_of_measurements_that_join() -> None:
    pools = ("clean", "clean", "knowing", "knowing", "edited clean")
    people = tuple(Subject(world=n, model="m", mechanism="x", pool=pool, kept=2 * (pool == "knowing"), audited=2)
                   for n, pool in enumerate(pools))  # fmt: skip
    subjects = Subjects.model_construct(subjects=people)
    whole = dict.fromkeys(range(5), 0.5)
    calibrations = {
        "b": calibration("b", effect={0: 0.1, 3: 0.4}, tail=whole, largest_person={0: 0.1, 4: 9.0}),
        "a": calibration("a", over_floor=whole), "context": calibration("context", effect=whole),
        "held": calibration("held", effect=whole), "alone": calibration("alone", joins=False, effect=whole),
    }  # fmt: skip
    found = table_of(subjects, calibrations, None)
    floor, effect, tail = (Feature(f"{m}.effect", f) for m, f in (("a", "over_floor"), ("b", "effect"), ("b", "tail")))
    assert found.columns == (floor, effect, tail) and found.classes == (None, "causal", None)
    nan = float("nan")
    np.testing.assert_array_equal(found.x, np.array([[0.5] * 5, [0.1, nan, nan, 0.4, nan], [0.5] * 5]).T)
    some = table_of(subjects, calibrations, [tail, Feature("gone.effect", "effect"), floor])
    assert some.columns == (tail, floor) and some.x.shape == (5, 2)
    assert table_of(subjects, calibrations, []).x.shape == (5, 0)
