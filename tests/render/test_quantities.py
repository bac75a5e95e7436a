"""One number, one name, one reason: the same in every view, whatever a measurement holds."""

import re

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from audit.render import evidence_sentence, html, markdown, painted, people_words, report_sections, sheets, summary
from audit.render.drawings.drawing import LOOKS, marker
from audit.render.drawings.effect_scale import forest, strip
from audit.render.figures.comparison_figures import SPENT, NamedReport, columns, matrix
from audit.render.figures.report_figures import positions
from audit.render.sections.glance import axes_drawing, glance, three_lines
from audit.render.wording.findings import OUTCOME_SYMBOL, VERDICT_SYMBOL, best, meaning
from audit.render.wording.posterior import finding_ratio, how_sure, shown_ratio
from audit.render.wording.quantities import (
    LARGEST,
    OVERALL,
    blindness,
    deciding,
    judged_reading,
    own_reading,
    power_cell,
    silence_worth,
)
from audit.schema import (
    Control,
    Evidence,
    Interval,
    Measurement,
    Missing,
    Null,
    Overall,
    Report,
    RoleAudit,
    Status,
    Table,
)
from audit.wording import least_p, number, p_of, p_value
from tests.golden import AUDITED, AXES, KEPT, POWER, RATIO, effect, gate, judged, overall, profile, report

QUICK = settings(max_examples=60, suppress_health_check=[HealthCheck.too_slow])
STATUSES: tuple[Status, ...] = (
    "trace",
    "below",
    "silent",
    "undecided",
    "hint",
    "within_floor",
    "blind",
    "blunt",
    "listed",
)


def several(largest: float, mean: float, **more: object) -> Measurement:
    """A test over four layers with its two numbers."""
    curves = profile((largest, mean, largest, mean))
    return effect("reverse_patch", "all", "causal", largest, 0.08, curves=curves, layer=0, overall=overall(mean, 0.03),
                  **more)  # fmt: skip


def finding(m: Measurement, status: Status, calibrated: bool = False, threshold: float = 0.057) -> Evidence:
    """A finding of that status, in-case or calibrated."""
    direction = {"trace": "above", "below": "below"}.get(status, "none")
    e = judged(m, status, "so it is", direction)
    more = {"basis": "calibrated", "ratio": RATIO, "threshold": threshold}
    return e.model_copy(update=more) if calibrated else e


def report_with(e: Evidence, base: Report | None = None) -> Report:
    """A report with this finding behind a gate."""
    return (base or report("suppressed")).model_copy(update={"evidence": (gate(0.9), e)})


# ---- one number, one name ---------------------------------------------------------------------------------------
@pytest.mark.thorough
@QUICK
@given(st.floats(0.3, 1.4), st.floats(-0.4, 0.25), st.sampled_from(STATUSES), st.booleans())
def test_a_number_has_the_same_name_on_page_one_in_tables_figures_and_sheets(
    largest: float, mean: float, status: Status, calibrated: bool
) -> None:
    e = finding(several(largest, mean), status, calibrated and status not in ("blind", "blunt", "listed"))
    audit = report_with(e)
    reading = judged_reading(e)
    name, value = reading.name, number(reading.value)
    (row,) = [r for r in glance(audit) if "reverse patch" in r.test]
    if status == "blind":
        assert row.value.startswith("blind") and row.number == ""
        return
    assert (row.number, row.value) == (name, value)
    assert f"{value} {name}" in re.sub(r"<[^>]*>|\s+", " ", html(audit)).replace("  ", " ")
    assert f"{name} {value}" in markdown(audit)
    placed = [r for text in sheets(audit).values() for r in text.splitlines() if r.startswith("reverse patch")]
    assert any(f",{name},{value}," in r.replace("'", "") for r in placed)
    drawn = positions(audit, [e])
    assert drawn is not None and drawn.data.rows[0][1].text == name and drawn.data.rows[0][2].text == value
    (table,) = [
        b for s in report_sections(audit) for b in s.blocks if b.kind == "grid" and b.caption.startswith("Causal: 1 m")
    ]
    cells = dict(zip(table.columns, table.rows[0], strict=True))
    assert cells["Overall effect (95 %)"].text.startswith(f"{number(mean)} (")
    assert cells["Largest over layers, or the one effect (95 %)"].text.startswith(f"{number(largest)} (")


@pytest.mark.parametrize(
    ("status", "calibrated", "name"),
    [("trace", False, LARGEST), ("hint", False, LARGEST), ("within_floor", False, LARGEST), ("silent", False, OVERALL),
     ("undecided", False, OVERALL), ("below", False, OVERALL), ("trace", True, OVERALL), ("silent", True, OVERALL)],
)  # fmt: skip
def test_a_trace_is_judged_by_the_largest_layer_and_a_bound_by_the_overall_effect(
    status: Status, calibrated: bool, name: str
) -> None:
    assert judged_reading(finding(several(0.51, 0.19), status, calibrated)).name == name


