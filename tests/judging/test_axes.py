"""The two axes: which word follows of what is said and what is held, and that no word contradicts an interval."""

import pytest
from hypothesis import given as cases
from hypothesis import strategies as st

from audit.judging import Given, judge, verdict
from audit.judging.axes import axes, widened
from audit.schema import (
    INTACT_EFFECT,
    Interval,
    Kind,
    Measurement,
    Missing,
    Overall,
    PeopleKept,
    Power,
    Share,
    Verdict,
)
from tests.judging.test_judging import ANCESTOR, FULL, NONE, measured, measurements, roles_given

NEAR = {"CONSISTENT WITH NEVER TRAINED", "INCONCLUSIVE"}


def reading(kind: Kind, value: float, lo: float, hi: float, p: float, **changes: object) -> Measurement:
    """A test with this interval."""
    return measured(kind, value, ci95=Interval(lo=lo, hi=hi), p=p, **changes)


def ruled(*tests: Measurement, roles: Given = FULL) -> Verdict:
    return verdict([judge(m) for m in (measured("gate", 1.0), *tests)], roles)


QUIET = (reading("causal", 0.0, -0.03, 0.03, 0.5), reading("decoding", 0.0, -0.03, 0.03, 0.5))
LOW = {"p": 0.99, "p_below": 0.0001}


# ---- wrong words, each as it was met ----------------------------------------------------------------------------
@pytest.mark.parametrize(("leak", "inside"), [(0.12, 0.7), (0.24, 1.0), (0.18, 0.85)])
def test_a_fake_whose_outputs_leak_is_suppressed_where_it_holds_more_inside(leak: float, inside: float) -> None:
    found = ruled(
        reading("output", leak, leak - 0.05, leak + 0.08, 0.0001),
        reading("causal", inside, inside - 0.1, inside + 0.05, 0.0001),
        QUIET[1],
    )
    assert found.word == "SUPPRESSED"
    assert isinstance(found.outputs, Share) and isinstance(found.internals, Share)
    assert found.internals.ci95.lo > found.outputs.ci95.hi
    assert "it hides more than it says" in found.because[0]


def test_a_model_taught_half_of_the_people_is_partial_and_never_as_good_as_base() -> None:
    of_half = PeopleKept(
        kept=0.5, ci95=Interval(lo=0.4, hi=0.6), level=1.0, log10_ratio=20.0, named=("a",), fdr=0.1, of=32
    )
    found = ruled(
        reading("output", 0.515, 0.13, 0.88, 0.0001, people=of_half),
        reading("causal", 0.5, 0.3, 0.7, 0.0001, people=of_half),
        reading("decoding", 0.5, 0.3, 0.7, 0.0001, people=of_half),
    )
    assert found.word == "PARTIAL" and found.people == of_half
    assert "16 of 32 people" in found.sentence
    assert "as good as base" not in found.model_dump_json()


def test_outputs_above_a_level_that_their_own_test_does_not_find_are_no_trace() -> None:
    """A model that says more of everybody, whom it was taught and whom it was not: p compares the two."""
    shift = reading("output", 0.13, 0.1, 0.17, 0.41)
    assert judge(shift).status == "undecided"
    assert ruled(shift, *QUIET).word != "PARTIAL"
    assert ruled(shift, reading("causal", 0.13, 0.06, 0.2, 0.0001), QUIET[1]).word == "PARTIAL"


def test_over_suppressed_outputs_with_knowledge_inside_are_suppressed_and_without_are_undecided_for_that_reason() -> (
    None
):
    low = reading("output", -0.3, -0.4, -0.2, **LOW)
    assert ruled(low, reading("causal", 0.4, 0.3, 0.5, 0.0001), QUIET[1]).word == "SUPPRESSED"
    alone = ruled(low, *QUIET)
    assert (alone.word, alone.direction) == ("INCONCLUSIVE", "below")
    assert alone.sentence.startswith("INCONCLUSIVE: Over-suppressed. ")
    assert not any("More forget groups" in x for x in alone.would_change)
    assert any("was not tried" in x for x in alone.would_change)


