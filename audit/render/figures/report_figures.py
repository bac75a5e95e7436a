"""Figures of a report that can be pointed at: Report to plotly, for the interactive report and the dashboard alike.

Every function is pure and returns a :class:`Drawing`: a figure under a fixed id, what it shows in words, and the
numbers behind it. Colours, marker shapes and dashes of the roles are those of :mod:`audit.render.drawings.svg`. The
template is explicit and its text mid-grey on a transparent ground; a page that knows its own colours paints over it.
Whatever stands in a report is hostile text, and plotly reads tags, so every label goes through :func:`label`.
"""

import math
from collections.abc import Sequence
from html import escape
from typing import Final, NamedTuple

import plotly.graph_objects as go

from audit.judging import BANDS, short
from audit.render.drawings.drawing import LOOKS
from audit.render.drawings.scale import Position, judged_place, position, quantile
from audit.render.drawings.svg import panels
from audit.render.sections.blocks import Cell, Grid
from audit.render.sections.findings import FAMILIES, null_band
from audit.render.wording.findings import part, title
from audit.render.wording.posterior import finding_ratio, shown_ratio
from audit.render.wording.quantities import deciding, judged_reading, own_reading
from audit.schema import Curve, Evidence, LikelihoodRatio, Measurement, Missing, Null, Report
from audit.wording import NAME, number, unit, visible

SYMBOLS: Final = {"bar": "line-ns", "square": "square", "plus": "cross-thin", "dash": "line-ew", "cross": "x-thin"}
DASHES: Final = {"": "solid", "7 4": "dash", "2 3": "dot", "2 4": "dot", "9 3 2 3": "dashdot"}
GRID, ZERO, INK, QUIET = "rgba(128,128,128,.3)", "rgba(128,128,128,.75)", "#767676", "#808080"
TEMPLATE: Final = go.layout.Template(
    layout={
        "paper_bgcolor": "rgba(0,0,0,0)", "plot_bgcolor": "rgba(0,0,0,0)", "font": {"color": INK, "size": 13},
        "xaxis": {"gridcolor": GRID, "zerolinecolor": GRID, "linecolor": GRID, "automargin": True},
        "yaxis": {"gridcolor": GRID, "zerolinecolor": GRID, "linecolor": GRID, "automargin": True},
        "margin": {"l": 12, "r": 16, "t": 36, "b": 40}, "hovermode": "closest",
        "legend": {"orientation": "h", "yanchor": "bottom", "y": 1.02, "x": 0},
    }
)  # fmt: skip
JOINT: Final = "Verdict (joint rule)"
UNINFORMATIVE: Final = 0.3
"""Below this size a log10 likelihood ratio gives no useful support to either side."""


class NamedReport(NamedTuple):
    """A report under the name that it has in a comparison, and the address that a click on it leads to."""

    name: str
    address: str
    report: Report


class Drawing(NamedTuple):
    """A figure, the id it keeps on every page, its alternative text, a caption, and the data behind it."""

    id: str
    figure: go.Figure
    label: str
    caption: str
    data: Grid


def label(text: str, cap: int = NAME) -> str:
    """Text from elsewhere as a plotly label: visible, capped, and no tag."""
    return escape(visible(text, cap), quote=False)


def sketch(height: float, **layout: object) -> go.Figure:
    """An empty figure in the house's look; the width is the page's."""
    return go.Figure(layout={"template": TEMPLATE, "height": height, "showlegend": False, **layout})


def pen(role: str, width: float = 2) -> dict[str, object]:
    """The line of a role."""
    look = LOOKS[role]
    return {"color": look.colour, "dash": DASHES[look.dash], "width": width}


def dot(role: str, size: float = 9) -> dict[str, object]:
    """The marker of a role: base is a tall stroke, so that it shows where a suspect covers it."""
    look = LOOKS[role]
    size += 5 if look.shape == "bar" else 0
    return {"color": look.colour, "symbol": SYMBOLS[look.shape], "size": size,
            "line": {"width": 2, "color": look.colour}}  # fmt: skip