def test_a_test_with_one_number_calls_it_the_effect_and_nothing_else() -> None:
    m = effect("forget_likelihood", "probability", "output", 0.3, 0.1)
    same = m.model_copy(update={"overall": Overall(value=0.3, ci95=m.ci95, floor=0.0)})
    assert own_reading(m).name == own_reading(same).name == judged_reading(judged(same, "silent", "b")).name == "effect"


def test_a_number_on_another_scale_is_the_same_in_the_table_and_beside_the_figure() -> None:
    m = effect("cross_sequence", "separability", "context", 0.5, 0.1, scale="distance", unit="distance from 1/2",
               null=Null(kind="swaps", quantiles=(0.2,) * 101, n=1999),
               positive_control=Control(value=0.5, ci95=Missing(missing="none"), found=True))  # fmt: skip
    e = judged(m, "listed", "context")
    drawn = forest([e], "x")
    assert ">0.50</text>" in drawn and drawn.count(">1.0</text>") == 1, "1.0 is the tick alone"
    (data,) = [
        b.data
        for s in report_sections(report_with(e))
        for b in s.blocks
        if b.kind == "figure" and b.label.startswith("Con")
    ]
    assert "0.50" in data.rows[0][1].text and data.rows[0][2].text == "1.0"


# ---- what decides -----------------------------------------------------------------------------------------------
@pytest.mark.thorough
@QUICK
@given(st.sampled_from(STATUSES), st.booleans(), st.floats(0.01, 0.6))
def test_one_line_decides_and_it_is_drawn_named_and_listed(status: Status, calibrated: bool, floor: float) -> None:
    judging = status not in ("blind", "blunt", "listed")
    e = finding(several(0.7, 0.2, floor=floor), status, calibrated and judging)
    line = deciding(e)
    drawn = forest([e], "x").count('stroke-width="2.2"')
    assert drawn == (1 if judging else 0) == (0 if line.at is None else 1)
    assert line.words in html(report_with(e)).replace("&lt;", "<") and line.words
    if calibrated and judging and status != "below":
        assert line.at == pytest.approx(0.057) and "calibrated threshold" in line.words
    elif status == "trace":
        assert line.at == pytest.approx(max(floor, 0.05))


# ---- blind ------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("people", [2, 3, 4, 6])
def test_a_blind_test_heads_no_page_and_has_a_reason_in_place_of_a_number(people: int) -> None:
    unseen = Control(value=0.99, ci95=Missing(missing="none"), found=False)
    few = Null(kind="sign flips over people", quantiles=(0.0,) * 101, n=2**people)
    wide = effect("answer_lens", "lift", "decoding", 2.3, 20.0, units=people, null=few, positive_control=unseen)
    blind = judged(wide, "blind", "blind here")
    seen = judged(effect("answer_lens", "other", "decoding", 0.02, 0.03), "silent", "quiet")
    both = report("consistent").model_copy(update={"evidence": (gate(0.9), blind, seen)})
    head = best(both, "decoding")
    assert head is not None and head.measurement.name == "other"
    lone = both.model_copy(update={"evidence": (gate(0.9), blind, finding(several(0.02, 0.01), "silent"))})
    rows = glance(lone)
    assert rows[-1].value == f"blind: too few people ({people})" and "2.3" not in "".join(map(str, rows))
    assert f"The smallest possible p is {number(2.0**-people)}" in silence_worth(blind.measurement)
    assert blindness(blind.measurement) in markdown(lone) and strip(blind) == ""


# ---- detection limit --------------------------------------------------------------------------------------------
def test_the_detection_limit_is_the_planted_trace_that_is_found_and_never_the_end_of_an_interval() -> None:
    m = several(0.02, 0.01, power=POWER)
    worth = silence_worth(m)
    assert "Detection limit: 12 % of base's excess in everybody, or 2 of 32 people known in full" in worth.replace(
        "12 %", "12 %"
    )
    assert "probability 0.80" in worth and "Upper bound of the overall effect: 0.040 (95 %)" in worth
    assert power_cell(m) == "12 % or 2 of 32 people"
    old = silence_worth(m.model_copy(update={"power": Missing(missing="not computed for this measurement")}))
    assert "Detection limit: not known (not computed for this measurement)" in old
    for audit in (report("suppressed"), report("consistent"), report("calibrated")):
        for text in (html(audit), markdown(audit)):
            assert "still allows" not in text.replace("that a silent test still allows: the upper end", "")
            assert not re.search(r"[Dd]etection limit[^.]{0,40}interval", text)


