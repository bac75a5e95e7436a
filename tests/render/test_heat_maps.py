"""Maps of listings: every place has the number largest in size, in an ink that can be read, in every view alike."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from audit.render import heat_maps, html, interactive, markdown, sheets
from audit.render.drawings.heat_map import DIVERGING, SEQUENTIAL, Shades, heat_cells, heat_map, luminance
from audit.render.sections.listings import listing_map
from audit.schema import HeatMap, Listing
from audit.wording import number
from tests.backdoored import SINKS, backdoored, sinks
from tests.golden import HOSTILE

COLUMNS = ("block", "head", "position", "z")
MAP = HeatMap(x="position", y="block", value="z", signed=True)
VALUES = st.none() | st.floats(-1e3, 1e3) | st.integers(-50, 50)


@st.composite
def maps(draw: st.DrawFn) -> Listing:
    """A grid of heads by blocks and positions, some of it not measured, in any order."""
    blocks, heads, places = draw(st.integers(1, 4)), draw(st.integers(1, 3)), draw(st.integers(1, 5))
    rows = [(b, h, p, draw(VALUES)) for b in range(blocks) for h in range(heads) for p in range(places)]
    rows = draw(st.permutations(rows))
    chosen = rows[: draw(st.integers(1, len(rows)))]
    return Listing(title="sinks", columns=COLUMNS, rows=tuple(chosen), of=len(chosen), maps=(MAP,))


@given(maps())
def test_every_place_has_the_number_largest_in_size_of_those_measured_there(listing: Listing) -> None:
    cells = heat_cells(listing, MAP)
    table = np.full((5, 3, 5), np.nan)
    for block, head, place, value in listing.rows:
        if value is not None:
            table[int(block or 0), int(head or 0), int(place or 0)] = float(value)
    assert list(cells.across) == sorted({row[2] for row in listing.rows})
    assert list(cells.down) == sorted({row[0] for row in listing.rows})
    for place in cells.across:
        for block in cells.down:
            at_place = table[int(block), :, int(place)]
            cell = cells.cells.get((place, block))
            if np.isnan(at_place).all():
                assert cell is None
            else:
                assert cell is not None and abs(cell.value) == np.nanmax(np.abs(at_place))
                assert not cell.of or at_place[int(cell.of.removeprefix("head "))] == cell.value
    shared = len({(row[0], row[2]) for row in listing.rows}) < len(listing.rows)
    assert cells.over == ("head" if shared else "")


@settings(max_examples=50)
@given(maps())
def test_drawing_live_figure_and_data_have_the_same_numbers(listing: Listing) -> None:
    m = sinks().model_copy(update={"listings": (listing,)})
    cells, figure = heat_cells(listing, MAP), listing_map(m, 0, 0)
    (live,) = heat_maps(m)
    assert live.data == figure.data and live.caption == figure.caption and live.label == figure.label
    assert [row[0].text for row in figure.data.rows] == [str(block) for block in cells.down]
    grid = live.figure.data[0].z
    for y, block in enumerate(cells.down):
        for x, place in enumerate(cells.across):
            cell = cells.cells.get((place, block))
            shown = figure.data.rows[y][x + 1].text
            assert grid[y][x] == (None if cell is None else cell.value)
            assert shown.startswith("not measured" if cell is None else number(cell.value))
    assert figure.svg.count("<rect") == len(cells.cells) + 48
    assert ("not measured" in figure.caption) == (len(cells.cells) < len(cells.across) * len(cells.down))


@given(st.floats(0, 1), st.sampled_from([SEQUENTIAL, DIVERGING]))
def test_numbers_can_be_read_on_every_colour(share: float, stops: tuple[tuple[float, str], ...]) -> None:
    colours = Shades(0.0, 1.0, stops)
    pair = sorted((luminance(colours.colour(share)), luminance(colours.ink(share))))
    assert (pair[1] + 0.05) / (pair[0] + 0.05) >= 4.5


def test_colours_are_told_apart_by_darkness_alone() -> None:
    rising = [luminance(Shades(0.0, 1.0, SEQUENTIAL).colour(x)) for x in np.linspace(0, 1, 101)]
    assert all(b < a for a, b in zip(rising, rising[1:], strict=False))
    sides = [luminance(Shades(-1.0, 1.0, DIVERGING).colour(x)) for x in np.linspace(-1, 1, 101)]
    assert all(b > a for a, b in zip(sides[:51], sides[1:51], strict=False))
    assert all(b < a for a, b in zip(sides[50:], sides[51:], strict=False))
    assert Shades(-1.0, 1.0, DIVERGING).colour(0.0) == "#ffffff"


def test_a_signed_map_is_white_at_nothing_whatever_its_numbers() -> None:
    for value in (9.0, -9.0):
        listing = Listing(title="t", columns=COLUMNS, rows=((0, 0, 0, value), (0, 0, 1, 0.0)), of=2, maps=(MAP,))
        (drawn,) = heat_maps(sinks().model_copy(update={"listings": (listing,)}))
        assert (drawn.figure.data[0].zmin, drawn.figure.data[0].zmax) == (-9.0, 9.0)
        assert 'fill="#ffffff"' in heat_map(heat_cells(listing, MAP), MAP, "a map")


def test_maps_stand_in_every_view_with_their_words_and_their_data() -> None:
    shown = backdoored()
    page, text, live = html(shown), markdown(shown), interactive(shown)
    for value in ("z value norm", "attention received"):
        words = f"attention sink: value norms: sink map, {value} by block and position"
        assert f'aria-label="{words}"' in page and words in text and f"{value} by block and position" in text
        assert any(words.split(": ")[-1][:20].replace(" ", "-").replace(",", "") in name for name in sheets(shown))
    assert live.count('"type":"heatmap"') >= 3
    assert "9.0 (head 0)" in page and "9.0 (head 0)" in text


def test_a_long_table_is_folded_under_its_map() -> None:
    page = html(backdoored())
    assert "<summary>attention sink: value norms: sink map (first 50 of 96) (50 rows)</summary>" in page
    assert "<summary>trigger search: recovery: recovery by budget class" not in page


def test_hostile_places_and_columns_reach_no_view_as_markup() -> None:
    drawn = HeatMap(x=HOSTILE, y="b", value="c")
    listing = Listing(title=HOSTILE, columns=(HOSTILE, "b", "c"), rows=((HOSTILE, HOSTILE, 1.0),), of=1, maps=(drawn,))
    m = sinks().model_copy(update={"listings": (listing,)})
    svg = listing_map(m, 0, 0).svg
    (live,) = heat_maps(m)
    assert "<img" not in svg and "\x1b" not in svg and "\u202e" not in svg
    assert "<img" not in live.figure.to_json().replace("\\u003c", "<")


@pytest.mark.parametrize(("x", "y", "value"), [
    ("place", "block", "z"), ("position", "layer", "z"), ("position", "block", "norm"), ("z", "block", "z"),
    ("block", "block", "z"),
])  # fmt: skip
def test_a_map_of_columns_that_are_not_there_is_refused(x: str, y: str, value: str) -> None:
    with pytest.raises(ValidationError, match="a map of the listing"):
        Listing(title="t", columns=COLUMNS, rows=(), of=0, maps=(HeatMap(x=x, y=y, value=value),))


def test_a_listing_without_maps_is_written_as_before() -> None:
    plain = SINKS.model_copy(update={"maps": ()})
    assert "maps" not in plain.model_dump() and "maps" in SINKS.model_dump()
    assert Listing.model_validate(SINKS.model_dump()) == SINKS