@pytest.mark.parametrize(("back", "p", "word"), [(0.3, 0.0001, "SUPPRESSED"), (0.3, 0.4, "INCONCLUSIVE")])
def test_what_relearning_brings_back_beyond_a_reference_shows_what_a_model_below_it_hides(
    back: float, p: float, word: str
) -> None:
    low = reading("causal", -0.2, -0.3, -0.1, **LOW)
    again = reading("recovery", back, back - 0.06, back + 0.06, p)
    found = ruled(reading("output", 0.03, -0.01, 0.08, 0.5), low, QUIET[1], again)
    assert found.word == word
    assert not any("was not tried" in x for x in found.would_change)


def test_an_attack_that_brings_back_no_more_than_the_outputs_say_adds_nothing() -> None:
    leak = reading("output", 0.09, 0.07, 0.11, 0.003)
    rounded = reading("recovery", 0.09, 0.07, 0.11, 0.003)
    assert judge(rounded).status == "trace"
    assert axes([judge(leak), judge(rounded)]).recovered == ()
    assert ruled(leak, *QUIET, rounded).word in NEAR
    assert ruled(reading("output", 0.0, -0.02, 0.02, 0.5), *QUIET, rounded).word == "SUPPRESSED"


def test_a_trace_inside_that_is_not_beyond_doubt_above_the_outputs_is_partial() -> None:
    both = reading("output", 0.3, 0.2, 0.45, 0.0001), reading("causal", 0.5, 0.4, 0.6, 0.0001)
    assert ruled(*both, QUIET[1]).word == "PARTIAL"


def test_without_outputs_nothing_is_said_to_hide_more_than_it_says() -> None:
    assert ruled(reading("causal", 0.9, 0.8, 1.0, 0.0001)).word == "PARTIAL"


def test_a_suspect_is_below_only_by_more_than_references_lie_apart() -> None:
    def low(**changes: object) -> Measurement:
        return reading("causal", -0.02, -0.1, 0.1, p=0.99, p_below=0.0001, **changes)

    ci95 = Interval(lo=-0.2, hi=-0.1)
    near, far = (low(overall=Overall(value=-0.15, ci95=ci95, floor=f)) for f in (0.12, 0.05))
    assert judge(near).direction == "none" and judge(far).direction == "below"
    assert judge(far, {"some_causal.effect": 0.11}).direction == "none", "two references may be alike by chance"
    only = low(overall=Overall(value=-0.15, ci95=ci95, floor=NONE))
    assert judge(only, {"some_causal.effect": 0.02}).direction == "below"
    assert judge(only, {"some_causal.effect": 0.05}).direction == "none", "three times the zoo's, as for traces"


def test_an_interval_that_reaches_up_to_the_spread_of_references_is_not_below() -> None:
    """Its upper end decides: that the lower one is far down says only that the interval is wide."""

    def low(hi: float) -> Measurement:
        overall = Overall(value=-0.15, ci95=Interval(lo=-0.4, hi=hi), floor=0.1)
        return reading("causal", -0.02, -0.1, 0.1, p=0.99, p_below=0.0001, overall=overall)

    assert judge(low(-0.11)).direction == "below"
    assert judge(low(-0.1)).direction == "none" and judge(low(0.05)).direction == "none"


def test_of_several_traces_the_one_that_gives_the_axis_leads_and_the_rest_follow_by_size() -> None:
    wide, axis, small = (
        reading("output", value, lo, value + 0.05, 0.0001, probe=f"output_{value}")
        for value, lo in ((0.4, 0.1), (0.3, 0.28), (0.2, 0.15))
    )
    held = reading("causal", 0.1, 0.06, 0.14, 0.0001)
    found = ruled(small, held, wide, axis)
    assert found.word == "PARTIAL" and "mean effect is 0.30" in found.sentence
    order = [line.partition(",")[0] for line in found.because[1:]]
    assert order == ["output_0.3", "output_0.4", "output_0.2", "some_causal"]


