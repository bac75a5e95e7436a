"""Single findings as tables: the vectors, modules, forms or tokens that a measurement names, a finding a row."""

from collections.abc import Sequence
from typing import Final

from audit.render.sections.blocks import Block, Cell, Grid
from audit.render.wording.findings import title
from audit.schema import Evidence, Listing, Measurement
from audit.wording import CELL, NAME, number, visible

MOST: Final = 50
"""So many rows of a listing are shown at most; how many there are is said."""


def listings(rows: Sequence[Evidence]) -> tuple[Block, ...]:
    """The listings of a family of findings; nothing where there is none."""
    return tuple(grid for e in rows for grid in listing_grids(e.measurement))


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
