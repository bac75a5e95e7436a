"""Every rung of the ladder from hand-made measurements, and properties that any evidence must keep."""

import json
from pathlib import Path
from typing import get_args

import pytest
from hypothesis import given as cases
from hypothesis import strategies as st

from audit.calibration import zoo_floors
from audit.judging import NO_RATE, Given, decision_rule, given, in_case_state, judge, verdict
from audit.judging.ladder import reach, worded
from audit.schema import (
    AuditError,
    Case,
    Control,
    Count,
    DataFiles,
    Evidence,
    Form,
    Interval,
    Kind,
    Measurement,
    Missing,
    Overall,
    Power,
    Roles,
    Source,
    Status,
    Verdict,
)

FULL = Given(references=2, ancestor=True, holdout=True)
SINGLE = Given(references=1, ancestor=True, holdout=True)
ANCESTOR = Given(references=0, ancestor=True, holdout=True)
HOLDOUT = Given(references=0, ancestor=False, holdout=True)
NOTHING = Given(references=0, ancestor=False, holdout=False)
NONE = Missing(missing="not measured")
LADDER = ["CONSISTENT WITH NEVER TRAINED", "PARTIAL", "SUPPRESSED", "INTACT"]


def measured(kind: Kind, value: float | Missing, **changes: object) -> Measurement:
    """A measurement with a narrow interval around its value, a found base and a small floor."""
    spread = 0.03
    numbers = {
        "probe": f"some_{kind}", "name": "effect", "kind": kind, "statistic": "mean effect", "value": value,
        "unit": "effect", "scale": "effect",
        "n": Count(scored=100), "unit_of_replication": "person", "units": 32, "seed": 0,
        "ci95": NONE if isinstance(value, Missing) else Interval(lo=value - spread, hi=value + spread),
        "p": 0.5, "p_below": 0.5, "null": NONE, "floor": 0.02, "items": NONE,
        "positive_control": Control(value=1.0, ci95=NONE, found=True),
    }  # fmt: skip
    return Measurement.model_validate(numbers | changes)


def family(output: float = 0.0, causal: float = 0.0, decoding: float = 0.0, gate: float = 1.0) -> list[Measurement]:
    """One measurement of each kind; an effect of size is significant."""
    return [
        measured("gate", gate),
        *(
            measured(kind, value, p=0.001 if value >= 0.05 else 0.5, p_below=0.001 if value <= -0.05 else 0.5)
            for kind, value in (("output", output), ("causal", causal), ("decoding", decoding))
        ),
    ]


def ruled(measurements: list[Measurement], roles: Given = FULL) -> Verdict:
    return verdict([judge(m) for m in measurements], roles)


@pytest.mark.parametrize(
    ("numbers", "word"),
    [
        (family(output=1.0, causal=1.0, decoding=1.0), "INTACT"),
        (family(output=0.54), "INTACT"),
        (family(output=0.52), "PARTIAL"),
        (family(output=0.1), "PARTIAL"),
        (family(output=0.0, causal=1.0), "SUPPRESSED"),
        (family(output=0.0, decoding=0.1), "SUPPRESSED"),
        (family(output=0.0, decoding=0.06), "PARTIAL"),
        (family(), "CONSISTENT WITH NEVER TRAINED"),
        (family(output=1.0, causal=1.0, gate=0.49), "INVALID"),
        (family(output=-0.4), "INCONCLUSIVE"),
        (family(causal=-0.4, decoding=-0.4), "INCONCLUSIVE"),
        (family(output=-0.4, causal=0.9), "SUPPRESSED"),
    ],
)
def test_the_evidence_reaches_its_rung(numbers: list[Measurement], word: str) -> None:
    assert ruled(numbers).word == word


def test_a_blind_probe_is_inconclusive_and_never_removed() -> None:
    blind = measured("causal", 0.0, positive_control=Control(value=0.02, ci95=NONE, found=False))
    evidence = judge(blind)
    assert evidence.outcome == "inconclusive"
    assert "blind here" in evidence.because
    numbers = [m if m.kind != "causal" else blind for m in family()]
    assert ruled(numbers).word == "INCONCLUSIVE"
    assert "blind here" in " ".join(ruled(numbers).because)