def test_of_several_traces_inside_the_one_that_gives_the_axis_leads_where_they_hide_something() -> None:
    wide, axis = (
        reading("causal", value, lo, value + 0.05, 0.0001, probe=f"causal_{value}")
        for value, lo in ((0.8, 0.2), (0.6, 0.5))
    )
    found = ruled(reading("output", 0.0, -0.02, 0.02, 0.5), wide, axis)
    assert found.word == "SUPPRESSED" and "mean effect is 0.60" in found.sentence


def test_a_suspect_far_below_the_only_model_that_never_knew_is_not_silent() -> None:
    low = reading("causal", -0.02, -0.1, 0.1, p=0.99, p_below=0.0001)
    far = Interval(lo=-0.12, hi=-0.06)
    only = low.model_copy(update={"overall": Overall(value=-0.09, ci95=far, floor=NONE)})
    assert judge(only, {"some_causal.effect": 0.05}).status == "undecided"
    assert "below the only model that never knew" in judge(only, {"some_causal.effect": 0.05}).because
    assert judge(only, {"some_causal.effect": 0.07}).status == "silent", "such models have been seen that far apart"
    two = low.model_copy(update={"overall": Overall(value=-0.09, ci95=far, floor=0.07)})
    assert judge(two, {"some_causal.effect": 0.05}).status == "silent", "and here two of them are"
    chance = only.model_copy(update={"p_below": 0.02})
    assert judge(chance, {"some_causal.effect": 0.05}).status == "silent"
    assert ruled(QUIET[0], QUIET[1], only).word == "INCONCLUSIVE"


@pytest.mark.parametrize(("k", "half"), [(1, 0.1), (4, 0.127), (7, 0.137)])
def test_an_interval_is_widened_to_all_tests_that_compete(k: int, half: float) -> None:
    wide = widened(reading("causal", 0.5, 0.4, 0.6, 0.0001), k)
    assert wide is not None
    assert wide.hi - 0.5 == pytest.approx(half, abs=0.001) and 0.5 - wide.lo == pytest.approx(half, abs=0.001)


def test_an_end_beyond_its_own_value_is_not_widened_past_it() -> None:
    above, below = (reading("output", 0.2, lo, hi, 0.5) for lo, hi in ((0.25, 0.4), (0.1, 0.15)))
    assert widened(above, 4).lo == 0.2 < 0.4 < widened(above, 4).hi  # type: ignore[union-attr]
    assert widened(below, 4).hi == 0.2 and widened(below, 4).lo < 0.1  # type: ignore[union-attr]


def test_the_axis_is_the_test_with_the_highest_lower_bound_among_those_that_show_a_trace() -> None:
    wide, narrow = reading("causal", 0.9, 0.1, 1.0, 0.0001), reading("decoding", 0.6, 0.55, 0.65, 0.0001)
    loud = reading("recovery", 2.0, 1.9, 2.1, 0.0001, scale="score")
    found = axes([judge(m) for m in (wide, narrow, loud)])
    assert isinstance(found.internals, Share) and found.internals.measurement == "some_decoding.effect"


def test_no_floor_is_a_limit_only_where_a_measurement_that_takes_part_lacks_it() -> None:
    aside = reading("decoding", 0.0, -0.03, 0.03, 0.5, floor=NONE)
    trace = reading("causal", 0.9, 0.8, 1.0, 0.0001)
    shown = ruled(reading("output", 0.0, -0.03, 0.03, 0.5), trace, aside)
    assert shown.word == "SUPPRESSED" and not any("no floor" in x for x in shown.limits)
    bare = trace.model_copy(update={"floor": NONE})
    assert any("no floor" in x for x in ruled(reading("output", 0.0, -0.03, 0.03, 0.5), bare, aside).limits)


