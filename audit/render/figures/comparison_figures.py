"""Figures over several reports of one question: which checkpoint keeps a trace, by which test, and how deep inside.

Like :mod:`audit.render.figures`: pure, with words and data. Cells that can be pointed at carry their address
(report, test, layer) as ``customdata``: a transparent marker lies over each, since a heatmap tells nobody of a click.
"""

import math
from collections.abc import Callable, Sequence
from typing import Final, Literal, NamedTuple

from plotly.colors import sample_colorscale

from audit.judging import short
from audit.render.drawings.heat_map import DIVERGING
from audit.render.figures.report_figures import INK, QUIET, Drawing, NamedReport, grid_of, key, label, sketch
from audit.render.wording.findings import OUTCOME_SYMBOL, part, title
from audit.render.wording.posterior import finding_ratio
from audit.render.wording.quantities import blindness, is_blind, judged_reading
from audit.schema import Curve, Evidence, LikelihoodRatio, Measurement, Missing, Report
from audit.wording import CELL, number, p_of, visible

Shown = Literal["ratio", "p", "value"]
MANY: Final = 300
"""More cells than this have no number written into them: there is no room, and browsers take seconds for it."""
SPENT: Final = "rgba(128,128,128,.35)"
"""The ground of a row whose suspect is INVALID: nothing in it speaks for or against a trace."""
NARROWEST: Final = 1.0
"""No ratio at all: the colour scale of log10 ratios ends here."""
SCALE: Final = DIVERGING
"""Purple (never trained) over white (no support) to orange (knows): for the colour-blind too, and no traffic light."""


class _Cell(NamedTuple):
    """What one test says of one checkpoint: a place on the colour scale (-1 never trained, 1 knows; None: nothing to
    colour), a mark, and it in words."""

    value: float | None
    mark: str
    words: str
    ran: bool


def columns(reports: Sequence[Report]) -> list[str]:
    """The tests that any of the reports planned to judge, in the order of the reports; no context, no paper mode."""
    keys = [key(e.measurement) for r in reports for e in r.evidence if _judged(e.measurement)]
    missed = [s.probe for r in reports for s in (*r.skips, *r.failures)]
    measured = dict.fromkeys(keys)
    unseen = [probe for probe in dict.fromkeys(missed) if not any(k.startswith(f"{probe}.") for k in measured)]
    return [*measured, *unseen]


def _judged(m: Measurement) -> bool:
    return m.kind != "context" and m.mode == "controlled"


