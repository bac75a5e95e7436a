"""The findings of each family as blocks: every test with all its numbers, the silent ones too, and a figure.

A planned test's p is adjusted by Holm over all planned tests that have one; what was not planned to decide anything is
exploratory, adjusted by Benjamini and Hochberg, and a lead at most.
"""

from collections.abc import Sequence
from typing import Final, NamedTuple

import numpy as np

from audit import stats
from audit.judging import short
from audit.render.drawings import effect_scale, svg
from audit.render.drawings.scale import Position, judged_place, median, on_effect_scale, placed
from audit.render.sections.blocks import Block, Bullets, Cell, Facts, Figure, Grid, Text
from audit.render.sections.detections import detections
from audit.render.sections.listings import listings
from audit.render.sections.readings import readings
from audit.render.wording.findings import evidence_sentence, part, row_said, sentence, title
from audit.render.wording.posterior import finding_ratio
from audit.render.wording.quantities import deciding, judged_reading, overall_reading, power_cell
from audit.schema import Curve, Evidence, Interval, Measurement, Missing, Number, Report
from audit.wording import (
    NAME,
    interval,
    least_p,
    number,
    p_of,
    p_value,
    unit,
    units,
    visible,
)

JUDGED: Final = ("output", "causal", "decoding")
PLANNED: Final = (*JUDGED, "recovery")
FAMILIES: Final = (
    ("gate", "Utility gate: is the suspect usable at all?"),
    ("output", "Outputs: does it still say it?"),
    ("causal", "States, read by base: is it still inside?"),
    ("decoding", "States, read out: does the suspect itself show it inside?"),
    ("recovery", "Recovery: does it come back under an attack?"),
    ("context", "Context: no part of the verdict"),
)


FOREST: Final = (
    "0 is the level of a model that never knew, 1 is base. Bar: the suspect's 95 % interval; stroke: the judged "
    "number. Filled: trace found; hollow: no trace found; grey: inconclusive. Thick black line: what decides. Green "
    "band: the null band, which gives p. Dashed: the floor. Neither decides where a black line stands."
)
AS_ABOVE: Final = "Bars, strokes, bands and lines as under the figure of all judged tests."


class Adjusted(NamedTuple):
    """The p of one test adjusted for all tests of its kind: how, and over how many."""

    p: float
    method: str
    tests: int


def planned(m: Measurement) -> bool:
    """Was this test planned to decide something? Everything else is exploratory."""
    return m.kind in PLANNED and m.mode == "controlled"


def adjusted(report: Report) -> dict[int, Adjusted]:
    """Adjusted p by the place of the finding in the report: planned tests by Holm, exploratory ones by BH."""
    by_place: dict[int, Adjusted] = {}
    for confirming, method, adjust in ((True, "Holm", stats.holm), (False, "BH", stats.benjamini_hochberg)):
        rows = [(i, e.measurement) for i, e in enumerate(report.evidence) if planned(e.measurement) == confirming]
        known = [(i, m.p) for i, m in rows if not isinstance(m.p, Missing)]
        values = adjust(np.array([p for _, p in known])) if known else ()
        by_place |= {i: Adjusted(float(p), method, len(known)) for (i, _), p in zip(known, values, strict=True)}
    return by_place


def _num(text: str) -> Cell:
    return Cell(text, "number")


def family(report: Report, kind: str) -> tuple[Block, ...]:
    """All that was measured of one kind: numbers, a figure, sentences, profiles, single findings, further readings."""
    adjustments = adjusted(report)
    rows = [Row(e, adjustments.get(i)) for i, e in enumerate(report.evidence) if e.measurement.kind == kind]
    return tuple(_family(rows)) if rows else (Text("No test of this kind gave a finding."),)


class Row(NamedTuple):
    """One finding, and its p adjusted for all tests of its kind, where it has one."""

    evidence: Evidence
    adjusted: Adjusted | None


