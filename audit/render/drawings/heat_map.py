"""A map of cells as inline SVG: two columns of a listing give the places, a third the colour and the number.

Colours run from pale to dark blue, or for a number on both sides of 0 from purple over white to orange; both are told
apart by the colour-blind, and in grey print by their darkness. A cell that was not measured has a stroke and no colour.
"""

import math
from collections.abc import Mapping, Sequence
from html import escape
from typing import Final, NamedTuple

from audit.render.drawings.drawing import LEFT, RIGHT, WIDTH, at, drawing, line, text
from audit.schema import Cell, HeatMap, Listing
from audit.wording import NAME, number, visible

Stops = tuple[tuple[float, str], ...]
SEQUENTIAL: Final[Stops] = (
    (0.0, "#f1f6fb"), (0.25, "#b9d6ea"), (0.5, "#62a8d3"), (0.75, "#0072b2"), (1.0, "#08305c"),
)  # fmt: skip
DIVERGING: Final[Stops] = (
    (0.0, "#542788"), (0.2, "#8073ac"), (0.35, "#b2abd2"), (0.5, "#ffffff"), (0.65, "#fdb863"), (0.8, "#e08214"),
    (1.0, "#b35806"),
)  # fmt: skip
"""Purple over white to orange, as in the matrix of a comparison."""
MOST_NUMBERED: Final = 300
"""Of more cells none has its number written into it: the data have them."""
NARROWEST: Final = 40.0
"""So many pixels a cell needs for its number."""

Place = str | int | float


class MapCell(NamedTuple):
    """The number drawn at a place, and which of the rows there it is of (the head), in words."""

    value: float
    of: str


class HeatCells(NamedTuple):
    """A map: its places across and down, its cells (a missing one was not measured), and the column over which each
    is the largest ("" where every place has one row)."""

    across: tuple[Place, ...]
    down: tuple[Place, ...]
    cells: Mapping[tuple[Place, Place], MapCell]
    over: str

    @property
    def ends(self) -> tuple[float, float]:
        """The smallest and the largest number drawn."""
        values = [cell.value for cell in self.cells.values()] or [0.0]
        return min(values), max(values)


def heat_cells(listing: Listing, drawn: HeatMap) -> HeatCells:
    """The map that a listing asks for. Of several rows at one place the number largest in size stands there."""
    x, y, value = (listing.columns.index(name) for name in (drawn.x, drawn.y, drawn.value))
    by_place: dict[tuple[Place, Place], list[tuple[Cell, ...]]] = {}
    for row in listing.rows:
        across, down = row[x], row[y]
        if across is not None and down is not None:
            by_place.setdefault((_place(across), _place(down)), []).append(row)
    of = _namer(listing, [n for n in range(len(listing.columns)) if n not in (x, y, value)], by_place)
    cells: dict[tuple[Place, Place], MapCell] = {}
    for place, rows in by_place.items():
        measured = [(float(v), row) for row in rows if isinstance(v := row[value], int | float)]
        if measured:
            largest, row = max(measured, key=lambda pair: abs(pair[0]))
            cells[place] = MapCell(largest, "" if of is None else f"{visible(listing.columns[of], NAME)} {row[of]}")
    shared = any(len(rows) > 1 for rows in by_place.values())
    over = "" if not shared else "row" if of is None else visible(listing.columns[of], NAME)
    return HeatCells(_ordered([a for a, _ in by_place]), _ordered([d for _, d in by_place]), cells, over)


def _place(value: str | float) -> Place:
    return visible(value, NAME) if isinstance(value, str) else value


def _namer(
    listing: Listing, columns: Sequence[int], by_place: Mapping[tuple[Place, Place], list[tuple[Cell, ...]]]
) -> int | None:
    """The first column of whole numbers, or of words that are no data, that tells the rows at one place apart."""
    shared = [rows for rows in by_place.values() if len(rows) > 1]
    for n in columns:
        names = [[row[n] for row in rows] for rows in shared]
        counted = all(isinstance(cell, int | str) for cells in names for cell in cells)
        if (
            shared
            and counted
            and listing.columns[n] not in listing.quoted
            and all(len(set(cells)) == len(cells) for cells in names)
        ):
            return n
    return None


def _ordered(places: Sequence[Place]) -> tuple[Place, ...]:
    """Numbers by size, words as they first appear."""
    each = list(dict.fromkeys(places))
    numbers = [place for place in each if not isinstance(place, str)]
    return tuple(sorted(numbers)) if len(numbers) == len(each) else tuple(each)


def place_word(place: Place) -> str:
    """A place as it stands at an axis."""
    return place if isinstance(place, str) else f"{place:g}"


