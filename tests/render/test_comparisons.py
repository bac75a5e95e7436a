"""Figures over several reports and over models of known truth, held against plain counting and scikit-learn."""

import math

import numpy as np
import pytest
from sklearn.metrics import roc_curve

from audit.render import NamedReport, depth_map, key, layered, matrix, painted, scores
from audit.render.figures import comparison_figures, known_truth_figures
from audit.render.figures.comparison_figures import depth
from audit.render.figures.item_figures import POINTS
from audit.schema import Curve, Missing, Skip
from tests import golden
from tests.golden import VARIANTS, report


def rows(*variants: golden.Variant) -> list[NamedReport]:
    return [NamedReport(v, f"world/{v}", report(v)) for v in variants]


# ---- the matrix -------------------------------------------------------------------------------------------------
def test_every_cell_of_the_matrix_leads_to_its_report_and_test() -> None:
    shown = rows("suppressed", "calibrated", "consistent")
    points = matrix(shown).figure.data[-1]
    tests = comparison_figures.columns([r.report for r in shown])
    assert [tuple(c[:2]) for c in points.customdata] == [(r.address, t) for r in shown for t in tests]


def test_a_cell_has_the_log_ratio_on_a_scale_to_the_ceiling_and_an_in_case_one_its_effect_in_brackets() -> None:
    drawn = matrix(rows("calibrated"))
    tests = comparison_figures.columns([report("calibrated")])
    heat, marks = drawn.figure.data[-2], drawn.figure.data[-1].text
    place = tests.index("reverse_patch.answer positions")
    assert (heat.zmin, heat.zmax) == (-1, 1)
    assert heat.z[0][place] == pytest.approx(math.log10(52) / math.log10(61))
    assert marks[place] == "▲<br>+1.7" and "from −1.8 (never trained) over 0 to +1.8 (knows)" in drawn.caption
    in_case = tests.index("forget_likelihood.probability")
    assert marks[in_case] == "●<br>(.01)" and 0 <= heat.z[0][in_case] < 0.05


def test_a_matrix_without_any_ratio_has_effects_and_colours_but_none_for_what_is_undecided_or_invalid() -> None:
    drawn = matrix(rows("suppressed", "inconclusive", "invalid"))
    heat, marks = drawn.figure.data[-2], drawn.figure.data[-1]
    assert max(z for z in heat.z[0] if z is not None) > 0.5
    assert set(heat.z[2]) == {None}
    undecided = [z for line in heat.z for z in line]
    assert all(z is None for z, mark in zip(undecided, marks.text, strict=True) if mark.startswith(("◆", "▼", "–")))
    assert sum("(" in mark for mark in marks.text) > 5
    audit = report("suppressed")
    evidence = tuple(e.model_copy(update={"outcome": "inconclusive"}) for e in audit.evidence)
    none_decides = matrix([NamedReport("a", "a", audit.model_copy(update={"evidence": evidence}))])
    assert set(none_decides.figure.data[-2].z[0]) == {None} and "(.01)" in "".join(none_decides.figure.data[-1].text)


def test_a_test_that_did_not_run_is_hatched_and_says_why() -> None:
    audit = report("suppressed")
    skipped = audit.model_copy(update={"skips": (Skip(probe="pruning", reason="no such edit", consequence="open"),)})
    drawn = matrix([NamedReport("a", "a", audit), NamedReport("b", "b", skipped)])
    hatched = drawn.figure.data[0]
    place = comparison_figures.columns([audit, skipped]).index("pruning")
    assert list(hatched.x)[-1] == place and hatched.marker.pattern.shape == "/"
    assert "no such edit" in drawn.data.rows[1][place + 1].text
    assert "not part of this audit" in drawn.data.rows[0][place + 1].text


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("shown", ["ratio", "p", "value"])
def test_the_matrix_of_any_report_can_be_drawn(variant: golden.Variant, shown: comparison_figures.Shown) -> None:
    assert matrix(rows(variant), shown).data.rows


def test_a_matrix_without_a_drawing_has_its_marks_and_colours() -> None:
    drawn, cells = matrix(rows("calibrated", "suppressed")), painted(rows("calibrated", "suppressed"))
    assert [c.mark.replace(" ", "<br>") for line in cells for c in line] == list(drawn.figure.data[-1].text)
    place = comparison_figures.columns([report("calibrated")]).index("reverse_patch.answer positions")
    red, green, blue = (float(x) for x in cells[0][place].ground.removeprefix("rgb(").removesuffix(")").split(","))
    # 52 is nearly all that 60 worlds support: the darkest orange, with white text.
    assert red > 2 * blue and green < 110 and cells[0][place].ink == "#ffffff"
    assert {c.ground for c, mark in zip(cells[0], drawn.figure.data[-1].text, strict=False) if mark[0] in "◆▼–✓"} <= {
        ""
    }


