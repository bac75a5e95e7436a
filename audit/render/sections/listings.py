"""Single findings as tables and maps: the vectors, modules, forms or tokens that a measurement names, one a row."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from audit.render.drawings.heat_map import HeatCells, MapCell, heat_cells, heat_map, place_word
from audit.render.sections.blocks import Block, Cell, Figure, Grid
from audit.render.wording.findings import title
from audit.schema import Evidence, HeatMap, Listing, Measurement
from audit.wording import CELL, NAME, number, visible

UNDER_MAP: Final = 12
"""A longer table under its map is opened on demand."""
MOST: Final = 50
"""So many rows of a listing are shown at most; how many there are is said."""


def listings(rows: Sequence[Evidence]) -> tuple[Block, ...]:
    """The listings of a family of findings, each under its maps; nothing where there is none."""
    blocks: list[Block] = []
    for m in (e.measurement for e in rows):
        for n, listing in enumerate(m.listings):
            blocks += [listing_map(m, n, place) for place in range(len(listing.maps))]
            grid = listing_grid(listing, f"{title(m)}: ")
            blocks.append(replace(grid, folded=bool(listing.maps) and len(grid.rows) > UNDER_MAP))
    return tuple(blocks)


def map_key(m: Measurement, listing: int, place: int) -> str:
    """What names the figure of a map: its measurement, the listing and the place in it."""
    return f"map {m.probe}.{m.name} {m.mode} {listing} {place}"


def map_keys(m: Measurement) -> tuple[str, ...]:
    """The names of all its maps, in order."""
    return tuple(map_key(m, n, place) for n, listing in enumerate(m.listings) for place in range(len(listing.maps)))


def map_label(m: Measurement, listing: Listing, drawn: HeatMap) -> str:
    """What a map shows, in words."""
    value, x, y = (visible(name, NAME) for name in (drawn.value, drawn.x, drawn.y))
    return f"{title(m)}: {visible(listing.title, NAME)}, {value} by {y} and {x}"


def map_caption(listing: Listing, drawn: HeatMap, cells: HeatCells) -> str:
    """How a map is read: what its colour is, over what a cell is the largest, and what is not drawn."""
    value, x, y = (visible(name, NAME) for name in (drawn.value, drawn.x, drawn.y))
    lo, hi = cells.ends
    words = f"Colour: {value}, from {number(lo)} to {number(hi)}; {x} across, {y} down."
    if cells.over:
        words += f" At each place the number largest in size over every {cells.over} is drawn."
    if len(cells.cells) < len(cells.across) * len(cells.down):
        words += " Without colour: not measured."
    if listing.of > len(listing.rows):
        words += f" Drawn are {len(listing.rows)} of {listing.of} rows."
    return words


def map_data(label: str, drawn: HeatMap, cells: HeatCells) -> Grid:
    """The numbers of a map as a table: a row a place down, a column a place across."""
    head = f"{visible(drawn.y, NAME)} \\ {visible(drawn.x, NAME)}"
    rows = tuple(
        (Cell(place_word(down)), *(_mapped(cells.cells.get((across, down))) for across in cells.across))
        for down in cells.down
    )
    return Grid(label, (head, *map(place_word, cells.across)), rows)


def _mapped(cell: MapCell | None) -> Cell:
    if cell is None:
        return Cell("not measured", "number")
    return Cell(number(cell.value) + (f" ({cell.of})" if cell.of else ""), "number")


def listing_map(m: Measurement, listing: int, place: int) -> Figure:
    """One map of a listing, with its numbers."""
    shown = m.listings[listing]
    drawn = shown.maps[place]
    cells, label = heat_cells(shown, drawn), map_label(m, shown, drawn)
    caption, data = map_caption(shown, drawn, cells), map_data(label, drawn, cells)
    return Figure(heat_map(cells, drawn, label), label, caption, data, key=map_key(m, listing, place))


def listing_grids(m: Measurement) -> tuple[Grid, ...]:
    """Every listing of one measurement, under its title and that of the measurement."""
    return tuple(listing_grid(listing, f"{title(m)}: ") for listing in m.listings)


def listing_said(m: Measurement) -> tuple[str, ...]:
    """The titles of a measurement's listings, each with how many rows are shown of how many."""
    return tuple(_caption(listing) for listing in m.listings)


def listing_grid(listing: Listing, of: str = "") -> Grid:
    """One listing as a table; ``of`` stands before its title."""
    kinds = [_tone(listing, n) for n in range(len(listing.columns))]
    cells = tuple(tuple(_cell(*pair) for pair in zip(row, kinds, strict=True)) for row in listing.rows[:MOST])
    return Grid(of + _caption(listing), tuple(visible(column, NAME) for column in listing.columns), cells)


def _caption(listing: Listing) -> str:
    shown = min(len(listing.rows), MOST)
    amount = f"first {shown} of {listing.of}" if shown < listing.of else "none" if not shown else f"all {shown}"
    return f"{visible(listing.title, NAME)} ({amount})"


def _tone(listing: Listing, column: int) -> str:
    """Numbers stand under one another; words of the data are set apart from ours."""
    values = [row[column] for row in listing.rows if row[column] is not None]
    if values and all(isinstance(value, int | float) for value in values):
        return "number"
    return "code" if listing.columns[column] in listing.quoted else ""


def _cell(value: str | float | None, tone: str) -> Cell:
    if value is None:
        return Cell("–", "" if tone == "code" else tone)
    if isinstance(value, str):
        return Cell(visible(value, CELL), tone)
    return Cell(number(value) if isinstance(value, float) else str(value).replace("-", "−"), tone)