# ---- colours ----------------------------------------------------------------------------------------------------
class Shades(NamedTuple):
    """From which number to which the colours run, and the colours."""

    lo: float
    hi: float
    stops: Stops

    def colour(self, value: float) -> str:
        """The colour of a number, ``#rrggbb``."""
        share = min(max((value - self.lo) / (self.hi - self.lo), 0.0), 1.0)
        (a, low), (b, high) = next(
            pair for pair in zip(self.stops, self.stops[1:], strict=False) if pair[1][0] >= share
        )
        part = (share - a) / (b - a)
        ends = ((int(low[i : i + 2], 16), int(high[i : i + 2], 16)) for i in (1, 3, 5))
        return "#" + "".join(f"{round(u + part * (v - u)):02x}" for u, v in ends)

    def ink(self, value: float) -> str:
        """Text that can be read on it (at least 4.5 to 1): black or white, whichever stands out more."""
        light = luminance(self.colour(value)) + 0.05
        return "#000000" if light / 0.05 > 1.05 / light else "#ffffff"


def luminance(colour: str) -> float:
    """Relative luminance of ``#rrggbb``, as the accessibility guidelines of the W3C define it."""
    shares = (int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5))
    red, green, blue = (c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in shares)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def shades(cells: HeatCells, signed: bool) -> Shades:
    """Colours from the smallest number drawn to the largest; round 0 and as far to both sides where it is signed."""
    lo, hi = cells.ends
    if signed:
        most = max(abs(lo), abs(hi)) or 1.0
        return Shades(-most, most, DIVERGING)
    return Shades(lo, hi if hi > lo else lo + 1.0, SEQUENTIAL)


# ---- drawn ------------------------------------------------------------------------------------------------------
def heat_map(cells: HeatCells, drawn: HeatMap, label: str) -> str:
    """The map with its scale of colours above it: ``x`` across, ``y`` down, the smallest place at the top left."""
    colours = shades(cells, drawn.signed)
    columns, rows = max(len(cells.across), 1), max(len(cells.down), 1)
    left = max(LEFT, 20 + 7.0 * max(len(f"{visible(drawn.y, NAME)} ↓"), *(len(place_word(p)) for p in cells.down)))
    left = min(left, WIDTH / 2)  # the longest names are cut at the left edge, and every place keeps a width
    width = min((WIDTH - RIGHT - left) / columns, 96.0)
    tall, top = (26.0 if rows <= 24 else 14.0), 64.0
    numbered = columns * rows <= MOST_NUMBERED and width >= NARROWEST and tall > 20
    body = [*_scale(colours, visible(drawn.value, NAME), left)]
    body.append(text(left - 8, top - 8, f"{visible(drawn.y, NAME)} ↓", "end"))
    body.append(text(left, top + rows * tall + 34, f"{visible(drawn.x, NAME)} →"))
    every_row, every_column = max(1, math.ceil(14 / tall)), max(1, math.ceil(26 / width))
    for n, across in enumerate(cells.across[::every_column]):
        middle = left + (n * every_column + 0.5) * width
        body.append(text(middle, top + rows * tall + 16, place_word(across), "middle", 11))
    for r, down in enumerate(cells.down):
        y = top + r * tall
        if r % every_row == 0:
            body.append(text(left - 8, y + tall / 2 + 4, place_word(down), "end", 11))
        for c, across in enumerate(cells.across):
            body += _cell(cells.cells.get((across, down)), colours, (left + c * width, y, width, tall), numbered)
    return drawing(top + rows * tall + 44, label, body)


def _cell(cell: MapCell | None, colours: Shades, place: tuple[float, float, float, float], numbered: bool) -> list[str]:
    x, y, width, tall = place
    if cell is None:
        faint = 'stroke="currentColor" stroke-opacity="0.45"'
        return [line(x + width / 2 - 4, y + tall / 2 + 4, x + width / 2 + 4, y + tall / 2 - 4, faint)]
    fill = f'fill="{colours.colour(cell.value)}"'
    size = f'width="{at(width - 1)}" height="{at(tall - 1)}"'
    out = [f'<rect x="{at(x)}" y="{at(y)}" {size} {fill} stroke="currentColor" stroke-opacity="0.15"/>']
    if numbered:
        words = escape(number(cell.value))
        out.append(f'<text x="{at(x + width / 2)}" y="{at(y + tall / 2 + 4)}" text-anchor="middle" font-size="11" '
                   f'style="fill:{colours.ink(cell.value)}">{words}</text>')  # fmt: skip
    return out


def _scale(colours: Shades, words: str, left: float) -> list[str]:
    """The bar of colours with the numbers at its ends and in its middle, and what they are."""
    steps, wide, start = 48, 4.0, left + 7.0 * len(words) + 16
    out = [text(left, 18, words)]
    for n in range(steps):
        value = colours.lo + (n + 0.5) / steps * (colours.hi - colours.lo)
        out.append(f'<rect x="{at(start + n * wide)}" y="8" width="{at(wide + 1)}" height="12" '
                   f'fill="{colours.colour(value)}"/>')  # fmt: skip
    middle = (colours.lo + colours.hi) / 2
    for share, value in ((0.0, colours.lo), (0.5, middle), (1.0, colours.hi)):
        out.append(text(start + share * steps * wide, 34, number(value), "middle", 11))
    return out