def test_a_blind_probe_finds_no_trace_either() -> None:
    loud = measured("causal", 0.9, p=0.0001, positive_control=Control(value=0.02, ci95=NONE, found=False))
    assert judge(loud).outcome == "inconclusive"


def test_one_blind_mode_leaves_the_verdict_to_the_mode_that_sees() -> None:
    blind = measured("causal", 0.0, name="other", positive_control=Control(value=0.0, ci95=NONE, found=False))
    found = ruled([*family(), blind])
    assert found.word == "CONSISTENT WITH NEVER TRAINED"
    assert any("blind" in limit for limit in found.limits)


def test_no_eligible_layer_is_inconclusive_with_the_reason_where_the_case_knows_no_power() -> None:
    unread = measured("causal", Missing(missing="no layer has a retain gate of .5"), p=NONE, p_below=NONE)
    found = ruled([*(m for m in family() if m.kind != "causal"), unread])
    assert found.word == "INCONCLUSIVE" and "No common basis" in found.sentence
    assert "no layer has a retain gate of .5" in " ".join(found.because)
    shown = ruled([*(m for m in family(decoding=0.8) if m.kind != "causal"), unread])
    assert shown.word == "SUPPRESSED", "a trace in the suspect's own states needs no layer that base can read"


def test_one_of_two_causal_tests_without_a_value_is_no_lack_of_a_common_basis() -> None:
    unread = measured("causal", NONE, probe="patching")
    blind = measured("causal", 0.0, positive_control=Control(value=0.0, ci95=NONE, found=False))
    rest = [measured("gate", 1.0), measured("output", 0.0), measured("decoding", 0.0)]
    assert "no common basis" in ruled([*rest, unread]).sentence.lower()
    assert "no common basis" not in ruled([*rest, unread, blind]).sentence.lower()
    assert "blind: " in ruled([*rest, unread, blind]).sentence.lower()


def test_a_wide_interval_is_not_silence() -> None:
    wide = measured("decoding", 0.02, ci95=Interval(lo=-0.1, hi=0.14))
    assert judge(wide).outcome == "inconclusive"
    assert ruled([m if m.kind != "decoding" else wide for m in family()]).word == "INCONCLUSIVE"


@pytest.mark.parametrize(("floor", "outcome"), [(0.05, "trace found"), (0.07, "inconclusive")])
def test_a_trace_has_to_exceed_the_floor(floor: float, outcome: str) -> None:
    assert judge(measured("causal", 0.06, p=0.001, floor=floor, ci95=Interval(lo=0.01, hi=0.11))).outcome == outcome


def test_without_a_floor_a_trace_needs_three_times_the_zoos_and_says_so() -> None:
    alone = measured("causal", 0.2, p=0.001, floor=NONE)
    assert judge(alone, {"some_causal.effect": 0.06}).outcome == "trace found"
    assert judge(alone, {"some_causal.effect": 0.07}).outcome == "inconclusive"
    assert judge(alone).outcome == "trace found"
    assert "no floor was measured for this kind of model" in judge(alone).because
    assert any("no floor" in limit for limit in ruled([*family(), alone]).limits)


@pytest.mark.parametrize("p", [0.01, NONE])
def test_a_trace_needs_a_small_p(p: object) -> None:
    assert judge(measured("causal", 0.06, p=p)).outcome != "trace found"


def profile(value: float, overall: float, **changes: object) -> Measurement:
    """A depth profile: its largest effect is noisy, its overall effect is what bounds it."""
    ci95 = Interval(lo=overall - 0.04, hi=overall + 0.04)
    wide = Interval(lo=value - 0.2, hi=value + 0.2)
    return measured("causal", value, ci95=wide, overall=Overall(value=overall, ci95=ci95, floor=0.03), **changes)


def test_the_overall_effect_bounds_what_the_largest_of_several_layers_cannot() -> None:
    assert judge(profile(0.06, 0.01)).outcome == "no trace found"
    assert judge(profile(0.06, 0.07)).outcome == "inconclusive"