def _family(rows: Sequence[Row]) -> list[Block]:
    evidence = [e for e, _ in rows]
    rowed = tuple((title(m), row_said(m)) for m in (e.measurement for e in evidence) if row_said(m))
    blocks: list[Block] = [*([Facts(rowed)] if rowed else []), *_table(rows)]
    if any(not isinstance(placed(e.measurement), Missing) for e in evidence):
        blocks.append(forest(evidence))
    blocks.append(Facts(tuple((title(e.measurement), evidence_sentence(e)) for e in evidence)))
    blocks += detections(evidence)
    blocks += [_profile(e.measurement, i) for e in evidence for i in range(len(svg.panels(e.measurement.curves)))]
    above = {words for _, words in rowed}
    every = dict.fromkeys(sentence(n) for e in evidence for n in e.measurement.notes)
    notes = tuple(note for note in every if note not in above)
    return [*blocks, *([Bullets(notes)] if notes else []), *listings(evidence), *readings(evidence)]


def _table(rows: Sequence[Row]) -> tuple[Block, ...]:
    """The numbers, and under them why some are missing: a reason is told once."""
    methods = sorted({a.method for _, a in rows if a is not None})
    p = f"p ({' or '.join(methods)})" if methods else "p"
    n = "n scored / errored / unscored, units"
    evidence = [e for e, _ in rows]
    one_scale = all(on_effect_scale(e.measurement) for e in evidence)
    layers = any(overall_reading(e.measurement) is not None for e in evidence)
    columns = _columns(one_scale, layers, any(e.status != "listed" for e in evidence))
    kind = rows[0].evidence.measurement.kind.capitalize()
    caption = f"{kind}: 1 measurement" if len(rows) == 1 else f"{kind}: {len(rows)} measurements"
    if one_scale:
        caption += " on the effect scale: 0 is never trained, 1 is base"
    reasons: dict[str, str] = {}
    by_column = [_finding(e, a, reasons) for e, a in rows]
    cells = [tuple(row[c] for c in columns) for row in by_column]
    if any(e.basis == "calibrated" for e in evidence):
        columns = (*columns, "Likelihood ratio (95 %)")
        cells = [(*row, _num(short(finding_ratio(e)))) for row, e in zip(cells, evidence, strict=True)]
    grid = Grid(caption, tuple(_heading(c, p, n, layers) for c in columns), tuple(cells))
    return (
        (grid, Bullets(tuple(f"{mark}: {reason}" for reason, mark in reasons.items()), plain=True))
        if reasons
        else (grid,)
    )


def _columns(one_scale: bool, layers: bool, judged: bool) -> tuple[str, ...]:
    """Which columns a family needs: both ends off the effect scale only, an overall effect where there are layers."""
    ends = () if one_scale else ("Never trained", "Base")
    return ("Test", "Outcome", "own", *(("overall",) if layers else ()), *ends,
            *(("Judged by, against", "Detection limit") if judged else ()), "p", "n")  # fmt: skip


def _heading(column: str, p: str, n: str, layers: bool) -> str:
    first = "Largest over layers, or the one effect (95 %)" if layers else "Suspect (95 %)"
    return {"own": first, "overall": "Overall effect (95 %)", "p": p, "n": n}.get(column, column)


def _finding(e: Evidence, adjustment: Adjusted | None, reasons: dict[str, str]) -> dict[str, Cell]:
    m, decides, total = e.measurement, deciding(e), overall_reading(e.measurement)

    def shown(value: Number | Interval, words: str) -> Cell:
        if not isinstance(value, Missing):
            return _num(words)
        reason = sentence(value.missing)
        return _num(reasons.setdefault(reason, f"missing ({chr(ord('a') + len(reasons) % 26)})"))

    null = m.null if isinstance(m.null, Missing) else median(m.null)
    control = m.positive_control if isinstance(m.positive_control, Missing) else m.positive_control.value
    suspect = number(m.value) + ("" if on_effect_scale(m) else f" {unit(m.unit)}")
    p = p_of(m).removeprefix("p = ").removeprefix("p ")
    if adjustment is not None:
        p += f" ({p_value(adjustment.p, least_p(m)).removeprefix('p = ').removeprefix('p ')})"
    if not isinstance(m.ci95, Missing) or m.ci95 != m.value:
        suspect += f" ({interval(m.ci95)})"
    if row_said(m) and isinstance(m.value, float):
        suspect = f"row {m.value:g}"
    against = decides.words if decides.at is None and not _held(e) else f"{judged_reading(e).name}: {decides.words}"
    return {
        "Test": Cell(title(m), "wide"), "Outcome": Cell(part(e), "mark"), "own": shown(m.value, suspect),
        "overall": _num("–" if total is None else total.shown), "Never trained": shown(null, number(null)),
        "Base": shown(control, number(control)), "Judged by, against": Cell(against, "wide"),
        "Detection limit": _num("–" if m.kind == "gate" or e.status == "listed" else power_cell(m)),
        "p": shown(m.p, p), "n": _num(f"{m.n.scored} / {m.n.errored} / {m.n.unscored}, {units(m)}"),
    }  # fmt: skip