# ---- p ----------------------------------------------------------------------------------------------------------
@QUICK
@given(st.floats(0, 1), st.integers(1, 20_000), st.integers(0, 40), st.booleans())
def test_no_printed_p_is_smaller_than_draws_and_units_allow(p: float, draws: int, units: int, drawn: bool) -> None:
    null = Null(kind="sign flips over people", quantiles=(0.0,) * 101, n=draws) if drawn else Missing(missing="none")
    m = effect("p", "n", "causal", 0.3, 0.1, p=p, null=null, units=units)
    least = 1 / (draws + 1) if drawn else 2.0**-units if units else 0.0
    shown = re.search(r"p ([<=]) ([\d.]+)", p_of(m))
    assert shown is not None and least == pytest.approx(least_p(m))
    assert float(shown[2]) >= max(least, 1e-4) * 0.949
    assert (shown[1] == "<") == (p < max(least, 1e-4) * (1 - 1e-9))
    assert p_value(1e-120) == "p < 0.00010"


# ---- likelihood ratios ------------------------------------------------------------------------------------------
NEVER = RATIO.model_copy(update={"value": 1 / 52, "ci95": Interval(lo=1 / 61, hi=1 / 14)})


@pytest.mark.parametrize(("word", "direction", "printed"), [
    ("INCONCLUSIVE", "below", False), ("PARTIAL", "above", False), ("SUPPRESSED", "above", False),
    ("CONSISTENT WITH NEVER TRAINED", "none", True),
])  # fmt: skip
def test_no_ratio_for_never_trained_stands_beside_a_trace_or_a_level_below(
    word: str, direction: str, printed: bool
) -> None:
    base = report("calibrated")
    stated = (
        "The findings are about 52 times more probable if the suspect is like a model that was never trained on it."
    )
    more = {"word": word, "direction": direction, "ratio": NEVER, "sentence": f"{word}: {stated}"}
    audit = base.model_copy(update={"verdict": base.verdict.model_copy(update=more)})
    assert (not isinstance(shown_ratio(audit), Missing)) == printed
    texts = {"html": html(audit).split('id="report-json"')[0], "markdown": markdown(audit), "sure": how_sure(audit),
             "lines": str(three_lines(audit, "x"))}  # fmt: skip
    for name, text in texts.items():
        assert bool(re.search(r"52 times more probable|0\.019 \(", text)) == printed, name
    assert printed or "no likelihood ratio is printed" in how_sure(audit)


def test_a_finding_below_never_trained_prints_no_ratio_and_has_no_colour_in_the_matrix() -> None:
    e = finding(several(0.0, -0.2), "below", calibrated=True).model_copy(update={"ratio": NEVER})
    audit = report_with(e, report("calibrated"))
    assert isinstance(finding_ratio(e), Missing)
    place = columns([audit]).index("reverse_patch.all")
    cell = painted([NamedReport("a", "a", audit)])[0][place]
    assert cell.mark == "▼ (−.20)" and cell.ground == ""


def test_the_row_of_an_invalid_suspect_is_grey_and_says_so() -> None:
    invalid = report("calibrated")
    invalid = invalid.model_copy(update={"verdict": report("invalid").verdict})
    rows = [NamedReport("gone", "gone", invalid), NamedReport("fine", "fine", report("calibrated"))]
    broken, fine = painted(rows)
    assert {c.ground for c in broken} == {SPENT} and SPENT not in {c.ground for c in fine}
    drawn = matrix(rows)
    assert "gone (INVALID)" in drawn.figure.layout.yaxis.ticktext
    assert all(z is None for z in drawn.figure.data[-2].z[0])


# ---- symbols ----------------------------------------------------------------------------------------------------
def test_a_symbol_means_one_thing() -> None:
    outcomes, verdicts = {*OUTCOME_SYMBOL.values(), "▼"}, set(VERDICT_SYMBOL.values())
    assert not outcomes & verdicts and len(verdicts) == len(VERDICT_SYMBOL) and len(outcomes) == 5
    for look in LOOKS.values():
        assert "circle" not in marker(look.shape, 0, 0, 4, "") and "polygon" not in marker(look.shape, 0, 0, 4, "")
    page = html(report("calibrated"))
    assert "<circle" not in page
    legend = re.findall(r"<caption>The strongest[^\n]*", page)[0]
    assert not set(legend) & outcomes