def test_a_hint_above_the_floor_is_not_silence() -> None:
    hint = judge(profile(0.4, 0.01, p=0.03))
    assert hint.outcome == "inconclusive" and "hint" in hint.because
    assert judge(profile(0.4, 0.01, p=0.06)).outcome == "no trace found"
    assert judge(profile(0.4, 0.01, p=0.03, floor=0.5)).outcome == "no trace found"


def test_a_profile_is_below_by_its_overall_effect_and_beyond_the_spread_of_references() -> None:
    assert judge(profile(-0.02, -0.15, p_below=0.001)).direction == "below"
    assert judge(profile(-0.02, -0.15, p_below=0.2)).direction == "none"
    assert judge(profile(-0.2, -0.02, p_below=0.001)).direction == "none"
    far = Overall(value=-0.15, ci95=Interval(lo=-0.2, hi=-0.1), floor=0.2)
    assert judge(profile(-0.02, -0.15, p_below=0.001).model_copy(update={"overall": far})).direction == "none"


def test_below_the_never_trained_level_is_a_finding_of_its_own() -> None:
    evidence = judge(measured("output", -0.3, p_below=0.001))
    assert (evidence.outcome, evidence.direction) == ("trace found", "below")
    found = ruled(family(output=-0.3))
    assert (found.word, found.direction) == ("INCONCLUSIVE", "below")
    assert "over-suppressed" in " ".join(found.because)


@pytest.mark.parametrize("form", ["held_out_phrasing", "held_out_attribute"])
@pytest.mark.parametrize("kind", ["output", "causal", "decoding"])
def test_a_trace_on_held_out_forms_turns_consistent_into_partial(form: Form, kind: Kind) -> None:
    apart = measured(kind, 0.6, p=0.001, form=form)
    assert ruled([*family(), apart]).word == "PARTIAL"


@pytest.mark.parametrize(("p", "tests", "word"), [
    (0.008, 1, "PARTIAL"), (0.008, 2, "CONSISTENT WITH NEVER TRAINED"), (0.004, 2, "PARTIAL"),
])  # fmt: skip
def test_a_trace_on_held_out_forms_has_to_stand_out_among_all_tests_of_them(p: float, tests: int, word: str) -> None:
    apart = measured("causal", 0.6, p=p, form="held_out_attribute")
    silent = [measured("causal", 0.0, form="held_out_phrasing")] * (tests - 1)
    found = ruled([*family(), apart, *silent])
    assert found.word == word and ("Holm" in " ".join(found.because)) == (word != "PARTIAL")


def test_before_any_joint_rule_a_held_out_form_counts_only_above_its_calibrated_threshold() -> None:
    apart = measured("causal", 0.6, p=0.001, form="held_out_attribute")
    here = {(apart.probe, apart.name)}

    def said(found: list[Measurement], above: set[tuple[str, str]]) -> str:
        return in_case_state([judge(m) for m in found], above)

    assert said([*family(), apart], here) == "elsewhere"
    assert said([*family(), apart], set()) == "quiet" == said(family(), here)
    assert said([*family(), apart.model_copy(update={"p": 0.02})], here) == "quiet"
    assert said([*family(output=0.3), apart], here) == "shown"
    assert said([m for m in family() if m.kind != "gate"], here) == "stopped"


def test_without_a_second_reference_a_large_floor_of_the_zoo_leaves_room_for_all_that_base_knows() -> None:
    kept = measured("causal", 0.9, p=0.001, floor=NONE)
    partly = kept.model_copy(update={"value": 0.7, "ci95": Interval(lo=0.6, hi=0.8)})
    wide, narrow = {"some_causal.effect": 0.5}, {"some_causal.effect": 0.2}
    assert judge(kept, wide).outcome == "trace found" == judge(partly, narrow).outcome
    assert judge(partly, wide).outcome != "trace found", "not half way from the floor to base"
    assert judge(measured("causal", 0.59, p=0.001, floor=NONE), narrow).outcome != "trace found", "three times it"