def matrix(rows: Sequence[NamedReport], shown: Shown = "ratio") -> Drawing:
    """Is the content really gone? One row a checkpoint, one column a test: its outcome, and how strongly it speaks."""
    tests = columns([r.report for r in rows])
    titles = {key(e.measurement): title(e.measurement) for r in rows for e in r.report.evidence}
    names = [label(titles.get(t, t)) for t in tests]
    edge = _edge(rows)
    cells = [[_cell(r.report, t, shown, edge) for t in tests] for r in rows]
    figure = sketch(220 + 40 * len(rows), plot_bgcolor="rgba(128,128,128,.10)", margin={"r": 90, "t": 36})
    places = [(x, y, c) for y, line in enumerate(cells) for x, c in enumerate(line)]
    empty = [(x, y) for x, y, c in places if not c.ran]
    figure.add_bar(
        x=[x for x, _ in empty], y=[1] * len(empty), base=[y - 0.5 for _, y in empty], width=1, hoverinfo="skip",
        marker={"color": "rgba(0,0,0,0)", "line": {"width": 0},
                "pattern": {"shape": "/", "fgcolor": QUIET, "size": 7, "solidity": 0.15}},
    )  # fmt: skip
    broken = [y for y, r in enumerate(rows) if r.report.verdict.word == "INVALID"]
    figure.add_bar(
        x=[(len(tests) - 1) / 2] * len(broken), y=[1] * len(broken), base=[y - 0.5 for y in broken], width=len(tests),
        hoverinfo="skip", marker={"color": SPENT, "line": {"width": 0}},
    )  # fmt: skip
    figure.add_heatmap(
        z=[[c.value for c in line] for line in cells], x=list(range(len(tests))), y=list(range(len(rows))), zmin=-1,
        zmax=1, colorscale=[list(stop) for stop in SCALE], xgap=2, ygap=2, hoverinfo="skip", showscale=False,
    )  # fmt: skip
    figure.add_scatter(
        x=[x for x, _, _ in places], y=[y for _, y, _ in places], mode="markers+text",
        text=[c.mark.replace(" ", "<br>") for _, _, c in places],
        textfont={"color": [_ink(c) for _, _, c in places], "size": 11},
        marker={"size": 30, "opacity": 0, "symbol": "square"}, hoverinfo="none",
        customdata=[[rows[y].address, tests[x], c.words] for x, y, c in places],
        hovertemplate="%{customdata[2]}<extra></extra>",
    )  # fmt: skip
    figure.update_xaxes(tickvals=list(range(len(tests))), ticktext=[_wrapped(n) for n in names], side="top",
                        tickangle=-65, showgrid=False, zeroline=False, range=[-0.5, len(tests) - 0.5])  # fmt: skip
    figure.update_yaxes(tickvals=list(range(len(rows))), ticktext=[_row_name(r) for r in rows], showgrid=False,
                        zeroline=False, range=[len(rows) - 0.5, -0.5])  # fmt: skip
    alt = f"{len(rows)} checkpoints by {len(tests)} tests: outcome and strength of each"
    top = f"{edge:.1f}"
    effect = "an overall effect or the largest over layers, 0 never trained, 1 base"
    caption = {
        "ratio": f"Number: log₁₀ likelihood ratio. Its colour scale goes from −{top} (never trained) over 0 to +{top} "
                 f"(knows), the most that these calibrations allow. In brackets, where no ratio is known: {effect}; "
                 "coloured from white (0) to orange (1).",
        "p": "Number: p against the null of a model that never knew. No colour: p is no strength of evidence.",
        "value": f"Number: {effect}. Colour, where the test decides: from white (0) to orange (1).",
    }[shown]  # fmt: skip
    caption += " ▲ trace found, ▼ below never trained, ● no trace found, ◆ inconclusive, – and hatched: not run. "
    caption += "An effect that is undecided, or below never trained, has no colour. "
    caption += "Grey rows: INVALID suspects, whose silence means nothing; nothing in them is coloured."
    data = [[r.name, *(c.words.rpartition("<br>")[2] for c in line)] for r, line in zip(rows, cells, strict=True)]
    heads = ("Checkpoint", *(titles.get(t, visible(t)) for t in tests))
    return Drawing("matrix", figure, alt, caption, grid_of(alt, heads, data))


def _row_name(row: NamedReport) -> str:
    """A checkpoint's name; an invalid one says so in its row."""
    return label(row.name, 40) + (" (INVALID)" if row.report.verdict.word == "INVALID" else "")


class Paint(NamedTuple):
    """A cell of the matrix without its drawing: what stands in it, its ground and its ink (CSS; "": the page's)."""

    mark: str
    ground: str
    ink: str


def painted(rows: Sequence[NamedReport], shown: Shown = "ratio") -> list[list[Paint]]:
    """The cells of a :func:`matrix` by row, for a view that draws them itself."""
    tests = columns([r.report for r in rows])
    edge = _edge(rows)
    cells = [_cell(r.report, t, shown, edge) for r in rows for t in tests]
    shares = [0.5 if c.value is None else (max(-1.0, min(1.0, c.value)) + 1) / 2 for c in cells]
    grounds = sample_colorscale([list(stop) for stop in SCALE], shares)
    spent = [SPENT if r.report.verdict.word == "INVALID" else "" for r in rows for _ in tests]
    paints = iter(
        Paint(c.mark, grey, "") if c.value is None else Paint(c.mark, str(ground), _on(c.value, 1.0))
        for c, ground, grey in zip(cells, grounds, spent, strict=True)
    )
    return [[next(paints) for _ in tests] for _ in rows]


def _edge(rows: Sequence[NamedReport]) -> float:
    """The largest log10 ratio, for either side, that the worlds behind any of these reports support."""
    ratios = [e.ratio for r in rows for e in r.report.evidence if isinstance(e.ratio, LikelihoodRatio)]
    return max((abs(math.log10(end)) for ratio in ratios for end in (ratio.floor, ratio.ceiling)), default=NARROWEST)