def shade(colour: str, opacity: float) -> str:
    """``#rrggbb`` with an opacity."""
    red, green, blue = (int(colour[i : i + 2], 16) for i in (1, 3, 5))
    return f"rgba({red},{green},{blue},{opacity:g})"


def grid_of(caption: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> Grid:
    """A data table: the first cell of a row names it, the others are numbers."""
    cells = tuple((Cell(row[0]), *(Cell(x, "number") for x in row[1:])) for row in rows)
    return Grid(caption, tuple(columns), cells)


def key(m: Measurement) -> str:
    """The address of a test in every report: probe, name, and ``:paper`` where it is in paper mode."""
    return f"{m.probe}.{m.name}" + (":paper" if m.mode == "paper" else "")


# ---- evidence ---------------------------------------------------------------------------------------------------
def ratios(report: Report, only: Sequence[Evidence] | None = None) -> Drawing | None:
    """How strong is each finding? log10 likelihood ratios by family; None where nothing is calibrated."""
    rows: list[tuple[str, LikelihoodRatio]] = []
    if isinstance(verdict_ratio := shown_ratio(report), LikelihoodRatio):
        rows.append((JOINT, verdict_ratio))
    order = [kind for kind, _ in FAMILIES]
    for e in sorted(report.evidence if only is None else only, key=lambda e: order.index(e.measurement.kind)):
        if isinstance(ratio := finding_ratio(e), LikelihoodRatio):
            rows.append((title(e.measurement), ratio))
    if not rows:
        return None
    figure = sketch(90 + 30 * len(rows), xaxis={"title": "log₁₀ likelihood ratio (left: never trained, right: knows)"})
    figure.add_vrect(x0=-UNINFORMATIVE, x1=UNINFORMATIVE, fillcolor=QUIET, opacity=0.18, line_width=0)
    for end in sorted({math.log10(r.ceiling) for _, r in rows} | {math.log10(r.floor) for _, r in rows}):
        figure.add_vline(x=end, line={"dash": "dot", "color": QUIET, "width": 1.5})
    names = [label(name) for name, _ in rows]
    value, low, high = ([math.log10(x) for x in xs] for xs in zip(*((r.value, r.ci95.lo, r.ci95.hi) for _, r in rows),
                                                              strict=True))  # fmt: skip
    error = {
        "type": "data", "symmetric": False, "array": [h - v for v, h in zip(value, high, strict=True)],
        "arrayminus": [v - x for v, x in zip(value, low, strict=True)], "thickness": 2, "width": 5,
    }  # fmt: skip
    figure.add_scatter(
        x=value, y=names, mode="markers", marker=dot("suspect", 10), error_x=error,
        customdata=[[short(r)] for _, r in rows], hovertemplate="%{y}<br>%{customdata[0]}<extra></extra>",
    )  # fmt: skip
    edge = max(1.0, *(abs(x) for x in (*low, *high))) + 0.25
    figure.update_yaxes(autorange="reversed", showgrid=False)
    figure.update_xaxes(range=[-edge, edge], zeroline=True, zerolinecolor=ZERO)
    _words(figure, edge)
    alt = f"Likelihood ratios of {len(rows)} rules, on a log10 scale"
    caption = (
        "Right of 0 the findings are more probable if the suspect still carries the information, left of it if it "
        "never had it. Bars: 95 %. Grey strip: no useful support. Dotted: the ceiling and floor of this design. The "
        "verdict is the joint rule; single tests are listed, never multiplied."
    )  # fmt: skip
    data = [(n, number(r.value), number(r.ci95.lo), number(r.ci95.hi), r.words) for n, r in rows]
    columns = ("Rule", "Likelihood ratio", "95 % low", "95 % high", "Words")
    return Drawing("ratios", figure, alt, caption, grid_of(alt, columns, data))


def _words(figure: go.Figure, edge: float) -> None:
    """The verbal scale above the frame: each word in the middle of what is seen of its band."""
    begin = 0.0
    for below, words in BANDS:
        end = math.log10(below)
        middle, room = (begin + min(end, edge)) / 2, min(end, edge) - begin
        if begin and room > 0.45:
            for side in (-middle, middle):
                figure.add_annotation(
                    x=side, y=1, yref="paper", yanchor="bottom", showarrow=False, text=words.removesuffix(" support")
                )
        begin = end


def positions(
    report: Report, only: Sequence[Evidence] | None = None, pinned: NamedReport | None = None
) -> Drawing | None:
    """What changed from base, and is it like retraining? Every test between never trained, 0, and base, 1.

    Drawn is the number that was judged, and the line that it was held against. ``only`` chooses findings of the report;
    ``pinned`` is a second suspect, drawn as open squares.
    """
    chosen = report.evidence if only is None else only
    placed = [(e, p) for e in chosen if not isinstance(p := judged_position(e), Missing)]
    if not placed:
        return None
    names = [label(title(e.measurement)) for e, _ in placed]
    figure = sketch(96 + 30 * len(placed), showlegend=True, xaxis={"title": "0 never trained, 1 base"})
    reference = shade(LOOKS["reference"].colour, 0.22)
    bands = [(n, p) for n, (_, p) in zip(names, placed, strict=True) if p.null_lo is not None and p.null_hi is not None]
    figure.add_bar(
        y=[n for n, _ in bands], base=[p.null_lo for _, p in bands], orientation="h", width=0.62,
        name="null band, 95 %", x=[(p.null_hi or 0) - (p.null_lo or 0) for _, p in bands],
        marker={"color": reference}, hoverinfo="skip",
    )  # fmt: skip
    figure.add_scatter(x=[0.0] * len(names), y=names, mode="markers", marker=dot("reference"), name="never trained",
                       hoverinfo="skip")  # fmt: skip
    figure.add_scatter(x=[1.0] * len(names), y=names, mode="markers", marker=dot("base", 11), name="base",
                       hoverinfo="skip")  # fmt: skip
    spread = {
        "type": "data", "symmetric": False, "thickness": 2, "width": 5,
        "array": [0 if p.hi is None else p.hi - p.value for _, p in placed],
        "arrayminus": [0 if p.lo is None else p.value - p.lo for _, p in placed],
    }  # fmt: skip
    figure.add_scatter(
        x=[p.value for _, p in placed], y=names, mode="markers", marker=dot("suspect", 10), error_x=spread,
        name="suspect, 95 %", customdata=[[part(e)] for e, _ in placed],
        hovertemplate="%{y}<br>%{x:.2f}: %{customdata[0]}<extra></extra>",
    )  # fmt: skip
    lines = [(n, at) for n, (e, _) in zip(names, placed, strict=True) if (at := deciding(e).at) is not None]
    figure.add_scatter(
        x=[at for _, at in lines], y=[n for n, _ in lines], mode="markers", name="what decides", hoverinfo="skip",
        marker={"symbol": "line-ns", "size": 22, "line": {"width": 3, "color": INK}},
    )  # fmt: skip
    ends = [v for _, p in placed for v in (p.value, p.lo, p.hi) if v is not None]
    if pinned is not None:
        ends += _pin(figure, pinned, [e.measurement for e, _ in placed])
    figure.update_yaxes(autorange="reversed", showgrid=False)
    figure.update_xaxes(range=_span(ends))
    alt = f"{len(placed)} tests between never trained, 0, and base, 1"
    caption = (
        "Square: the judged number of the suspect with its 95 % interval (the overall effect, or the largest over "
        "layers; the data say which). Strokes at 0: a model that never knew; at 1: base. Thick stroke: what decides. "
        "Band: null band of the largest over layers, which gives p."
    )
    rows = [[title(e.measurement), judged_reading(e).name, *("–" if v is None else number(v) for v in p),
             deciding(e).words, part(e)] for e, p in placed]  # fmt: skip
    columns = ("Test", "Judged number", "Position", "95 % low", "95 % high", "Null band 2.5 %", "Null band 97.5 %",
               "Floor", "What decides", "Outcome")  # fmt: skip
    return Drawing("positions", figure, alt, caption, grid_of(alt, columns, rows))


def judged_position(e: Evidence) -> Position | Missing:
    """Where the judged number lies between never trained and base; a gate, which is no effect, lies nowhere."""
    return position(e.measurement) if e.measurement.kind == "gate" else judged_place(e)


def _pin(figure: go.Figure, pinned: NamedReport, rows: Sequence[Measurement]) -> list[float]:
    """Draw a second suspect on the rows of the first; returns its places."""
    places = {key(e.measurement): judged_position(e) for e in pinned.report.evidence}
    placed = [(title(m), p) for m in rows if isinstance(p := places.get(key(m)), Position)]
    marker = dot("suspect", 11) | {"symbol": "square-open"}
    figure.add_scatter(
        x=[p.value for _, p in placed], y=[label(t) for t, _ in placed], mode="markers", marker=marker,
        name=f"pinned: {label(pinned.name)}", hovertemplate="%{y}<br>%{x:.2f}<extra></extra>",
    )  # fmt: skip
    return [p.value for _, p in placed]


def _span(values: Sequence[float]) -> list[float]:
    """From a little below 0 to a little above 1, and as far as the data go; a wild point may not flatten the rest."""
    low, high = max(min((0.0, *values)), -1.0), min(max((1.0, *values)), 2.0)
    return [low - 0.08 * (high - low), high + 0.08 * (high - low)]


# ---- profiles ---------------------------------------------------------------------------------------------------
def profiles(m: Measurement) -> tuple[Drawing, ...]:
    """Where does it persist, when does it come back? One figure for all curves that share an axis and a scale."""
    return tuple(_profile(m, curves, index) for index, curves in enumerate(panels(m.curves)))


def _profile(m: Measurement, curves: Sequence[Curve], index: int) -> Drawing:
    axis = visible(curves[0].axis, NAME)
    figure = sketch(360, showlegend=True)
    for curve in curves:
        colour = LOOKS[curve.role].colour
        _band(figure, curve.x, curve.null_lo, curve.null_hi, LOOKS["reference"].colour)
        if curve.role in ("base", "suspect", "reference", "ancestor"):
            _band(figure, curve.x, curve.lo, curve.hi, colour)
    order = ("gate", "floor", "ancestor", "reference", "base", "suspect")
    for curve in sorted(curves, key=lambda c: order.index(c.role)):
        figure.add_scatter(
            x=curve.x, y=curve.y, mode="lines+markers", line=pen(curve.role), marker=dot(curve.role, 8),
            name=LOOKS[curve.role].word, hovertemplate=f"{label(axis)} %{{x}}: %{{y:.3g}}<extra>{curve.role}</extra>",
        )  # fmt: skip
    words = next((c.unit for c in curves if c.role == "suspect"), curves[0].unit)
    figure.update_yaxes(title=label(unit(words)), zeroline=True, zerolinecolor=ZERO)
    figure.update_xaxes(title=label(axis), dtick=1 if axis == "layer" and len(curves[0].x) < 20 else None)
    alt = f"{title(m)}: profile over {axis}"
    caption = f"{title(m)} by {axis}. Shaded: pointwise 95 % intervals, in the colour of their line{null_band(curves)}."
    xs = sorted({x for c in curves for x in c.x})
    rows = [[f"{x:g}", *(_at(c, x) for c in curves)] for x in xs]
    columns = (axis, *(f"{c.role} ({unit(c.unit)})" for c in curves))
    return Drawing(f"profile-{key(m)}-{index}", figure, alt, caption, grid_of(alt, columns, rows))


def _band(figure: go.Figure, x: Sequence[float], lo: Sequence[float], hi: Sequence[float], colour: str) -> None:
    if lo and hi:
        figure.add_scatter(
            x=[*x, *reversed(x)], y=[*hi, *reversed(lo)], fill="toself", fillcolor=shade(colour, 0.15), mode="none",
            line={"width": 0}, hoverinfo="skip", showlegend=False,
        )  # fmt: skip


def _at(curve: Curve, x: float) -> str:
    if x not in curve.x:
        return "not measured"
    i = curve.x.index(x)
    ends = f" ({number(curve.lo[i])} to {number(curve.hi[i])})" if curve.lo and curve.hi else ""
    return number(curve.y[i]) + ends


# ---- one test ---------------------------------------------------------------------------------------------------
def null_of(m: Measurement) -> Drawing | None:
    """Why does this test say so? The null's density, with the suspect and the planted positive (base) as lines."""
    if isinstance(m.null, Missing) or isinstance(m.value, Missing):
        return None
    edges, heights = density(m.null)
    figure = sketch(320, showlegend=True)
    figure.add_bar(
        x=[(a + b) / 2 for a, b in zip(edges, edges[1:], strict=False)], y=heights, name="null", hoverinfo="skip",
        width=[b - a for a, b in zip(edges, edges[1:], strict=False)], marker={"color": LOOKS["floor"].colour,
                                                                               "opacity": 0.55},
    )  # fmt: skip
    lines = [("suspect", m.value)]
    if not isinstance(m.positive_control, Missing):
        lines.append(("base", m.positive_control.value))
    top = max(heights, default=1.0) * 1.08
    for role, x in lines:
        figure.add_scatter(
            x=[x, x], y=[0, top], mode="lines+markers", line=pen(role, 2.5), marker=dot(role, 9),
            name=LOOKS[role].word, hovertemplate=f"{role}: %{{x:.3g}}<extra></extra>",
        )  # fmt: skip
    figure.update_xaxes(title=label(m.unit))
    figure.update_yaxes(title="density of the null")
    ends = [quantile(m.null.quantiles, share) for share in (0.025, 0.5, 0.975)]
    alt = f"{title(m)}: the null, the suspect and base"
    caption = (
        f"Null of the {label(own_reading(m).name)}, which gives p: {visible(m.null.kind, NAME)}, {m.null.n} draws, "
        "drawn from its 101 quantiles. The number that was judged, and what it was held against, stand above."
    )
    rows = [["null, 2.5 %", number(ends[0])], ["null, median", number(ends[1])], ["null, 97.5 %", number(ends[2])],
            *([role, number(x)] for role, x in lines)]  # fmt: skip
    return Drawing(f"null-{key(m)}", figure, alt, caption, grid_of(alt, ("Mark", "Value"), rows))


def density(null: Null, bins: int = 25) -> tuple[list[float], list[float]]:
    """Bin edges and heights of a density with the mass of the quantiles: in a bin as much as they put there."""
    q = null.quantiles
    low, high = q[0], q[-1]
    if high <= low:
        return [low - 0.005, low + 0.005], [100.0]
    edges = [low + (high - low) * i / bins for i in range(bins + 1)]
    shares = [_share_below(q, edge) for edge in edges]
    heights = [(b - a) * bins / (high - low) for a, b in zip(shares, shares[1:], strict=False)]
    return edges, heights


def _share_below(quantiles: Sequence[float], x: float) -> float:
    """The share of a distribution at or below x, linear between its quantiles."""
    last = len(quantiles) - 1
    below = sum(q <= x for q in quantiles)
    if below == 0:
        return 0.0
    if below > last:
        return 1.0
    low, high = quantiles[below - 1], quantiles[below]
    return (below - 1 + (x - low) / (high - low)) / last
