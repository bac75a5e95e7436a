"""Maps of listings that can be pointed at: the same places, colours and numbers as in the drawn ones."""

from collections.abc import Sequence

import plotly.graph_objects as go

from audit.render.drawings.heat_map import MOST_NUMBERED, HeatCells, MapCell, Place, heat_cells, place_word, shades
from audit.render.figures.report_figures import Drawing, key, label, sketch
from audit.render.sections.listings import map_caption, map_data, map_label
from audit.schema import HeatMap, Measurement
from audit.wording import number


def heat_maps(m: Measurement) -> tuple[Drawing, ...]:
    """Every map that the listings of a measurement ask for, in their order."""
    drawn: list[Drawing] = []
    for listing in m.listings:
        for wanted in listing.maps:
            cells, words = heat_cells(listing, wanted), map_label(m, listing, wanted)
            caption, data = map_caption(listing, wanted, cells), map_data(words, wanted, cells)
            drawn.append(Drawing(f"map-{key(m)}-{len(drawn)}", _figure(cells, wanted), words, caption, data))
    return tuple(drawn)


def _figure(cells: HeatCells, wanted: HeatMap) -> go.Figure:
    """Colours in a heat map, and over each cell a marker that cannot be seen, which answers to a pointer."""
    colours = shades(cells, wanted.signed)
    columns, rows = range(len(cells.across)), range(len(cells.down))
    table = [[cells.cells.get((cells.across[x], cells.down[y])) for x in columns] for y in rows]
    figure = sketch(130 + max(26 * len(rows), 120))
    figure.add_heatmap(
        z=[[None if cell is None else cell.value for cell in row] for row in table], x=list(columns), y=list(rows),
        zmin=colours.lo, zmax=colours.hi, colorscale=[list(stop) for stop in colours.stops], xgap=1, ygap=1,
        hoverinfo="skip", colorbar={"title": {"text": label(wanted.value, 24)}}, **_numbers(table),
    )  # fmt: skip
    present = [(x, y, cell) for y in rows for x in columns if (cell := table[y][x]) is not None]
    figure.add_scatter(
        x=[x for x, _, _ in present], y=[y for _, y, _ in present], mode="markers",
        text=[number(cell.value) for _, _, cell in present], marker={"size": 24, "opacity": 0, "symbol": "square"},
        customdata=[[_word(cells.down[y]), _word(cells.across[x]), f"{label(cell.of)}: " if cell.of else ""]
                    for x, y, cell in present],
        hovertemplate=f"{label(wanted.y)} %{{customdata[0]}}, {label(wanted.x)} %{{customdata[1]}}<br>"
                      "%{customdata[2]}%{text}<extra></extra>",
    )  # fmt: skip
    figure.update_xaxes({**_axis(wanted.x, cells.across), "range": [-0.5, len(columns) - 0.5]})
    return figure.update_yaxes({**_axis(wanted.y, cells.down), "range": [len(rows) - 0.5, -0.5]})


def _numbers(table: Sequence[Sequence[MapCell | None]]) -> dict[str, object]:
    """The numbers in the cells: plotly chooses an ink that stands out, and leaves them out where they do not fit."""
    if sum(map(len, table)) > MOST_NUMBERED:
        return {}
    words = [["" if cell is None else number(cell.value) for cell in row] for row in table]
    return {"text": words, "texttemplate": "%{text}"}


def _axis(words: str, places: Sequence[Place]) -> dict[str, object]:
    every = max(1, len(places) // 32)
    return {
        "title": label(words), "tickvals": list(range(0, len(places), every)), "showgrid": False, "zeroline": False,
        "ticktext": [_word(place) for place in places[::every]],
    }  # fmt: skip


def _word(place: Place) -> str:
    return label(place_word(place), 40)
