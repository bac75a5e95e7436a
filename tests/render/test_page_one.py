"""Page one explains itself: what an axis was read from, what decided a row, who is known, which files were audited."""

import re
from html import unescape

import pytest

from audit.render import html
from audit.render.drawings.effect_scale import GREY, measurement_words, strip
from audit.render.sections.glance import SAYS_NOTHING, glance
from audit.render.sections.pageone import compared_with, first_lines
from audit.render.wording.findings import hesitation, title
from audit.render.wording.quantities import OVERALL
from audit.schema import Evidence, Interval, Missing, Report, Share
from tests.golden import AXES, effect, gate, judged, overall, profile, report


def _page(audit: Report) -> str:
    return unescape(html(audit).split('<nav aria-label="Contents">')[0])


def _with(evidence: tuple[Evidence, ...], **verdict: object) -> Report:
    base = report("suppressed")
    return base.model_copy(
        update={"evidence": evidence, "verdict": base.verdict.model_copy(update={**AXES, **verdict})}
    )


def test_the_measurement_behind_an_axis_is_named_in_the_drawing_and_stands_in_the_table() -> None:
    strongest = judged(effect("reverse_patch", "all", "causal", 0.6, 0.05), "trace", "so it is", "above")
    attack = judged(effect("relearning_recovery", "recall", "recovery", 0.3, 0.02), "trace", "so it is", "above")
    share = Share(value=0.3, ci95=Interval(lo=0.28, hi=0.32), measurement="relearning_recovery.recall")
    audit = _with((gate(0.9), strongest, attack), internals=share)
    assert [row.test for row in glance(audit)][-1] == title(attack.measurement) == measurement_words(share)
    assert _page(audit).count("relearning recovery: recall") >= 2
    other = _with((gate(0.9), strongest, attack), internals=share.model_copy(update={"measurement": "x.y"}))
    assert len(glance(other)) == len(glance(audit)) - 1


def test_a_row_says_both_its_numbers_where_an_axis_shows_the_other() -> None:
    m = effect("reverse_patch", "all", "causal", 0.6, 0.05, curves=profile((0.6, 0.2, 0.1, 0.1)), layer=0,
               overall=overall(0.2, 0.03))  # fmt: skip
    calibrated = judged(m, "trace", "so it is", "above").model_copy(update={"basis": "calibrated", "threshold": 0.06})
    assert glance(_with((gate(0.9), calibrated)))[-1].largest == ""
    share = Share(value=0.6, ci95=Interval(lo=0.5, hi=0.7), measurement="reverse_patch.all")
    row = glance(_with((gate(0.9), calibrated), internals=share))[-1]
    assert row.value == "0.20" and (row.number, row.largest) == (OVERALL, "largest 0.60")
    assert row.reason == "calibrated threshold 0.060"


@pytest.mark.parametrize(("value", "words"), [(0.2, "above the line, but its own p"), (0.01, "too weak a support")])
def test_a_test_that_says_neither_says_why(value: float, words: str) -> None:
    e = judged(effect("forget_likelihood", "probability", "output", value, 0.01), "undecided", "so it is")
    calibrated = e.model_copy(update={"basis": "calibrated", "threshold": 0.067})
    assert words in hesitation(calibrated) and words in _page(_with((gate(0.9), calibrated)))
    assert "its interval reaches too high" in hesitation(e)
    drawn = {
        each.status: strip(each).count(f'stroke="{GREY}"') for each in (e, judged(e.measurement, "silent", "so it is"))
    }
    assert drawn == {"undecided": 2, "silent": 0}, "a narrow bar shows its colour by its edge alone"
    assert hesitation(judged(e.measurement, "silent", "so it is")) == ""


def test_the_silence_of_a_broken_suspect_is_not_printed_as_one() -> None:
    audit = report("invalid")
    rows = [row for row in glance(audit) if "utility" not in row.test]
    assert rows and all(row.outcome == SAYS_NOTHING for row in rows)
    assert "no trace found" not in re.sub(r"<caption>.*?</caption>", "", _page(audit).split('class="glance"')[1])
    axes_and_people = {
        **dict.fromkeys(("outputs", "internals"), AXES["outputs"]),
        "people": Missing(missing="no trace"),
    }
    lines = dict(first_lines(_with(audit.evidence, word="INVALID", **axes_and_people)))
    assert lines["Who is known"] == "Not counted: no trace."
    lines = dict(first_lines(_with(audit.evidence, word="CONSISTENT WITH NEVER TRAINED", **axes_and_people)))
    assert lines["Who is known"] == "Nobody: no trace."


def test_an_over_suppressed_headline_names_the_test_that_lies_below_and_a_broken_one_draws_no_bar() -> None:
    low = judged(effect("reverse_patch", "all", "causal", -0.11, 0.03), "below", "so it is", "below")
    page = _page(_with((gate(0.9), low), word="INCONCLUSIVE", direction="below"))
    assert "by reverse patch: all (−0.11), by more than such models differ" in page
    shown = re.compile(r'class="axes">(.*?)</svg>', re.DOTALL)
    (intact,), (broken,) = (shown.findall(_page(_with((gate(0.9),), word=w))) for w in ("SUPPRESSED", "INVALID"))
    assert "<rect" in intact and "<rect" not in broken and "says nothing" in broken


def test_a_suspect_that_is_one_of_the_models_beside_it_is_called_a_control() -> None:
    audit = report("suppressed")
    assert "itself" not in compared_with(audit)
    suspect = next(x for x in audit.exhibits if x.role == "suspect")
    same = tuple(x.model_copy(update={"fingerprint": suspect.fingerprint}) for x in audit.exhibits)
    assert "The suspect is base itself, a control." in compared_with(audit.model_copy(update={"exhibits": same}))


def test_a_weak_verdict_says_so_and_a_full_one_needs_no_word() -> None:
    strengths = {word: dict(first_lines(_with((gate(0.9),), strength=word)))["How sure"] for word in ("full", "weak")}
    assert "Strength" not in strengths["full"] and "Strength: weak" in strengths["weak"]