def _held(e: Evidence) -> bool:
    """Was this finding held against anything?"""
    return e.status not in ("listed", "blind", "blunt") and not isinstance(e.measurement.value, Missing)


def forest(rows: Sequence[Evidence], of: str = "") -> Figure:
    """The findings of one kind on one scale; those ``of`` several kinds under a name of their own, with a key."""
    raw = any(not on_effect_scale(e.measurement) and e.measurement.kind != "gate" for e in rows)
    data = tuple(_placed(e, p) for e in rows if not isinstance(p := judged_place(e), Missing))
    columns = ("Test", "Judged number", "On the scale", "95 %", "Null band, 95 %", "Floor", "What decides")
    gates = all(e.measurement.kind == "gate" for e in rows)
    zero = "nothing" if gates else "never trained"
    kind = rows[0].measurement.kind
    label = f"{of or kind.capitalize()}: {len(data)} test{'' if len(data) == 1 else 's'} between {zero}, 0, and base, 1"
    caption = (
        "The suspect's share of what base reads on retained items; bar: 95 % interval."
        if gates
        else FOREST
        if of
        else AS_ABOVE
    )
    if raw:
        caption += " A number on another scale is written as measured and placed between its own null and base."
    data_table = Grid(label, columns, data)
    return Figure(
        effect_scale.forest(rows, label, zero), label, caption, data_table, key="" if of else figure_key(kind)
    )


def _placed(e: Evidence, place: Position) -> tuple[Cell, ...]:
    """A row of the data behind a forest; a number on another scale is told as it was measured."""
    reading, m = judged_reading(e), e.measurement
    measured = "" if on_effect_scale(m) or m.kind == "gate" else f": {reading.shown}"
    ends = ((place.lo, place.hi), (place.null_lo, place.null_hi))
    spans = ("–" if a is None or b is None else interval(Interval(lo=a, hi=b)) for a, b in ends)
    at = deciding(e).at
    marks = ("–" if v is None else number(v) for v in (place.floor, at))
    return (Cell(title(m)), Cell(reading.name + measured), *map(_num, (number(place.value), *spans, *marks)))


def figure_key(kind: str, m: Measurement | None = None, place: int = 0) -> str:
    """What names a figure of the findings: a family's, or a profile of one of its measurements."""
    return kind if m is None else f"{kind} {m.probe}.{m.name} {m.mode} {place}"


def _profile(m: Measurement, place: int) -> Figure:
    curves = svg.panels(m.curves)[place]
    axis = visible(curves[0].axis, NAME)
    label = f"{title(m)}: profile over {axis}"
    caption = f"{title(m)} by {axis}. Shaded: pointwise 95 % intervals, in the colour of their line{null_band(curves)}."
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
    data, key = Grid(label, columns, tuple(rows)), figure_key(m.kind, m, place)
    return Figure(svg.profile(curves, label), label, caption, data, folded, key)


def null_band(curves: Sequence[Curve]) -> str:
    """What a drawn null band is, for a caption; nothing where there is none."""
    return "; in green round 0 the null band, pointwise" if any(c.null_lo and c.null_hi for c in curves) else ""


def _at(curve: Curve, x: float) -> str:
    if x not in curve.x:
        return "not measured"
    i = curve.x.index(x)
    ends = f" ({number(curve.lo[i])} to {number(curve.hi[i])})" if curve.lo and curve.hi else ""
    return number(curve.y[i]) + ends
