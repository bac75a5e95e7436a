"""Which tests must be silent, by their power in the case: sharp ones, among them one of outputs and one of states."""

import pytest

from audit.judging import Given, judge, verdict
from audit.schema import BLUNT, Interval, Kind, Measurement, Missing, Power, Verdict
from tests.judging.test_judging import BLIND, FULL, NONE, measured

CLEAN = "CONSISTENT WITH NEVER TRAINED"


def power(share: float | Missing, people: int | Missing = 2) -> Power:
    return Power(share=share, people=people, of=32, power=0.8)


def reading(kind: Kind, share: float | Missing, value: float = 0.0, hi: float = 0.05, **changes: object) -> Measurement:
    """A test of this detection limit; its interval ends at ``hi``."""
    return measured(kind, value, ci95=Interval(lo=value - 0.05, hi=hi), power=power(share), **changes)


def ruled(*tests: Measurement, roles: Given = FULL) -> Verdict:
    return verdict([judge(m) for m in (measured("gate", 1.0), *tests)], roles)


SHARP = (reading("output", 0.03), reading("causal", 0.08))


def test_one_sharp_output_and_one_sharp_test_of_the_states_suffice() -> None:
    found = ruled(*SHARP)
    assert (found.word, found.strength) == (CLEAN, "full")
    assert found.because[0].startswith("detection limit, outputs (some_output.effect): it finds 0.03 of base held of ")
    assert "2 of 32 people known in full with probability 0.8" in found.because[0]


@pytest.mark.parametrize("kept", [0, 1])
def test_either_of_them_is_needed(kept: int) -> None:
    assert ruled(SHARP[kept]).word == "INCONCLUSIVE"
    assert ruled(SHARP[0], reading("recovery", 0.05)).word == "INCONCLUSIVE", "an attack is no test of the states"


def test_a_blunt_test_neither_blocks_nor_counts_and_is_listed_as_blunt() -> None:
    wide = reading("decoding", BLUNT + 0.01, 0.1, 0.9)
    assert judge(wide).status == "blunt" and "too blunt here" in judge(wide).because
    found = ruled(*SHARP, wide)
    assert found.word == CLEAN and found.strength == "full"
    assert any("1 of the planned measurements was too blunt" in x for x in found.limits)
    alone = ruled(SHARP[0], wide)
    assert alone.word == "INCONCLUSIVE" and "Too blunt" in alone.sentence
    assert any("More forget groups, which sharpen some_decoding.effect" in x for x in alone.would_change)
    assert judge(reading("decoding", Missing(missing="not even all"), 0.1, 0.9)).status == "blunt"


def test_a_blunt_test_still_finds_what_is_large() -> None:
    assert ruled(*SHARP, reading("decoding", 0.9, 0.8, 0.9, p=0.0001)).word == "SUPPRESSED"


@pytest.mark.parametrize(("share", "hi", "word"), [
    (0.2, 0.19, CLEAN), (0.2, 0.21, "INCONCLUSIVE"), (0.05, 0.09, CLEAN), (0.05, 0.11, "INCONCLUSIVE"),
])  # fmt: skip
def test_an_upper_bound_above_what_the_test_finds_contradicts_silence(share: float, hi: float, word: str) -> None:
    assert ruled(*SHARP, reading("decoding", share, 0.0, hi)).word == word


@pytest.mark.parametrize("kind", ["output", "causal", "decoding", "recovery"])
def test_every_sharp_test_has_to_be_silent(kind: Kind) -> None:
    assert ruled(*SHARP, reading(kind, 0.05, 0.06, 0.12)).word == "INCONCLUSIVE"


def test_a_hint_has_to_stand_out_among_all_sharp_tests() -> None:
    hint = reading("decoding", 0.1, 0.06, 0.09, p=0.03)
    assert judge(hint).status == "hint"
    found = ruled(*SHARP, hint)
    assert found.word == CLEAN and "no hint among 3 sharp tests (Holm)" in " ".join(found.because)
    strong = hint.model_copy(update={"p": 0.011})
    assert ruled(*SHARP, strong).word == "INCONCLUSIVE"


def test_a_causal_test_that_no_layer_admits_blocks_nothing_where_the_lens_is_sharp() -> None:
    unread = measured("causal", Missing(missing="no layer"), p=NONE, p_below=NONE)
    assert ruled(SHARP[0], unread, reading("decoding", 0.1)).word == CLEAN
    assert "No common basis" in ruled(SHARP[0], unread).sentence


def test_a_test_that_is_sharp_and_open_above_nothing_forbids_full_strength() -> None:
    above = reading("decoding", 0.1, 0.06, 0.09, p=0.2, positive_control=BLIND)
    assert ruled(*SHARP, above).strength == "full", "a blind one says nothing"
    old = (measured("causal", 0.0), measured("decoding", 0.0), measured("output", 0.08, p=0.3))
    assert ruled(*old).word == CLEAN and ruled(*old).strength == "weak"


def test_where_no_power_is_known_causal_and_decoding_tests_have_to_be_silent_both() -> None:
    assert ruled(measured("output", 0.0), measured("causal", 0.0)).word == "INCONCLUSIVE"
    assert ruled(measured("output", 0.0), measured("causal", 0.0), measured("decoding", 0.0)).word == CLEAN
