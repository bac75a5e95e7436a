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
    colours = shades(cells, wanted.signed)
    places = [(x, y) for y in range(len(cells.down)) for x in range(len(cells.across))]
    present = [(x, y) for x, y in places if _at(cells, x, y) is not None]
    numbered = len(places) <= MOST_NUMBERED
    figure = sketch(130 + max(26 * len(cells.down), 120))
    figure.add_heatmap(
        z=[[None if (cell := _at(cells, x, y)) is None else cell.value for x in range(len(cells.across))]
           for y in range(len(cells.down))],
        x=list(range(len(cells.across))), y=list(range(len(cells.down))), zmin=colours.lo, zmax=colours.hi,
        colorscale=[list(stop) for stop in colours.stops], xgap=1, ygap=1, hoverinfo="skip",
        colorbar={"title": {"text": label(wanted.value, 24)}},
    )  # fmt: skip
    values = [cell for x, y in present if (cell := _at(cells, x, y)) is not None]
    figure.add_scatter(
        x=[x for x, _ in present], y=[y for _, y in present], mode="markers+text" if numbered else "markers",
        text=[number(cell.value) for cell in values],
        textfont={"color": [colours.ink(cell.value) for cell in values], "size": 11} if numbered else None,
        marker={"size": 24, "opacity": 0, "symbol": "square"},
        customdata=[[_word(cells.down[y]), _word(cells.across[x]), f"{cell.of}: " if cell.of else ""]
                    for (x, y), cell in zip(present, values, strict=True)],
        hovertemplate=f"{label(wanted.y)} %{{customdata[0]}}, {label(wanted.x)} %{{customdata[1]}}<br>"
                      "%{customdata[2]}%{text}<extra></extra>",
    )  # fmt: skip
    figure.update_xaxes(**_axis(wanted.x, cells.across))
    figure.update_yaxes(**_axis(wanted.y, cells.down))
    figure.update_xaxes(range=[-0.5, len(cells.across) - 0.5])
    return figure.update_yaxes(range=[len(cells.down) - 0.5, -0.5])


def _axis(words: str, places: Sequence[Place]) -> dict[str, object]:
    every = max(1, len(places) // 32)
    return {
        "title": label(words), "tickvals": list(range(0, len(places), every)), "showgrid": False, "zeroline": False,
        "ticktext": [_word(place) for place in places[::every]],
    }  # fmt: skip


def _at(cells: HeatCells, x: int, y: int) -> MapCell | None:
    return cells.cells.get((cells.across[x], cells.down[y]))


def _word(place: Place) -> str:
    return label(place_word(place), 40)