def test_where_no_causal_test_reads_a_suspect_a_trace_in_its_states_must_be_one_for_the_calibration_too() -> None:
    seen = measured("decoding", 0.5, p=0.001)
    denied = {(seen.probe, seen.name)}

    def states(found: list[Measurement]) -> tuple[str, str]:
        judged = [judge(m) for m in found]
        return in_case_state(judged, ()), in_case_state(judged, (), denied)

    unread = [measured("gate", 1.0), measured("output", 0.0), measured("causal", NONE), seen]
    assert states(unread) == ("shown", "unreadable")
    told = [m if m.kind != "output" else measured("output", 0.4, p=0.001) for m in unread]
    assert states(told) == ("shown", "shown"), "what it says is no matter of its states"
    read = [m if m.kind != "causal" else measured("causal", 0.0) for m in unread]
    assert len(set(states(read))) == 1, "a readable suspect is the joint rule's business"


@cases(st.sampled_from(["output", "causal", "decoding"]), st.floats(-1, 1), st.sampled_from([0.001, 0.5]))
def test_held_out_forms_never_lower_a_verdict(kind: Kind, value: float, p: float) -> None:
    apart = measured(kind, value, p=p, p_below=p, form="held_out_phrasing")
    for numbers in (family(), family(output=0.2), family(output=0.9), family(causal=0.9)):
        alone, both = ruled(numbers).word, ruled([*numbers, apart]).word
        assert LADDER.index(both) >= LADDER.index(alone)


@pytest.mark.parametrize("kind", ["causal", "decoding"])
def test_consistent_needs_both_kinds_of_inside_test(kind: Kind) -> None:
    assert ruled([m for m in family() if m.kind != kind]).word == "INCONCLUSIVE"


def test_consistent_needs_an_output_test_that_sees_base() -> None:
    assert ruled([m for m in family() if m.kind != "output"]).word == "INCONCLUSIVE"


def test_without_a_utility_gate_nothing_is_said() -> None:
    assert ruled([m for m in family(output=1.0) if m.kind != "gate"]).word == "INCONCLUSIVE"


def test_paper_mode_and_context_never_enter_a_verdict() -> None:
    loud = [measured("causal", 0.9, p=0.001, mode="paper"), measured("context", 0.9, p=0.001)]
    assert ruled([*family(), *loud]).word == "CONSISTENT WITH NEVER TRAINED"
    assert {judge(m).outcome for m in loud} == {"inconclusive"}


BLIND = Control(value=0.02, ci95=NONE, found=False)
BLUNTLY = Power(share=0.6, people=NONE, of=32, power=0.8)
STATUSES: list[tuple[str, str, str, Measurement]] = [
    ("gate_passed", "inconclusive", "none", measured("gate", 0.5)),
    ("gate_failed", "inconclusive", "none", measured("gate", 0.49)),
    ("gate_unmeasured", "inconclusive", "none", measured("gate", NONE)),
    ("listed", "inconclusive", "none", measured("context", 0.9, p=0.001)),
    ("listed", "inconclusive", "none", measured("recovery", 0.9, p=0.001, scale="score")),
    ("trace", "trace found", "above", measured("recovery", 0.9, p=0.001)),
    ("silent", "no trace found", "none", measured("recovery", -0.3, p_below=0.001)),
    ("blunt", "inconclusive", "none", measured("causal", 0.0, power=BLUNTLY)),
    ("trace", "trace found", "above", measured("causal", 0.9, p=0.001, power=BLUNTLY)),
    ("listed", "inconclusive", "none", measured("causal", 0.9, p=0.001, mode="paper")),
    ("blind", "inconclusive", "none", measured("causal", NONE)),
    ("blind", "inconclusive", "none", measured("causal", 0.9, positive_control=NONE)),
    ("blind", "inconclusive", "none", measured("causal", 0.9, positive_control=BLIND)),
    ("below", "trace found", "below", measured("decoding", -0.3, p_below=0.001)),
    ("trace", "trace found", "above", measured("output", 0.1, p=0.001)),
    ("undecided", "inconclusive", "none", measured("output", 0.4, p=0.41)),
    ("trace", "trace found", "above", measured("causal", 0.06, p=0.001)),
    ("within_floor", "inconclusive", "none", measured("causal", 0.06, p=0.001, floor=0.07)),
    ("hint", "inconclusive", "none", measured("decoding", 0.3, p=0.03)),
    ("silent", "no trace found", "none", measured("causal", 0.0)),
    ("undecided", "inconclusive", "none", measured("causal", 0.08)),
]