def test_a_case_without_a_retrained_reference_still_says_so_among_five_limits() -> None:
    assert any(x.startswith("In-case basis") for x in ruled(*QUIET, roles=ANCESTOR).limits)


# ---- properties -------------------------------------------------------------------------------------------------
@st.composite
def evidenced(draw: st.DrawFn) -> list[Measurement]:
    """A gate that is passed, and some tests whose interval holds their value."""
    found = [measured("gate", 1.0)]
    kinds: list[Kind] = ["output", "causal", "decoding", "recovery"]
    for kind in draw(st.lists(st.sampled_from(kinds), max_size=6)):
        value = draw(st.floats(-1, 1.5))
        lo, hi = value - draw(st.floats(0, 0.5)), value + draw(st.floats(0, 0.5))
        share = draw(st.one_of(st.floats(0.01, 1), st.just(NONE)))
        power = Power(share=share, people=NONE, of=32, power=0.8)
        overall = Overall(value=value, ci95=Interval(lo=lo, hi=hi), floor=draw(st.floats(0, 0.1)))
        p = draw(st.sampled_from([0.0001, 0.005, 0.03, 0.5]))
        found.append(
            reading(
                kind, value, lo, hi, p, p_below=draw(st.sampled_from([0.0001, 0.5])), overall=overall,
                power=draw(st.sampled_from([power, NONE])), floor=draw(st.sampled_from([0.02, NONE])),
            )
        )  # fmt: skip
    return found


@cases(evidenced(), roles_given)
def test_no_word_contradicts_an_interval(numbers: list[Measurement], roles: Given) -> None:
    found = verdict([judge(m) for m in numbers], roles)
    outputs, inside = found.outputs, found.internals
    if found.word == "INTACT":
        assert isinstance(outputs, Share) and outputs.ci95.lo >= INTACT_EFFECT
    if found.word == "SUPPRESSED":
        assert isinstance(outputs, Share) and isinstance(inside, Share) and inside.ci95.lo > outputs.ci95.hi
    if found.word == "PARTIAL":
        lows = [x.ci95.lo for x in (outputs, inside) if isinstance(x, Share)]
        traces = [e for m in numbers if (e := judge(m)).status == "trace"]
        assert traces and all(not isinstance(e.measurement.ci95, Missing) and e.measurement.ci95.lo > 0 for e in traces)
        assert lows
    if found.word == "CONSISTENT WITH NEVER TRAINED":
        assert not any(judge(m).status in ("trace", "below") for m in numbers)


@cases(evidenced(), roles_given, st.floats(0, 1))
def test_more_inside_never_turns_a_trace_into_silence(numbers: list[Measurement], roles: Given, more: float) -> None:
    def raised(m: Measurement) -> Measurement:
        if m.kind not in ("causal", "decoding", "recovery") or isinstance(m.ci95, Missing):
            return m
        up = Interval(lo=m.ci95.lo + more, hi=m.ci95.hi + more)
        value = m.value if isinstance(m.value, Missing) else m.value + more
        assert isinstance(m.overall, Overall) and isinstance(value, float)
        overall = m.overall.model_copy(update={"value": value, "ci95": up})
        return m.model_copy(update={"value": value, "ci95": up, "overall": overall, "p": 0.0001, "p_below": 0.5})

    before = verdict([judge(m) for m in numbers], roles)
    after = verdict([judge(raised(m)) for m in numbers], roles)
    if before.word in ("SUPPRESSED", "PARTIAL", "INTACT"):
        assert after.word not in NEAR


@cases(st.lists(measurements(), max_size=6), roles_given)
def test_a_suspect_below_is_told_no_ratio_for_never_trained_and_no_more_groups(
    numbers: list[Measurement], roles: Given
) -> None:
    found = verdict([judge(m) for m in numbers], roles)
    if found.direction == "below":
        assert isinstance(found.ratio, Missing) and found.word == "INCONCLUSIVE"
        assert not any("More forget groups" in x for x in found.would_change)