def _cell(report: Report, test: str, shown: Shown, edge: float) -> _Cell:
    evidence = next((e for e in report.evidence if key(e.measurement) == test), None)
    if evidence is None:
        return _Cell(None, "–", f"{label(test)}<br>{label(_why_not(report, test.partition('.')[0]), CELL)}", ran=False)
    m, value, digits = evidence.measurement, None, ""
    if m.kind == "gate":
        digits = "" if isinstance(m.value, Missing) else f"{m.value:.2f}"
    elif shown == "ratio" and isinstance(ratio := finding_ratio(evidence), LikelihoodRatio):
        digits, value = f"{math.log10(ratio.value):+.1f}".replace("-", "−"), math.log10(ratio.value) / edge
    elif shown == "p":
        digits = "" if isinstance(m.p, Missing) else p_of(m).removeprefix("p ").removeprefix("= ")
    else:
        digits, value = _effect(evidence)
        digits = f"({digits})" if digits and shown == "ratio" else digits
    value = None if report.verdict.word == "INVALID" else value
    words = f"{label(title(m))}<br>{label(_words(evidence), CELL)}"
    return _Cell(value, f"{_symbol(evidence)} {digits}".strip(), words, ran=True)


def _effect(e: Evidence) -> tuple[str, float | None]:
    """The judged effect in digits, and as a place on the colour scale where the test decides and does not lie below."""
    judged = judged_reading(e).value
    if isinstance(judged, Missing) or is_blind(e):
        return "", None
    decided = e.outcome in ("trace found", "no trace found") and e.direction != "below"
    return _short(judged), min(max(judged, 0.0), 1.0) if decided else None


def _short(effect: float) -> str:
    """An effect in a cell: two decimals, without the nought before them."""
    if abs(effect) >= 10:
        return "over 10" if effect > 0 else "below −10"
    digits = f"{effect:.2f}".removeprefix("-").removeprefix("0")
    return "0" if digits == ".00" else f"{'−' if effect < 0 else ''}{digits}"


def _symbol(e: Evidence) -> str:
    if e.measurement.kind == "gate":
        return "✕" if part(e) == "gate failed" else "✓"
    return "▼" if e.direction == "below" else OUTCOME_SYMBOL[e.outcome]


def _words(e: Evidence) -> str:
    shown, reading = finding_ratio(e), judged_reading(e)
    ratio = f", likelihood ratio {short(shown)}" if isinstance(shown, LikelihoodRatio) else ""
    number_shown = blindness(e.measurement) if is_blind(e) else f"{reading.name} {number(reading.value)}"
    return f"{part(e)}, {number_shown}{ratio}"


def _why_not(report: Report, probe: str) -> str:
    for skip in report.skips:
        if skip.probe == probe:
            return f"not run: {skip.reason}"
    for failure in report.failures:
        if failure.probe == probe:
            return f"failed: {failure.error} (error id {failure.error_id})"
    return "not part of this audit's plan"


def _ink(cell: _Cell) -> str:
    """Text that can be read on the cell: on white and pale colours dark, on dark ones white, elsewhere the page's."""
    if cell.value is None:
        return INK
    return _on(cell.value, 1.0)


def _on(value: float, edge: float) -> str:
    return "#ffffff" if abs(value) > 0.72 * edge else "#16191d"


def _wrapped(name: str) -> str:
    """``probe: name`` on two lines."""
    return name.replace(": ", ":<br>", 1)


# ---- where in the network ---------------------------------------------------------------------------------------
class Depth(NamedTuple):
    """A test over layers: how far the suspect lies above a model that never knew, and where that says nothing."""

    x: tuple[float, ...]
    above: tuple[float, ...]
    silent: tuple[bool, ...]


def depth(m: Measurement) -> Depth | None:
    """The suspect's curve over layers minus that of a model that never knew; None where either was not measured.

    A layer is silent where the interval of the suspect reaches that of the reference, or its value lies in the null
    band.
    """
    by_role = {c.role: c for c in m.curves if c.axis == "layer" and c.x}
    suspect, control = by_role.get("suspect"), by_role.get("reference") or by_role.get("ancestor")
    if suspect is None:
        return None
    if control is None or control.x != suspect.x:
        if not suspect.null_lo or not suspect.null_hi:
            return None
        middle = [(a + b) / 2 for a, b in zip(suspect.null_lo, suspect.null_hi, strict=True)]
        within = [a <= y <= b for a, y, b in zip(suspect.null_lo, suspect.y, suspect.null_hi, strict=True)]
        return Depth(suspect.x, tuple(y - c for y, c in zip(suspect.y, middle, strict=True)), tuple(within))
    above = tuple(y - c for y, c in zip(suspect.y, control.y, strict=True))
    return Depth(suspect.x, above, tuple(_meet(suspect, control, i) for i in range(len(above))))


