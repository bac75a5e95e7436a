"""What a reader is told beside the word of a verdict: reasons whole, rates of the right thing, claims no larger."""

import re

import pytest

from audit.judging import NO_RATE
from audit.render import html, markdown, meaning, verdict_row
from audit.render.wording.findings import ERASED, NO_RUNG_RATE, VERDICT_MEANING, verdict_sentence
from audit.schema import Report
from tests.golden import Variant, report
from tests.render.test_render import terminal

SHARED = "no test of the states can decide, since "
REASON = SHARED + ", ".join(f"layer {i} has no basis in common" for i in range(9)) + ", and that is the last of it"


def because(variant: Variant, reason: str) -> Report:
    base = report(variant)
    return base.model_copy(update={"verdict": base.verdict.model_copy(update={"because": (reason,)})})


@pytest.mark.parametrize("variant", ["broken", "inconclusive"])
def test_the_reason_of_an_undecided_verdict_is_never_cut(variant: Variant) -> None:
    audit = because(variant, REASON)
    assert 240 < len(REASON) < 400 and verdict_row(audit).reason == REASON
    for name, text in {"terminal": terminal([audit]), "html": html(audit), "markdown": markdown(audit)}.items():
        assert "and that is the last of it" in " ".join(text.split()), name
        assert "more characters" not in text, name


def test_a_verdict_without_a_rate_beside_calibrations_that_hold_blames_its_way_and_not_its_kind() -> None:
    calibrated = report("calibrated")
    in_case = calibrated.model_copy(update={"verdict": report("suppressed").verdict})
    assert verdict_sentence(in_case).endswith(NO_RUNG_RATE) and NO_RATE not in verdict_sentence(in_case)
    assert verdict_sentence(report("suppressed")).endswith(NO_RATE)


def test_a_suppressed_model_is_said_to_hold_more_and_not_all_of_it() -> None:
    assert meaning(report("suppressed")) == "The model still holds more inside than its outputs say."
    for words in VERDICT_MEANING.values():
        assert not re.search(r"the knowledge is|everything|all of it", words, re.I)


def test_no_word_of_a_verdict_may_be_called_erased() -> None:
    assert set(ERASED) == set(VERDICT_MEANING)
    assert all(words.startswith("No") for words in ERASED.values())
    assert "does not prove erasure" in ERASED["CONSISTENT WITH NEVER TRAINED"]