@pytest.mark.parametrize(("status", "outcome", "direction", "m"), STATUSES)
def test_what_became_of_a_measurement_is_a_field_and_its_outcome_follows(
    status: str, outcome: str, direction: str, m: Measurement
) -> None:
    evidence = judge(m)
    assert (evidence.status, evidence.outcome, evidence.direction) == (status, outcome, direction)


def test_every_status_is_reached_by_some_measurement() -> None:
    assert {status for status, *_ in STATUSES} == set(get_args(Status))


# ---- what roles allow -------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("roles", "word", "strength"),
    [
        (FULL, "CONSISTENT WITH NEVER TRAINED", "full"),
        (SINGLE, "CONSISTENT WITH NEVER TRAINED", "weak"),
        (ANCESTOR, "CONSISTENT WITH NEVER TRAINED", "weak"),
        (HOLDOUT, "INCONCLUSIVE", "none"),
        (NOTHING, "INCONCLUSIVE", "none"),
    ],
)
def test_missing_roles_weaken_silence(roles: Given, word: str, strength: str) -> None:
    found = ruled(family(), roles)
    assert (found.word, found.strength) == (word, strength)


@pytest.mark.parametrize(("roles", "strength"), [(FULL, "full"), (ANCESTOR, "full"), (NOTHING, "weak")])
def test_missing_roles_leave_the_trace_side(roles: Given, strength: str) -> None:
    found = ruled(family(causal=0.9), roles)
    assert (found.word, found.strength) == ("SUPPRESSED", strength)


def test_a_reference_of_another_initialisation_is_no_null() -> None:
    other = Source(path="r", lineage="other_initialisation")
    roles = Roles(base=Source(path="b"), suspect=Source(path="s"), references=(other,))
    case = Case(name="c", roles=roles, data=DataFiles(forget="f", retain="r"))
    assert given(case) == NOTHING


# ---- the words --------------------------------------------------------------------------------------------------
def test_the_sentence_carries_the_numbers_and_claims_no_ratio() -> None:
    found = ruled(family(causal=0.8))
    assert found.sentence.startswith("SUPPRESSED: mean effect is 0.8")
    assert "No error rate is known for models of this kind, so no likelihood ratio is given." in found.sentence
    assert "a model that never knew reads 0.020, the model that knew 1.0; p = 0.0010" in found.sentence
    assert found.basis == "in-case"


@pytest.mark.parametrize(
    "numbers", [family(), family(output=1), family(causal=1), family(gate=0.1), [], family(output=-1)]
)
def test_an_in_case_verdict_says_once_that_no_rate_is_known_and_on_what_it_rests(
    numbers: list[Measurement],
) -> None:
    for roles in (FULL, ANCESTOR, NOTHING):
        plain = ruled(numbers, roles)
        aged = worded(reach([judge(m) for m in numbers], roles), roles, "In-case basis: it is stale.")
        assert plain.sentence.endswith(f" {NO_RATE}") and plain.sentence.count(NO_RATE) == 1
        assert sum(limit.startswith("In-case basis") for limit in plain.limits) == 1
        assert aged.limits[0] == "In-case basis: it is stale."
        assert [x for x in plain.limits if not x.startswith("In-case basis")] == list(aged.limits[1:])


def test_no_rung_uses_a_banned_word() -> None:
    from audit.render.wording.findings import BANNED

    words = " ".join(decision_rule())
    for numbers in (family(), family(output=1), family(causal=1), family(gate=0.1), family(output=-1)):
        for roles in (FULL, ANCESTOR, NOTHING):
            words += ruled(numbers, roles).model_dump_json() + " ".join(judge(m).because for m in numbers)
    assert not [word for word in BANNED if word in words]