# ---- new content, and its absence -------------------------------------------------------------------------------
def test_page_one_shows_both_axes_who_is_known_how_sure_who_was_audited_and_what_was_not_tested() -> None:
    page = html(report("suppressed")).split('<section id="question"')[0]
    for words in ("outputs 0.012 (95 % −0.018 to 0.042)", "internals 0.95 (95 % 0.86–1.0)", "never trained", ">base<",
                  "16 of 32 people (95 % interval 10 to 22) known", "false discovery rate 5 %", KEPT.named[0],
                  "<dt>How sure</dt>", "<dt>Who was audited</dt><dd>32 of 32 people of the forget set",
                  "<dt>Not tested</dt><dd>Relearning"):  # fmt: skip
        assert words in page, words
    assert page.index("</svg>") < page.index("<dt>How sure") < page.index('class="glance"') < page.index("</ol>")


@pytest.mark.parametrize("lost_parts", [["outputs"], ["internals"], ["people"], ["outputs", "internals", "people"]])
def test_a_report_without_axes_or_people_or_roles_is_still_whole(lost_parts: list[str]) -> None:
    base = report("suppressed")
    lost = dict.fromkeys(lost_parts, Missing(missing="not measured"))
    audit = base.model_copy(update={"verdict": base.verdict.model_copy(update={**AXES, **lost}), "roles_audited": ()})
    for text in (html(audit), markdown(audit)):
        assert "No audit of the roles is recorded" in text and "declared, not checked" in text
        assert ("interval 10 to 22) known" in text) == ("people" not in lost_parts)
    assert (axes_drawing(audit) == "") == (len(lost_parts) == 3)
    assert summary(audit) and people_words(audit) == "" if "people" in lost_parts else people_words(audit)


def test_a_role_that_was_left_out_is_named_with_its_reason_and_unknown_groups_are_listed() -> None:
    parts = {s.id: s for s in report_sections(report("suppressed"))}
    section = parts["roles"]
    text = str(section.blocks) + str(parts["control-table"].blocks)
    assert section.title == "Roles audited" and "Left out: reference 1" in text
    assert "It is a copy of the suspect" in text and "Base shows no knowledge of" in text
    assert AUDITED[-1].unknown[0] in text and "weights moved" in text


def test_an_inconclusive_headline_has_its_reason() -> None:
    below = report("inconclusive")
    below = below.model_copy(update={"verdict": below.verdict.model_copy(update={"direction": "below"})})
    assert "over-suppressed" in meaning(below)
    assert "no common basis" in meaning(report("inconclusive"))
    assert "compatibility gate" in meaning(report("broken"))


@pytest.mark.parametrize(("units", "total", "words"), [
    (32, 32, "32 of 32 people of the forget set"),
    (16, 32, "16 of 32 people of the forget set; of the other 16 nothing is said"), (16, 0, "16 people"),
])  # fmt: skip
def test_who_was_audited_is_a_count_of_all(units: int, total: int, words: str) -> None:
    m = effect("forget_likelihood", "probability", "output", 0.01, 0.02, units=units)
    base = report_with(judged(m, "silent", "b")).model_copy(
        update={"roles_audited": (), "cohorts": {"forget": {"groups": total}}}
    )
    assert dict(three_lines(base, "x"))["Who was audited"] == words
    base_role = RoleAudit(role="base", takes_part=True, because=(), unknown=("a", "b"))
    assert (
        "no knowledge of 2"
        in dict(three_lines(base.model_copy(update={"roles_audited": (base_role,)}), "x"))["Who was audited"]
        or total == 0
    )


def test_false_alarms_and_misses_say_what_they_were_counted_on() -> None:
    text = how_sure(report("calibrated"))
    assert "False alarms on models that never knew: 0 of 60 worlds" in text
    assert "Missed fakes, which know everything and keep quiet: 1 of 60 worlds" in text
    assert "a world counts once" in text and "(doses)" in markdown(report("calibrated"))


@QUICK
@given(st.sampled_from(STATUSES), st.floats(-1, 2), st.booleans())
def test_every_sentence_of_a_negative_names_its_bound_or_that_it_is_blind(
    status: Status, value: float, control: bool
) -> None:
    known = Control(value=1.0, ci95=Missing(missing="none"), found=control)
    e = finding(several(value, value / 2, positive_control=known), status)
    if e.outcome != "trace found" and status != "listed":
        assert re.search(r"Upper bound of the overall effect|Blind here", evidence_sentence(e))


@pytest.mark.parametrize("axis", ["layer", "", "form", "clamp"])
def test_the_largest_is_over_what_the_items_have_several_numbers_by(axis: str) -> None:
    table = Table(path="t", sha256="0" * 64, rows=1, columns=("item",), axis=axis)
    whole = Overall(value=0.2, ci95=Interval(lo=0.1, hi=0.3), floor=0.0)
    m = effect("reverse_patch", "depth_profile_all", "causal", 0.5, 0.1, overall=whole, items=table)
    assert own_reading(m).name == f"largest over {axis or 'layer'}s"
