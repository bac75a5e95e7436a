"""Calibrated judging: ratios under their ceiling, the joint verdict, and the fall back where no calibration holds."""

from collections.abc import Sequence
from functools import cache
from pathlib import Path

import pytest
from hypothesis import given as cases
from hypothesis import settings
from hypothesis import strategies as st

from audit.calibration import ProbeIdentity, feature_row, fit_joint
from audit.calibration.behaviour import Attested
from audit.judging import (
    KNOWS,
    NEVER,
    ApplicableCalibrations,
    Given,
    decide,
    judge,
    judged,
    power_sentence,
    restand,
    stand,
    supported,
    verdict,
)
from audit.judging.calibrated import NOTHING, Opinion, opinion, validation
from audit.judging.support import NO_SUPPORT, Proposition, band, rate, ratio_number, ratio_sentence, short, weighed
from audit.pools.fit import calibrate, write_all
from audit.render.wording.findings import BANNED
from audit.schema import (
    DetectionLimit,
    Domain,
    Evidence,
    Interval,
    LikelihoodRatio,
    Measurement,
    Missing,
    Rate,
    Validation,
    Verdict,
)
from tests.known_truth import AUDITED, DOMAIN, KINDS, ZOO, gate, made, measured, other, pool

ROLES = Given(references=2, ancestor=True, holdout=True)
WORLDS = 16


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of calibrations."""
    out = tmp_path_factory.mktemp("calibrations")
    write_all(out, made())
    return out


def ran() -> dict[str, ProbeIdentity]:
    """The probes of the pool as they were calibrated."""
    return {probe: ProbeIdentity(1, {}) for probe in KINDS}


def opinion_of(evidence: Sequence[Evidence], calibrations: ApplicableCalibrations) -> Opinion | None:
    return opinion(evidence, [feature_row(e.measurement) for e in evidence], calibrations)


def standing(
    folder: Path, asked: dict[str, ProbeIdentity] | None = None, domain: Domain = DOMAIN, changed: Sequence[str] = ()
) -> ApplicableCalibrations:
    """What stands where these probes behave otherwise than when they were calibrated."""

    def moved(record: Attested) -> tuple[str, ...]:
        return other(record) if record.behaviour.probe in changed else ()

    return stand(folder, asked or ran(), domain, moved)


def seen(inside: float, lens: float = 0.0, outside: float = 0.0, utility: float = 1.0) -> list[Measurement]:
    """A suspect with these effects; where it has one, one person stands out."""
    effects = {"outside": outside, "inside": inside, "lens": lens}
    return [gate(utility), *(measured(p, v, 2.0 + 10 * (v > 0.05)) for p, v in effects.items())]


def ruled(found: Sequence[Measurement], by: ApplicableCalibrations) -> tuple[tuple[Evidence, ...], Verdict]:
    return decide(tuple(judge(m) for m in found), ROLES, by)


def ratio_in(found: Verdict | Evidence) -> LikelihoodRatio:
    assert isinstance(found.ratio, LikelihoodRatio)
    return found.ratio


# ---- the verdict ------------------------------------------------------------------------------------------------
def test_a_hidden_trace_is_suppressed_with_a_ratio_words_and_counted_mistakes(folder: Path) -> None:
    evidence, found = ruled(seen(1.0), standing(folder))
    assert (found.word, found.direction, found.basis) == ("SUPPRESSED", "above", "calibrated")
    ratio = ratio_in(found)
    assert 10 < ratio.value <= ratio.ceiling == pytest.approx(WORLDS + 1)
    assert ratio.words in ("weak support", "moderate support")
    assert (ratio.false_alarms.n, ratio.misses.n) == (WORLDS, WORLDS)
    assert found.sentence.startswith("SUPPRESSED: The findings are at least 17 times more probable if ")
    told, alarms = " ".join(found.because), ratio.false_alarms
    assert f"false alarm in {alarms.k} of 16 worlds (with 95 % confidence at most {100 * alarms.upper95:.0f} %)" in told
    inside = next(e for e in evidence if e.measurement.probe == "inside")
    assert (inside.basis, inside.outcome, inside.direction) == ("calibrated", "trace found", "above")
    assert "above the calibrated threshold" in inside.because


def test_what_a_silence_is_worth_is_said_where_something_is_silent(folder: Path) -> None:
    """Beside a part of a trace as well, and not beside one that is hidden or plain."""
    told = {word: " ".join(ruled(numbers, standing(folder))[1].because) for word, numbers in {
        "SUPPRESSED": seen(1.0), "INTACT": seen(1.0, 1.0, 0.95), "CONSISTENT": seen(0.0),
    }.items()}  # fmt: skip
    assert ["planted trace" in text for text in told.values()] == [False, False, True]


def test_silence_is_consistent_and_says_which_planted_trace_would_have_been_found(folder: Path) -> None:
    evidence, found = ruled(seen(0.0), standing(folder))
    assert (found.word, found.basis) == ("CONSISTENT WITH NEVER TRAINED", "calibrated")
    assert ratio_in(found).value < 1
    assert "No trace found by tests that would have found a planted trace of ≥ " in " ".join(found.because)
    assert f"of {AUDITED} audited people kept) with probability 0.80" in " ".join(found.because)
    silent = next(e for e in evidence if e.measurement.probe == "inside")
    assert silent.outcome == "no trace found" and "planted trace" in silent.because


def test_the_gate_comes_before_every_ratio(folder: Path) -> None:
    found = ruled(seen(1.0, utility=0.1), standing(folder))[1]
    assert (found.word, found.basis) == ("INVALID", "in-case")
    assert isinstance(found.ratio, Missing)


def test_outputs_that_still_show_it_are_intact_with_the_joint_ratio(folder: Path) -> None:
    found = ruled(seen(1.0, 1.0, 1.0), standing(folder))[1]
    assert (found.word, found.basis, found.direction) == ("INTACT", "calibrated", "above")


def test_a_single_decoding_trace_is_no_verdict(folder: Path) -> None:
    numbers = [gate(1.0), measured("outside", 0.0, 2.0), measured("inside", 0.0, 2.0), measured("lens", 1.0, 2.0)]
    evidence, found = ruled(numbers, standing(folder))
    assert next(e for e in evidence if e.measurement.probe == "lens").outcome == "trace found"
    assert found.word != "SUPPRESSED"


def test_below_the_never_trained_level_stays_a_finding_of_its_own(folder: Path) -> None:
    low = measured("inside", -0.5, 2.0)
    assert low.overall is not None
    deep = low.model_copy(update={"p_below": 0.001})
    found = ruled([gate(1.0), measured("outside", 0.0, 2.0), deep, measured("lens", 0.0, 2.0)], standing(folder))[1]
    assert (found.word, found.direction, found.basis) == ("INCONCLUSIVE", "below", "in-case")


def test_an_effect_above_its_threshold_that_its_own_test_does_not_find_is_no_trace(folder: Path) -> None:
    shift = measured("outside", 0.3, 2.0).model_copy(update={"p": 0.41})
    evidence, found = ruled(
        [gate(1.0), shift, measured("inside", 0.0, 2.0), measured("lens", 0.0, 2.0)], standing(folder)
    )
    loud = next(e for e in evidence if e.measurement.probe == "outside")
    assert loud.basis == "calibrated" and loud.outcome == "inconclusive"
    assert "not by its own test (p not below 0.01)" in loud.because
    assert found.word in ("INCONCLUSIVE", "CONSISTENT WITH NEVER TRAINED")


@pytest.mark.parametrize(
    ("outside", "word"), [(0.0, "SUPPRESSED"), (0.3, "SUPPRESSED"), (0.9, "INTACT"), (0.65, "PARTIAL")]
)
def test_the_joint_rule_says_that_there_is_a_trace_and_the_axes_say_which_word(
    folder: Path, outside: float, word: str
) -> None:
    inside = 0.65 if word == "PARTIAL" else 1.0
    tests = [measured("outside", outside, 2.0), measured("inside", inside, 12.0), measured("lens", inside, 12.0)]
    if word == "PARTIAL":
        wide = Interval(lo=0.4, hi=0.9)
        tests[0] = tests[0].model_copy(update={"ci95": wide})
    found = ruled([gate(1.0), *tests], standing(folder))[1]
    assert (found.word, found.basis) == (word, "calibrated")


def test_what_an_attack_brings_back_stands_where_the_joint_rule_sees_nothing(folder: Path) -> None:
    back = measured("relearned", 0.4, 2.0, "recovery")
    found = ruled([*seen(0.0), back], standing(folder))[1]
    assert (found.word, found.basis, found.direction) == ("SUPPRESSED", "in-case", "above")
    assert ruled([*seen(0.0), back.model_copy(update={"p": 0.5})], standing(folder))[1].word.startswith("CONSISTENT")


def test_what_the_outputs_show_stands_where_the_joint_rule_sees_nothing(folder: Path) -> None:
    """Of a test that no calibration knows, and that the joint score does not contain."""
    said = measured("spoken", 0.3, 2.0, "output")
    found = ruled([*seen(0.0), said], standing(folder))[1]
    assert (found.word, found.basis, found.direction) == ("PARTIAL", "in-case", "above")
    assert "spoken" in found.because[1]


def test_a_trace_in_the_states_alone_forbids_a_clean_verdict_of_the_joint_rule(folder: Path) -> None:
    lens = measured("lens", 0.2, 2.0)
    evidence, found = ruled([*seen(0.0)[:3], lens], standing(folder))
    assert found.basis == "calibrated" and found.word == "INCONCLUSIVE"


@cases(
    st.tuples(*[st.floats(-1, 1)] * 3), st.tuples(*[st.sampled_from([0.0001, 0.5])] * 3),
    st.tuples(*[st.sampled_from([0.0001, 0.5])] * 3),
)  # fmt: skip
@settings(deadline=None, max_examples=30)
def test_a_suspect_below_the_never_trained_level_is_told_no_ratio_for_never_trained(
    folder: Path, values: tuple[float, ...], p: tuple[float, ...], p_below: tuple[float, ...]
) -> None:
    tests = [
        measured(probe, value, 2.0).model_copy(update={"p": high, "p_below": low})
        for probe, value, high, low in zip(("outside", "inside", "lens"), values, p, p_below, strict=True)
    ]
    evidence, found = ruled([gate(1.0), *tests], standing(folder))
    if any(judge(m).direction == "below" for m in tests):
        ratios = [x.ratio for x in (*evidence, found) if isinstance(x.ratio, LikelihoodRatio)]
        assert all(ratio.value >= 1 for ratio in ratios)
        assert f"probable if {NEVER}" not in found.model_dump_json() + " ".join(e.because for e in evidence)


# ---- where nothing holds ----------------------------------------------------------------------------------------
def in_case(found: list[Measurement]) -> tuple[tuple[Evidence, ...], Verdict]:
    evidence = tuple(judge(m) for m in found)
    return evidence, verdict(evidence, ROLES)


def test_without_calibrations_everything_is_judged_as_before(tmp_path: Path) -> None:
    for numbers in (seen(1.0), seen(0.0), seen(0.3, 0.3, 0.3)):
        assert ruled(numbers, NOTHING) == in_case(numbers) == ruled(numbers, standing(tmp_path))


def test_a_stale_calibration_falls_back_to_the_case_and_names_the_command(folder: Path) -> None:
    changed = standing(folder, changed=tuple(KINDS))
    evidence, found = ruled(seen(1.0), changed)
    assert evidence == in_case(seen(1.0))[0]
    assert (found.word, found.basis) == (in_case(seen(1.0))[1].word, "in-case")
    assert any("is stale" in limit and "residua calibrate renews it" in limit for limit in found.limits)
    assert len(found.limits) <= 5


def test_outside_the_domain_evidence_is_in_case(folder: Path) -> None:
    far = standing(folder, domain=DOMAIN.model_copy(update={"parameters": 7_000_000_000}))
    assert ruled(seen(1.0), far) == in_case(seen(1.0))
    assert {use.status for use in far.uses} == {"outside"}


def test_without_a_calibrated_causal_probe_the_verdict_is_in_case(folder: Path) -> None:
    by = standing(folder, changed=("inside",))
    evidence, found = ruled(seen(1.0), by)
    assert found.basis == "in-case"
    assert {e.measurement.probe: e.basis for e in evidence} == {
        "usable": "in-case", "outside": "calibrated", "inside": "in-case", "lens": "calibrated"
    }  # fmt: skip


@pytest.mark.thorough
def test_the_joint_rule_is_refitted_for_exactly_what_ran(folder: Path) -> None:
    both = ran()
    del both["lens"]
    evidence = tuple(judge(m) for m in seen(1.0) if m.probe != "lens")
    fewer, whole = opinion_of(evidence, standing(folder, both)), opinion_of(evidence, standing(folder))
    assert fewer is not None and whole is not None
    for found in (fewer, whole):
        assert {w.measurement for w in found.joint.weights} == {"inside.effect", "outside.effect"}
    everything = opinion_of(tuple(judge(m) for m in seen(1.0)), standing(folder))
    assert everything is not None and everything.joint == made().joint


@pytest.mark.thorough
def test_a_probe_that_is_kept_apart_weighs_its_own_finding_and_is_no_part_of_the_joint_rule(tmp_path: Path) -> None:
    apart = calibrate(pool(16), ZOO._replace(single=("lens",)))
    write_all(tmp_path, apart)
    evidence, found = ruled(seen(1.0, lens=1.0), standing(tmp_path))
    assert (evidence[-1].measurement.probe, evidence[-1].outcome, evidence[-1].basis) == (
        "lens", "trace found", "calibrated",
    )  # fmt: skip
    assert found.basis == "calibrated" and "joint score of 2 measurements" in found.because[0]
    assert {w.measurement for w in apart.joint.weights} == {"inside.effect", "outside.effect"}
    without = fit_joint(apart.subjects, {name: c for name, c in apart.calibrations.items() if name != "lens"})
    assert (apart.joint.weights, apart.joint.record) == (without.weights, without.record)


@pytest.mark.thorough
def test_where_the_only_causal_probe_is_kept_apart_no_joint_rule_judges(tmp_path: Path) -> None:
    write_all(tmp_path, calibrate(pool(8), ZOO._replace(single=("inside",))))
    assert ruled(seen(1.0, lens=1.0), standing(tmp_path))[1].basis == "in-case"


def test_a_blind_measurement_gives_no_ratio_and_does_not_enter_the_joint_score(folder: Path) -> None:
    none = Missing(missing="not measured")
    blind = measured("lens", 1.0, 12.0).model_copy(update={"positive_control": none})
    evidence, found = ruled([*seen(1.0)[:3], blind], standing(folder))
    assert evidence[-1].basis == "in-case" and evidence[-1].outcome == "inconclusive"
    assert found.basis == "calibrated"
    assert "joint score of 2 measurements" in found.because[0]


@pytest.mark.parametrize(("effect", "outcome"), [(0.0, "no trace found"), (0.1, "inconclusive"), (0.3, "trace found")])
def test_only_a_silence_says_what_it_is_worth(folder: Path, effect: float, outcome: str) -> None:
    evidence, _ = ruled(seen(effect), standing(folder))
    inside = next(e for e in evidence if e.measurement.probe == "inside")
    assert inside.outcome == outcome and inside.basis == "calibrated"
    assert inside.status == {"no trace found": "silent", "inconclusive": "undecided", "trace found": "trace"}[outcome]
    assert ("No trace found by tests" in inside.because) == (outcome == "no trace found")


# ---- verification -----------------------------------------------------------------------------------------------
def test_what_a_report_states_can_be_judged_again_by_the_same_calibrations_only(folder: Path, tmp_path: Path) -> None:
    by = standing(folder)
    evidence, found = ruled(seen(1.0), by)
    again = restand(folder, by.uses)
    assert again is not None
    assert judged(evidence, ROLES, again, {}) == (evidence, found)
    assert restand(tmp_path, by.uses) is None
    assert restand(tmp_path, ()) is not None


# ---- the words --------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("lo", "hi", "words"),
    [
        (0.8, 300.0, NO_SUPPORT), (1.9, 40.0, NO_SUPPORT),
        (2.0, 40.0, "weak support"), (10.0, 40.0, "moderate support"),
        (100.0, 200.0, "moderately strong support"), (1e3, 2e3, "strong support"), (1e4, 1e7, "very strong support"),
        (2e6, 1e7, "extremely strong support"), (0.01, 0.6, NO_SUPPORT), (0.001, 0.04, "moderate support"),
    ],
)  # fmt: skip
def test_the_band_is_that_of_the_interval_end_nearest_one(lo: float, hi: float, words: str) -> None:
    assert band(Interval(lo=lo, hi=hi)) == words


def ratio(value: float, lo: float, hi: float) -> LikelihoodRatio:
    base = ratio_in(ruled_sample())
    ci95 = Interval(lo=lo, hi=hi)
    return base.model_copy(update={"value": value, "ci95": ci95, "words": band(ci95), "floor": 1 / 61, "ceiling": 61.0})


@cache
def ruled_sample() -> Verdict:
    import tempfile

    with tempfile.TemporaryDirectory() as out:
        write_all(Path(out), made())
        return ruled(seen(1.0), standing(Path(out)))[1]


def test_a_ratio_at_its_ceiling_is_a_bound_and_never_extrapolated() -> None:
    assert ratio_number(61.0, 1 / 61, 61.0) == "≥ 61"
    assert ratio_number(100.9, 1 / 101, 100.9) == "≥ 100"
    assert ratio_number(1 / 61, 1 / 61, 61.0) == "≤ 0.017"
    assert ratio_number(12.34, 1 / 61, 61.0) == "12"


def test_a_ratio_below_one_is_told_the_other_way_round() -> None:
    said = ratio_sentence(ratio(0.05, 0.02, 0.4))
    assert said.startswith(f"The findings are about 20 times more probable if {NEVER} than if {KNOWS}")
    assert "(approximate 95 % interval 2.5 to 50; this design cannot show more than 61)" in said
    assert f"this is weak support for the proposition that {NEVER}" in said
    assert supported(ratio(0.05, 0.02, 0.4)) == NEVER


def test_a_proposition_is_said_again_in_its_own_short_form_on_either_side_of_one() -> None:
    knows, never = Proposition("A does hold", "A does"), Proposition("B holds", "B does")
    assert "more probable if A does hold than if B does (" in weighed(ratio(20.0, 2.5, 50.0), knows, never)
    assert "more probable if B holds than if A does (" in weighed(ratio(0.05, 0.02, 0.4), knows, never)


def test_a_ratio_whose_interval_holds_one_supports_neither() -> None:
    found = ratio(30.0, 0.9, 61.0)
    assert supported(found) is None
    assert ratio_sentence(found).endswith(f"On the verbal scale this is {NO_SUPPORT}.")


def test_a_planted_trace_is_never_said_to_be_smaller_than_it_was() -> None:
    assert "≥ 12.5 % (2 of 16 audited" in power_sentence(DetectionLimit(kept=2, audited=16, k=8, n=8, power=0.8))


def test_a_negative_without_doses_says_that_its_worth_is_unknown() -> None:
    assert "is not known" in power_sentence(Missing(missing="the pool holds no models that kept a part"))


def test_no_calibrated_text_uses_a_banned_word_or_says_how_probable_a_proposition_is(folder: Path) -> None:
    for numbers in (seen(1.0), seen(0.0), seen(0.1), seen(0.4, 0.4, 0.4), seen(1.0, utility=0.1)):
        evidence, found = ruled(numbers, standing(folder))
        text = found.model_dump_json() + " ".join(e.because for e in evidence)
        assert not [word for word in BANNED if word in text]
        assert "posterior" not in text and "probability that" not in text


# ---- words of a ratio ---------------------------------------------------------------------------------------------
def test_every_band_begins_at_its_edge_on_either_side_of_one() -> None:
    for edge, words in ((2, "weak"), (10, "moderate"), (100, "moderately strong"), (1e3, "strong"),
                        (1e4, "very strong"), (1e6, "extremely strong")):  # fmt: skip
        for ends in ((edge, 2e6), (1 / 2e6, 1 / edge)):
            assert band(Interval(lo=ends[0], hi=ends[1])) == f"{words} support"
        assert band(Interval(lo=edge * 0.999, hi=2e6)) != f"{words} support"
    assert band(Interval(lo=1.99, hi=9.0)) == band(Interval(lo=0.2, hi=9.0)) == NO_SUPPORT


@pytest.mark.parametrize(
    ("value", "lo", "hi", "told"),
    [
        (17.6, 3.0, 17.6, "≥ 17 (from 3.0)"),
        (5.0, 2.0, 10.0, "5.0 (2.0 to 10)"),
        (1 / 17.6, 1 / 17.6, 0.5, "≤ 0.057 (up to 0.50)"),
        (17.6, 17.6, 17.6, "≥ 17 (≥ 17 to ≥ 17)"),
        (12.0, 9.96, 16.7, "12 (10 to 17)"),
    ],
)
def test_a_ratio_in_a_cell_is_rounded_and_says_no_bound_twice(value: float, lo: float, hi: float, told: str) -> None:
    found = ratio(value, lo, hi).model_copy(update={"floor": 1 / 17.6, "ceiling": 17.6})
    assert short(found).partition("),")[0] + ")" == told


def test_a_rate_is_a_count_with_its_bound_in_percent() -> None:
    assert rate(Rate(k=50, n=60, upper95=0.9)) == "50 of 60 worlds (with 95 % confidence at most 90 %)"


def test_a_ratio_is_stated_to_four_digits_and_as_calibrated(folder: Path) -> None:
    found = ratio_in(ruled(seen(0.21), standing(folder))[1])
    for number in (found.value, found.ci95.lo, found.ci95.hi, found.floor, found.ceiling):
        assert number == float(f"{number:.4g}")


def test_a_calibrated_verdict_keeps_the_cases_own_reasons_where_both_say_the_same_word(folder: Path) -> None:
    by = standing(folder)
    found, alone = ruled(seen(1.0, 1.0), by)[1], in_case(seen(1.0, 1.0))[1]
    assert found.word == alone.word == "SUPPRESSED"
    own = [line for line in alone.because if line.startswith("inside, ")]
    assert own and set(own) <= set(found.because) and len(set(found.because)) == len(found.because)
    assert not any("by this case alone" in line for line in found.because)


def test_a_calibrated_verdict_says_which_other_word_the_case_alone_would_give(folder: Path) -> None:
    numbers = [*seen(0.0)[:3], measured("lens", 0.2, 2.0)]
    alone = in_case(numbers)[1]
    found = ruled(numbers, standing(folder))[1]
    assert (found.word, found.basis) == ("INCONCLUSIVE", "calibrated") and alone.word in ("PARTIAL", "SUPPRESSED")
    assert f"by this case alone the verdict would be {alone.word}" in found.because
    assert not any(line.startswith("lens, ") for line in found.because)


def test_a_held_out_form_above_its_calibrated_threshold_makes_a_silent_case_partial(folder: Path) -> None:
    elsewhere = measured("lens", 0.6, 12.0).model_copy(update={"form": "held_out_phrasing"})
    found = ruled([*seen(0.0), elsewhere], standing(folder))[1]
    assert (found.word, found.basis, found.direction) == ("PARTIAL", "calibrated", "above")
    unlike = elsewhere.model_copy(update={"value": 0.02, "p": 0.5, "ci95": Interval(lo=-0.02, hi=0.06)})
    assert ruled([*seen(0.0), unlike], standing(folder))[1].word == "CONSISTENT WITH NEVER TRAINED"


# ---- which joint rule ---------------------------------------------------------------------------------------------
def test_the_stored_joint_rule_judges_what_it_was_made_for_and_is_not_made_anew(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(*_: object) -> None:
        raise AssertionError("refitted")

    evidence = tuple(judge(m) for m in seen(1.0))
    monkeypatch.setattr("audit.calibration.joint_rule.refitted", never)
    assert opinion_of(evidence, standing(folder)) is not None
    with pytest.raises(AssertionError, match="refitted"):
        opinion_of(evidence[:-1], standing(folder))


def test_how_the_rule_did_is_said_of_a_calibrated_verdict_and_of_no_other(folder: Path, tmp_path: Path) -> None:
    evidence = tuple(judge(m) for m in seen(1.0))
    by, alone = standing(folder), standing(tmp_path)
    found = validation(evidence, ruled(seen(1.0), by)[1], by)
    heard = opinion_of(evidence, by)
    assert isinstance(found, Validation) and heard is not None
    assert (found.rule, found.worlds, found.counted) == (heard.ratio.calibration, WORLDS, heard.joint.record.counted)
    assert found.score == float(f"{heard.joined.score:.4g}")
    in_case_verdict = ruled(seen(1.0), alone)[1]
    assert in_case_verdict.basis == "in-case"
    assert isinstance(validation(evidence, in_case_verdict, alone), Missing)
    assert isinstance(validation(evidence, in_case_verdict, by), Missing), "the calibration did not judge it"
    assert isinstance(validation(evidence, ruled(seen(1.0), by)[1], alone), Missing)