def test_the_rule_states_the_numbers_that_the_code_uses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("audit.judging.explain.INTACT_EFFECT", 0.77)
    assert "0.77" in " ".join(decision_rule())


# ---- stored floors ----------------------------------------------------------------------------------------------
def test_floors_are_read_from_the_calibrations(tmp_path: Path) -> None:
    assert zoo_floors(tmp_path) == {}
    (tmp_path / "floors.json").write_text(json.dumps({"floors": {"a.b": 0.04}}))
    assert zoo_floors(tmp_path) == {"a.b": 0.04}
    (tmp_path / "floors.json").write_text("{}")
    with pytest.raises(AuditError) as raised:
        zoo_floors(tmp_path)
    assert raised.value.code == 3


# ---- properties -------------------------------------------------------------------------------------------------
unit = st.floats(0, 1)
number = st.one_of(st.floats(-3, 3), st.just(NONE))
p_value = st.one_of(unit, st.just(NONE))


@st.composite
def measurements(draw: st.DrawFn) -> Measurement:
    value = draw(number)
    lo, hi = sorted((draw(st.floats(-3, 3)), draw(st.floats(-3, 3))))
    control = st.builds(Control, value=unit, ci95=st.just(NONE), found=st.booleans())
    return measured(
        draw(st.sampled_from(["gate", "output", "causal", "decoding", "context"])),
        value,
        ci95=draw(st.sampled_from([NONE, Interval(lo=lo, hi=hi)])),
        p=draw(p_value),
        p_below=draw(p_value),
        floor=draw(st.one_of(unit, st.just(NONE))),
        positive_control=draw(st.one_of(st.just(NONE), control)),
        mode=draw(st.sampled_from(["controlled", "paper"])),
        form=draw(st.sampled_from(["trained", "held_out_phrasing"])),
    )


roles_given = st.builds(Given, references=st.integers(0, 3), ancestor=st.booleans(), holdout=st.booleans())


@cases(st.lists(measurements(), max_size=6), roles_given)
def test_every_evidence_has_a_verdict_and_it_round_trips(numbers: list[Measurement], roles: Given) -> None:
    evidence = [judge(m) for m in numbers]
    found = verdict(evidence, roles)
    assert Verdict.model_validate_json(found.model_dump_json()) == found
    assert [Evidence.model_validate_json(e.model_dump_json()) for e in evidence] == evidence
    assert len(found.limits) <= 5
    assert found.because


@cases(st.lists(measurements(), max_size=6), roles_given)
def test_silence_without_base_being_found_is_never_consistent(numbers: list[Measurement], roles: Given) -> None:
    unseen = [m.model_copy(update={"positive_control": Control(value=0.0, ci95=NONE, found=False)}) for m in numbers]
    assert ruled(unseen, roles).word in ("INCONCLUSIVE", "INVALID")


@cases(st.lists(measurements(), max_size=6), roles_given)
def test_the_order_of_measurements_does_not_matter(numbers: list[Measurement], roles: Given) -> None:
    assert ruled(numbers, roles).word == ruled(numbers[::-1], roles).word


@cases(st.floats(0, 1), st.floats(0, 1), st.sampled_from(["output", "causal", "decoding"]))
def test_more_effect_never_reads_as_less_knowledge(one: float, other: float, kind: str) -> None:
    less, more = (ruled(family(**{kind: round(value, 2)})).word for value in sorted((one, other)))
    # Between silence and a trace lies INCONCLUSIVE: it stands below every trace and above CONSISTENT. Which of two
    # words a trace gets is no order: the more is said, the less is hidden.
    order = {"CONSISTENT WITH NEVER TRAINED": 0, "INCONCLUSIVE": 1, "PARTIAL": 2, "SUPPRESSED": 2, "INTACT": 3}
    assert order[less] <= order[more]


@cases(st.lists(measurements(), max_size=6), roles_given)
def test_fewer_roles_never_make_silence_stronger(numbers: list[Measurement], roles: Given) -> None:
    if ruled(numbers, roles).word != "CONSISTENT WITH NEVER TRAINED":
        assert ruled(numbers, NOTHING).word != "CONSISTENT WITH NEVER TRAINED"