def _meet(a: Curve, b: Curve, i: int) -> bool:
    if not (a.lo and a.hi and b.lo and b.hi):
        return a.y[i] == b.y[i]
    return a.lo[i] <= b.hi[i] and b.lo[i] <= a.hi[i]


def layered(reports: Sequence[Report]) -> list[str]:
    """The tests of any report that have a depth to show."""
    return list(dict.fromkeys(key(e.measurement) for r in reports for e in r.evidence if depth(e.measurement)))


def depth_map(rows: Sequence[NamedReport], test: str) -> Drawing | None:
    """Where does it persist? One column a checkpoint, one row a layer: how far above a model that never knew."""
    measured = [(r, m) for r in rows for m in _measurements(r.report, test)]
    depths = [(r, d) for r, m in measured if (d := depth(m)) is not None]
    if not depths:
        return None
    layers = sorted({x for _, d in depths for x in d.x})
    loud = [[_at(d, x, keep=lambda d, i: not d.silent[i]) for _, d in depths] for x in layers]
    values = [[_at(d, x, keep=lambda d, i: True) for _, d in depths] for x in layers]
    top = max((abs(v) for line in loud for v in line if v is not None), default=1.0) or 1.0
    figure = sketch(130 + max(34 * len(layers), 160))
    figure.add_heatmap(
        z=loud, x=list(range(len(depths))), y=list(range(len(layers))), zmin=-top, zmax=top, xgap=2, ygap=2,
        colorscale=[list(stop) for stop in SCALE], hoverinfo="skip", colorbar={"title": {"text": "above<br>never"}},
    )  # fmt: skip
    spots = [(x, y) for y in range(len(layers)) for x in range(len(depths)) if values[y][x] is not None]
    figure.add_scatter(
        x=[x for x, _ in spots], y=[y for _, y in spots], mode="markers" if len(spots) > MANY else "markers+text",
        text=["" if loud[y][x] is None else number(loud[y][x] or 0.0) for x, y in spots],
        textfont=None if len(spots) > MANY else {"color": [_on(loud[y][x] or 0.0, top) for x, y in spots], "size": 11},
        marker={"size": 30, "opacity": 0, "symbol": "square"},
        customdata=[[depths[x][0].address, test, layers[y], label(depths[x][0].name, 40)] for x, y in spots],
        hovertemplate="%{customdata[3]}, layer %{customdata[2]}: %{text}<extra></extra>",
    )  # fmt: skip
    figure.update_xaxes(tickvals=list(range(len(depths))), ticktext=[label(r.name, 40) for r, _ in depths], side="top",
                        tickangle=-40, showgrid=False, zeroline=False, range=[-0.5, len(depths) - 0.5])  # fmt: skip
    figure.update_yaxes(tickvals=list(range(len(layers))), ticktext=[f"{x:g}" for x in layers], title="layer",
                        showgrid=False, zeroline=False, range=[-0.5, len(layers) - 0.5])  # fmt: skip
    name = title(measured[0][1])
    alt = f"{name}: {len(depths)} checkpoints by {len(layers)} layers"
    caption = (
        "Colour and number: the suspect's reading minus that of a model that never knew. Blank: not told apart from "
        "it, the 95 % intervals meet. Layer 0 is nearest to the input."
    ) + (f" More than {MANY} cells: point at one for its number, or see the data." if len(spots) > MANY else "")
    data = [[f"layer {x:g}", *("not measured" if v is None else number(v) + (" (silent)" if s is None else "")
             for v, s in zip(values[i], loud[i], strict=True))] for i, x in enumerate(layers)]  # fmt: skip
    return Drawing(f"depth-{test}", figure, alt, caption, grid_of(alt, ("Layer", *(r.name for r, _ in depths)), data))


def _measurements(report: Report, test: str) -> list[Measurement]:
    return [e.measurement for e in report.evidence if key(e.measurement) == test]


def _at(d: Depth, x: float, keep: Callable[[Depth, int], bool]) -> float | None:
    if x not in d.x:
        return None
    i = d.x.index(x)
    return d.above[i] if keep(d, i) else None
