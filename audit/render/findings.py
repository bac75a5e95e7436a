"""The findings and their controls, as blocks: every test with its numbers, also the silent ones, and two figures."""

import re
from collections.abc import Sequence
from typing import Final

from audit.findings import Curve, Evidence, Interval, Measurement, Number, Report
from audit.nouns import Missing
from audit.render import svg
from audit.render.blocks import Block, Bullets, Cell, Facts, Figure, Grid, Heading, Text
from audit.render.ratios import short
from audit.render.scale import median, on_effect_scale, position, quantile
from audit.render.wording import (
    CELL,
    NAME,
    detection_limit,
    evidence_sentence,
    interval,
    number,
    p_value,
    part,
    sentence,
    title,
    unit,
    units,
    visible,
)

JUDGED: Final = ("output", "causal", "decoding")
FAMILIES: Final = (
    ("gate", "Utility gate: is the suspect usable at all?"),
    ("output", "Outputs: does it still say it?"),
    ("causal", "States, read by base: is it still inside?"),
    ("decoding", "States, read by the suspect's own head"),
    ("recovery", "Recovery: does it come back under an attack?"),
    ("context", "Context: listed for comparison, never judged"),
)


def _num(text: str) -> Cell:
    return Cell(text, "number")


def findings(report: Report) -> tuple[Block, ...]:
    """One figure over all judged tests, then family by family: numbers, sentences, profiles, further readings."""
    if not report.evidence:
        return (Text("No test gave a finding."),)
    blocks: list[Block] = []
    placed = [e for e in report.evidence if e.measurement.kind in JUDGED and e.measurement.mode == "controlled"]
    if any(not isinstance(position(e.measurement), Missing) for e in placed):
        blocks.append(_forest(placed))
    for kind, heading in FAMILIES:
        rows = [e for e in report.evidence if e.measurement.kind == kind]
        if rows:
            blocks += [Heading(heading), *_family(rows)]
    return tuple(blocks)


def _family(rows: Sequence[Evidence]) -> list[Block]:
    blocks: list[Block] = [*_table(rows)]
    blocks.append(Facts(tuple((title(e.measurement), evidence_sentence(e)) for e in rows)))
    blocks += [_profile(e.measurement, c) for e in rows for c in _panels(e.measurement)]
    notes = tuple(dict.fromkeys(sentence(n) for e in rows for n in e.measurement.notes))
    blocks += [Bullets(notes)] if notes else []
    readings = _readings(rows)
    return [*blocks, readings] if readings.rows else blocks


def _table(rows: Sequence[Evidence]) -> tuple[Block, ...]:
    """The numbers, and under them why some are missing: a reason is told once."""
    n = "n scored / errored / unscored"
    columns = ("Test", "Outcome", "Suspect", "95 %", "Never trained", "Base", "p", n, "Units")
    caption = "1 measurement" if len(rows) == 1 else f"{len(rows)} measurements"
    if all(on_effect_scale(e.measurement) for e in rows):
        caption += " on the effect scale: 0 is never trained, 1 is base"
    reasons: dict[str, str] = {}
    cells = [_finding(e, reasons) for e in rows]
    if any(e.basis == "calibrated" for e in rows):
        columns = (*columns, "Likelihood ratio")
        cells = [(*row, _num(short(e.ratio))) for row, e in zip(cells, rows, strict=True)]
    grid = Grid(caption, columns, tuple(cells))
    return (grid, Bullets(tuple(f"{mark}: {why}" for why, mark in reasons.items()), plain=True)) if reasons else (grid,)


def _finding(e: Evidence, reasons: dict[str, str]) -> tuple[Cell, ...]:
    m = e.measurement

    def shown(value: Number | Interval, words: str) -> Cell:
        if not isinstance(value, Missing):
            return _num(words)
        why = sentence(value.missing)
        return _num(reasons.setdefault(why, f"missing ({chr(ord('a') + len(reasons) % 26)})"))

    null = m.null if isinstance(m.null, Missing) else median(m.null)
    control = m.positive_control if isinstance(m.positive_control, Missing) else m.positive_control.value
    suspect = number(m.value) + ("" if on_effect_scale(m) else f" {unit(m.unit)}")
    return (
        Cell(title(m)), Cell(part(e), "mark"), shown(m.value, suspect), shown(m.ci95, interval(m.ci95)),
        shown(null, number(null)), shown(control, number(control)), shown(m.p, p_value(m.p).removeprefix("p = ")),
        _num(f"{m.n.scored} / {m.n.errored} / {m.n.unscored}"), _num(units(m)),
    )  # fmt: skip