# ---- depth ------------------------------------------------------------------------------------------------------
def curve(role: str, y: tuple[float, ...], half: float) -> Curve:
    return Curve.model_validate({
        "axis": "layer", "unit": "effect", "scale": "effect", "role": role, "x": tuple(float(i) for i in range(len(y))),
        "y": y, "lo": tuple(v - half for v in y), "hi": tuple(v + half for v in y),
    })  # fmt: skip


def test_depth_is_the_suspect_minus_never_trained_and_silent_where_the_intervals_meet() -> None:
    m = golden.effect("p", "n", "causal", 0.5, 0.1).model_copy(
        update={"curves": (curve("suspect", (0.9, 0.4, 0.1), 0.1), curve("reference", (0.2, 0.25, 0.1), 0.1))}
    )
    drawn = depth(m)
    assert drawn is not None
    assert drawn.above == pytest.approx((0.7, 0.15, 0.0)) and drawn.silent == (False, True, True)


def test_depth_without_a_reference_uses_the_null_band() -> None:
    m = golden.effect("p", "n", "causal", 0.5, 0.1, curves=golden.profile((0.02, 0.8)))
    drawn = depth(m)
    assert drawn is not None and drawn.silent == (True, False)
    assert drawn.above == pytest.approx((0.015, 0.795))


def test_the_depth_map_draws_every_checkpoint_that_was_measured() -> None:
    shown = rows("suppressed", "consistent", "invalid")
    for test in layered([r.report for r in shown]):
        drawn = depth_map(shown, test)
        measured = [r for r in shown if any(key(e.measurement) == test for e in r.report.evidence)]
        assert drawn is not None and len(drawn.data.columns) == len(measured) + 1


# ---- known truth ------------------------------------------------------------------------------------------------
def test_the_roc_is_that_of_scikit_learn() -> None:
    draw = np.random.default_rng(0)
    clean, knowing = draw.normal(0, 1, 80), draw.normal(1.5, 1, 60)
    line = known_truth_figures.roc(list(clean), list(knowing), 0.5).figure.data[1]
    false, true, _ = roc_curve([0] * 80 + [1] * 60, [*clean, *knowing], drop_intermediate=False)
    ours = {(round(float(x), 6), round(float(y), 6)) for x, y in zip(line.x, line.y, strict=True)}
    theirs = {
        (round(max(float(x), 0.5 / 80), 6), round(max(float(y), 0.5 / 60), 6)) for x, y in zip(false, true, strict=True)
    }
    assert ours <= theirs and len(ours) > 50


def test_rates_count_scores_above_the_threshold() -> None:
    assert known_truth_figures.rates([0.0, 0.5, 0.6], [0.5, 0.9], 0.5) == known_truth_figures.Rates(1, 3, 1, 2)


def test_a_rate_too_low_for_so_few_models_is_said_to_be_so() -> None:
    rows = known_truth_figures.roc([0.0, 0.1], [0.5, 0.6], 0.3).data.rows
    assert "cannot show a rate this low" in rows[0][1].text and rows[0][1].text.startswith("2 of 2")


def test_tippett_and_reliability_draw_what_they_are_given() -> None:
    quantiles = tuple(i / 50 - 1 for i in range(101))
    tippett = known_truth_figures.tippett(quantiles, tuple(q + 1 for q in quantiles)).figure
    assert tippett.data[0].y[0] == 1.0 and tippett.data[0].y[-1] == 0.0 and tippett.data[1].x[0] == 0.0
    bands = ((-1.0, Missing(missing="one kind"), 0, 7), (0.5, 0.6, 3, 4))
    drawn = known_truth_figures.reliability(bands)
    assert list(drawn.figure.data[1].x) == [0.5] and "not countable" in drawn.data.rows[0][1].text


# ---- items ------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("count", [1, 50, POINTS + 1])
def test_many_items_are_a_density_with_all_of_them_in_it(count: int) -> None:
    draw = np.random.default_rng(1)
    suspect, base = list(draw.random(count)), list(draw.random(count))
    drawn = scores(suspect, base, "base")
    assert sum(int(row[1].text) for row in drawn.data.rows) == count
    if count > POINTS:
        assert np.nansum(np.array(drawn.figure.data[0].z, dtype=float)) == count
    else:
        assert list(drawn.figure.data[-1].y) == suspect
