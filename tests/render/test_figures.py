"""Figures for pages that can be pointed at: every report draws, the same twice, harmless, and with its numbers."""

import re

import pytest
from plotly import io

from audit.render import Drawing, position
from audit.render.figures import report_figures
from audit.schema import Missing, Null
from tests.golden import VARIANTS, Variant, report


def drawings(variant: Variant) -> list[Drawing]:
    """Everything that one report draws."""
    found = report(variant)
    whole = [report_figures.ratios(found), report_figures.positions(found)]
    single = [report_figures.null_of(e.measurement) for e in found.evidence]
    profiles = [d for e in found.evidence for d in report_figures.profiles(e.measurement)]
    return [d for d in (*whole, *single, *profiles) if d is not None]


@pytest.mark.parametrize("variant", VARIANTS)
def test_every_figure_of_a_report_has_words_and_numbers_and_is_the_same_twice(variant: Variant) -> None:
    first, second = drawings(variant), drawings(variant)
    assert [io.to_json(d.figure) for d in first] == [io.to_json(d.figure) for d in second]
    assert len({d.id for d in first}) == len(first)
    for drawing in first:
        assert drawing.label and drawing.caption and drawing.data.rows


def test_a_figure_keeps_no_tag_that_stands_in_a_report() -> None:
    for drawing in drawings("hostile"):
        text = io.to_json(drawing.figure).encode().decode("unicode_escape")
        assert not re.search(r"<(?!br>|extra>|/extra>)", text)


def test_a_density_holds_the_whole_mass_where_the_quantiles_put_it() -> None:
    quantiles = tuple((i / 100) ** 2 for i in range(101))  # the square of a uniform draw: F(x) is the root of x
    edges, heights = report_figures.density(Null(kind="made up", quantiles=quantiles, n=99), bins=10)
    shares = [h * (b - a) for h, a, b in zip(heights, edges, edges[1:], strict=False)]
    assert sum(shares) == pytest.approx(1.0)
    expected = [(i + 1) ** 0.5 / 10**0.5 - i**0.5 / 10**0.5 for i in range(10)]
    assert shares == pytest.approx(expected, abs=0.01)


def test_a_null_of_one_value_is_one_narrow_bar() -> None:
    edges, heights = report_figures.density(Null(kind="constant", quantiles=(0.2,) * 101, n=99))
    assert len(heights) == 1 and (edges[1] - edges[0]) * heights[0] == pytest.approx(1.0)


def test_ratios_are_drawn_on_a_log_scale_with_their_ceiling_and_only_where_calibrated() -> None:
    assert report_figures.ratios(report("suppressed")) is None
    drawn = report_figures.ratios(report("calibrated"))
    assert drawn is not None
    points = drawn.figure.data[0]
    assert points.y[0] == report_figures.JOINT and points.x[0] == pytest.approx(1.716, abs=1e-3)  # log10 of 52
    dotted = [shape.x0 for shape in drawn.figure.layout.shapes if shape.line.dash == "dot"]
    assert dotted == pytest.approx([-1.785, 1.785], abs=1e-3)  # log10 of 61 and of 1/61


def test_every_test_with_a_place_on_the_scale_is_drawn_and_no_other() -> None:
    found = report("suppressed")
    drawn = report_figures.positions(found)
    assert drawn is not None
    placed = [e for e in found.evidence if not isinstance(position(e.measurement), Missing)]
    assert len(drawn.data.rows) == len(placed)
