"""Further readings of findings as tables: a line each; those that a probe made at several strengths side by side."""

import re
from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple

from audit.render.sections.blocks import Block, Cell, Grid
from audit.render.wording.findings import title
from audit.schema import Evidence, Measurement
from audit.wording import CELL, NAME, number, replicate_of, visible

LEAST_ROWS: Final = 4
"""So many readings at the same strengths are a table of their own; fewer stay in the list."""
MOST_COLUMNS: Final = 8
_NUMBERED: Final = re.compile(r"(?P<stem>.+)_(?P<axis>[a-z]+)(?P<at>\d+(?:\.\d+)?)")


class Side(NamedTuple):
    """Readings of one measurement that differ in a number: by stem, and there by that number."""

    axis: str
    at: tuple[str, ...]
    rows: Mapping[str, Mapping[str, float]]

    @property
    def names(self) -> set[str]:
        """The readings that stand in it."""
        return {f"{stem}_{self.axis}{at}" for stem in self.rows for at in self.at}


def readings(rows: Sequence[Evidence]) -> tuple[Block, ...]:
    """The readings of a family of findings; nothing where there is none."""
    grouped = {n: sides(e.measurement.readings) for n, e in enumerate(rows)}
    lists: list[tuple[Cell, ...]] = []
    for n, e in enumerate(rows):
        aside = {name for side in grouped[n] for name in side.names}
        rest = {name: value for name, value in e.measurement.readings.items() if name not in aside}
        for name, value in sorted(rest.items(), key=_natural):
            lists.append((Cell(title(e.measurement)), Cell(_named(name, e.measurement)), _num(value)))
    caption = f"{rows[0].measurement.kind.capitalize()}: further readings"
    plain = (Grid(caption, ("Test", "Reading", "Value"), tuple(lists), folded=True),) if lists else ()
    return (*plain, *(_table(e.measurement, side) for n, e in enumerate(rows) for side in grouped[n]))


def sides(given: Mapping[str, float]) -> tuple[Side, ...]:
    """The groups of readings that differ in a number alone, every one of them at all the same numbers."""
    by_axis: dict[str, dict[str, dict[str, float]]] = {}
    for name, value in given.items():
        if match := _NUMBERED.fullmatch(name):
            by_axis.setdefault(match["axis"], {}).setdefault(match["stem"], {})[match["at"]] = value
    grouped_by_axis: list[Side] = []
    for axis, by_stem in by_axis.items():
        at = max(by_stem.values(), key=len).keys()
        complete = {stem: values for stem, values in by_stem.items() if values.keys() == at}
        if len(complete) >= LEAST_ROWS and 2 <= len(at) <= MOST_COLUMNS:
            grouped_by_axis.append(Side(axis, tuple(sorted(at, key=float)), complete))
    return tuple(grouped_by_axis)


def _table(m: Measurement, side: Side) -> Grid:
    caption = f"{title(m)}: further readings by {visible(side.axis, NAME)}"
    cells = tuple(
        (Cell(_named(stem, m)), *(_num(values[at]) for at in side.at))
        for stem, values in sorted(side.rows.items(), key=lambda pair: _natural((pair[0], 0.0)))
    )
    return Grid(caption, ("Reading", *(f"{visible(side.axis, NAME)} {at}" for at in side.at)), cells, folded=True)


def _named(reading: str, m: Measurement) -> str:
    """The name of a reading in words, of this audit's units."""
    return replicate_of(m).rephrased(visible(reading, CELL).replace("_", " "))


def _num(value: float) -> Cell:
    return Cell(number(value), "number")


def _natural(pair: tuple[str, float]) -> list[tuple[int, str]]:
    """Sorts layer 2 before layer 10."""
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", pair[0])]