def _readings(rows: Sequence[Evidence]) -> Grid:
    found = tuple(
        (Cell(title(e.measurement)), Cell(visible(k, CELL).replace("_", " ")), _num(number(v)))
        for e in rows
        for k, v in sorted(e.measurement.readings.items(), key=_natural)
    )
    return Grid("Further readings of these tests", ("Test", "Reading", "Value"), found, folded=True)


def _forest(rows: Sequence[Evidence]) -> Figure:
    data: list[tuple[Cell, ...]] = []
    for e in rows:
        place = position(e.measurement)
        if not isinstance(place, Missing):
            marks = (place.value, place.lo, place.hi, place.null_lo, place.null_hi, place.floor)
            shown = (_num("not measured" if v is None else number(v)) for v in marks)
            data.append((Cell(title(e.measurement)), *shown))
    columns = ("Test", "Position", "95 % low", "95 % high", "Null 2.5 %", "Null 97.5 %", "Floor")
    label = f"All {len(data)} judged tests between never trained, 0, and base, 1"
    caption = (
        "Every judged test on one scale: 0 is the level of a model that never knew, 1 is base. Square: suspect "
        "(filled: trace found; hollow: no trace found; grey: inconclusive); bar: 95 % interval; band: null; dashed "
        "tick: floor."
    )
    return Figure(svg.forest(rows, label), label, caption, Grid(label, columns, tuple(data)))


def _panels(m: Measurement) -> list[list[Curve]]:
    """Curves that share an axis and a scale make one figure; everything between about 0 and 1 is one scale."""
    found: dict[tuple[str, str], list[Curve]] = {}
    for c in m.curves:
        if c.x:
            found.setdefault((c.axis, "share" if svg.bounded(c.unit) else c.unit), []).append(c)
    return list(found.values())


def _profile(m: Measurement, curves: Sequence[Curve]) -> Figure:
    axis = visible(curves[0].axis, NAME)
    label = f"{title(m)}: profile over {axis}"
    caption = f"{title(m)} by {axis}. Shaded: pointwise 95 % intervals, in the colour of their line."
    hidden = svg.outside(curves)
    if hidden:
        caption += f" {hidden} points lie outside the frame, drawn at its edge; the table has their values."
    xs = sorted({x for c in curves for x in c.x})
    rows: list[tuple[Cell, ...]] = []
    for x in xs:
        cells = [_num(_at(c, x)) for c in curves]
        rows.append((Cell(f"{x:g}"), *cells))
    columns = (axis, *(f"{c.role} ({unit(c.unit)})" for c in curves))
    folded = m.form != "trained" or m.kind == "context"
    return Figure(svg.profile(curves, label), label, caption, Grid(label, columns, tuple(rows)), folded)


def _at(curve: Curve, x: float) -> str:
    if x not in curve.x:
        return "not measured"
    i = curve.x.index(x)
    ends = f" ({number(curve.lo[i])} to {number(curve.hi[i])})" if curve.lo and curve.hi else ""
    return number(curve.y[i]) + ends


def _natural(pair: tuple[str, float]) -> list[tuple[int, str]]:
    """Sorts layer 2 before layer 10."""
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", pair[0])]


def controls(report: Report) -> tuple[Block, ...]:
    """Of every judged test: what base reads, what a model that never knew reads, and what a silence is worth."""
    rows: list[tuple[Cell, ...]] = []
    judged = [e for e in report.evidence if e.measurement.kind in JUDGED and e.measurement.mode == "controlled"]
    for e in judged:
        m = e.measurement
        control = m.positive_control
        if isinstance(control, Missing):
            base = f"missing ({visible(control.missing, CELL)})"
        else:
            base = f"{number(control.value)} ({interval(control.ci95)}), {'found' if control.found else 'not found'}"
        if isinstance(m.null, Missing):
            null = f"missing ({visible(m.null.missing, CELL)})"
        else:
            ends = f"{number(quantile(m.null.quantiles, 0.025))} to {number(quantile(m.null.quantiles, 0.975))}"
            null = f"{ends}: {visible(m.null.kind, NAME)}, {m.null.n} draws"
        worth = "Not silent: a trace was found." if e.outcome == "trace found" else detection_limit(m)
        rows.append((Cell(title(m)), _num(base), _num(null), _num(number(m.floor)), Cell(worth)))
    if not rows:
        return ()
    columns = ("Test", "Positive control: base", "Null, 95 % of draws", "Floor", "What a silence is worth")
    return (
        Text(
            "A test counts only where the same statistic finds the knowledge in base (positive control). The floor is "
            "the effect of one unaudited reference against another."
        ),
        Grid("Controls of every judged test", columns, tuple(rows)),
    )
