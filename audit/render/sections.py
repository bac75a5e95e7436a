"""The sections of a report, in their order, as blocks: the one place that says what every view shows.

Page one answers four questions: gone or not, how sure, what was not tested, how to repeat it. Every planned test is
listed with its numbers, the silent ones too.
"""

import re
from collections.abc import Sequence
from typing import Final, get_args

from audit.findings import Curve, Evidence, Measurement, Report
from audit.nouns import Cohort, Missing
from audit.render import svg
from audit.render.blocks import Block, Bullets, Cell, Code, Facts, Figure, Grid, Heading, Section, Text
from audit.render.reference import GLOSSARY, PROPOSITIONS
from audit.render.wording import (
    CELL,
    NAME,
    bounds,
    detection_limit,
    evidence_sentence,
    interval,
    median,
    number,
    on_effect_scale,
    p_value,
    part,
    position,
    quantile,
    sentence,
    size,
    title,
    unit,
    units,
    verdict_sentence,
    visible,
)

FAMILIES: Final = (
    ("gate", "Utility gate: is the suspect usable at all?"),
    ("output", "Outputs: does it still say it?"),
    ("causal", "States, read by base: is it still inside?"),
    ("decoding", "States, read by the suspect's own head"),
    ("context", "Context: listed for comparison, never judged"),
)


def sections(report: Report) -> tuple[Section, ...]:
    """All sections that the report has content for, in the order of the printed document."""
    found = (
        Section("question", "Question and propositions", _question(report)),
        Section("conclusion", "Conclusion", _conclusion(report)),
        Section("items", "Items received and integrity", _items(report)),
        Section("method", "Method and decision rule", _method(report)),
        Section("findings", "Findings", _findings(report)),
        Section("controls", "Controls and detection limits", _controls(report)),
        Section("not-run", "Not run and failed", _not_run(report)),
        Section("coverage", "Coverage", _coverage(report)),
        Section("reproduction", "Reproduction", _reproduction(report)),
        Section("glossary", "Glossary", (Facts(GLOSSARY),)),
    )
    return tuple(s for s in found if s.blocks)


def _name(text: str) -> Cell:
    return Cell(visible(text, CELL))


def _code(text: str) -> Cell:
    return Cell(visible(text, CELL), "code")


def _num(text: str) -> Cell:
    return Cell(text, "number")


# ---- question, conclusion ---------------------------------------------------------------------------------------
def _question(report: Report) -> tuple[Block, ...]:
    case = report.plan.case
    edited = case.edited if isinstance(case.edited, str) else f"{len(case.edited)} named items"
    told = {"all": "the whole forget set", "unknown": "an unknown part of the forget set"}.get(edited, edited)
    counts = [f"{visible(k, NAME)}: {_counts(report.cohorts[k])}" for k in sorted(report.cohorts, key=_cohort_order)]
    return (
        Text(
            "What is left, in the suspect checkpoint, of the forget set F that it was asked to forget, and how sure "
            "can that be?"
        ),
        Facts((*PROPOSITIONS, ("What the edit saw", sentence(f"the suspect was edited on {told}")))),
        Bullets(tuple(counts)),
    )


def _counts(counts: dict[str, int]) -> str:
    return ", ".join(f"{v} {visible(k, NAME).replace('_', ' ')}" for k, v in sorted(counts.items()))


def _cohort_order(name: str) -> tuple[int, str]:
    order = get_args(Cohort)
    return (order.index(name) if name in order else len(order), name)


def _natural(pair: tuple[str, float]) -> list[tuple[int, str]]:
    """Sorts layer 2 before layer 10."""
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", pair[0])]


def _conclusion(report: Report) -> tuple[Block, ...]:
    verdict = report.verdict
    ran = len({e.measurement.probe for e in report.evidence})
    planned = len({t.probe for t in report.plan.tests})
    scope = (
        f"{ran} of {planned} planned tests gave findings. This speaks only about the files listed under Items received "
        "and the attacks listed as tested under Coverage."
    )
    limits = tuple(dict.fromkeys(sentence(x) for x in (*verdict.limits, *report.limits)))[:5]
    blocks: list[Block] = [Text(verdict_sentence(verdict), "lead")]
    blocks.append(Bullets(tuple(sentence(x) for x in verdict.because)))
    blocks.append(Text(f"Strength of the verdict: {verdict.strength}. Basis: {verdict.basis}. {scope}"))
    blocks += [Heading("Limits"), Bullets(limits)]
    if verdict.would_change:
        blocks += [Heading("What would change it"), Bullets(tuple(sentence(x) for x in verdict.would_change))]
    return tuple(blocks)


# ---- items, method ----------------------------------------------------------------------------------------------
def _items(report: Report) -> tuple[Block, ...]:
    rows = tuple(
        (
            _name(x.role), _code(x.path), _name(x.family), _num(size(x.size_bytes)), _code(x.fingerprint),
            Cell("before and after" if x.verified_after else "before only"),
        )
        for x in report.exhibits
    )  # fmt: skip
    files = tuple(
        (_name(x.role), _code(name), _code(digest)) for x in report.exhibits for name, digest in sorted(x.files.items())
    )
    data = tuple((_name(name), _code(digest)) for name, digest in sorted(report.plan.data_sha256.items()))
    columns = ("Role", "Path", "Family", "Size", "Fingerprint (SHA-256)", "Verified")
    blocks: list[Block] = [
        Text("Nothing is said about copies or derivatives of these files. Forget-set text is not part of this report."),
        Grid("Checkpoints received", columns, rows),
    ]
    if files:
        blocks.append(Grid("Files of the checkpoints", ("Role", "File", "SHA-256"), files, folded=True))
    if data:
        blocks.append(Grid("Data files", ("Cohort", "SHA-256"), data))
    return tuple(blocks)


def _method(report: Report) -> tuple[Block, ...]:
    plan = report.plan
    rows = tuple(
        (
            Cell(visible(t.probe, NAME).replace("_", " ")), _name(t.question), Cell("yes" if t.will_run else "no"),
            Cell(visible(t.reason, CELL) if t.reason else ("" if t.will_run else "no reason is recorded")),
            _num(f"{t.cost.fwd_tokens:,}".replace(",", " ")),
        )
        for t in plan.tests
    )  # fmt: skip
    return (
        Text("The tests, their settings and the decision rule were fixed before anything was measured."),
        Facts((("Plan hash", visible(plan.plan_hash)), ("Code version", visible(plan.code_version)),
               ("Prompt template", visible(plan.case.template.prompt + plan.case.template.answer, CELL)),
               ("Split of the data", f"by {visible(plan.case.data.group, NAME)}, seed {plan.case.data.split_seed}"))),
        Grid("Planned tests", ("Test", "Question", "Run", "Reason if not", "Forward tokens"), rows),
        Heading("Decision rule"),
        Bullets(tuple(sentence(x) for x in report.decision_rule)),
    )  # fmt: skip


# ---- findings ---------------------------------------------------------------------------------------------------
def _findings(report: Report) -> tuple[Block, ...]:
    if not report.evidence:
        return (Text("No test gave a finding."),)
    blocks: list[Block] = []
    placed = [e for e in report.evidence if e.measurement.kind in ("output", "causal", "decoding")]
    if any(not isinstance(position(e.measurement), Missing) for e in placed):
        blocks.append(_forest(placed))
    for kind, heading in FAMILIES:
        rows = [e for e in report.evidence if e.measurement.kind == kind]
        if rows:
            blocks += [Heading(heading), _table(rows)]
            blocks.append(Facts(tuple((title(e.measurement), evidence_sentence(e)) for e in rows)))
            blocks += [_profile(e.measurement, c) for e in rows for c in _panels(e.measurement)]
            notes = tuple(dict.fromkeys(sentence(n) for e in rows for n in e.measurement.notes))
            blocks += [Bullets(notes)] if notes else []
            readings = _readings(rows)
            blocks += [readings] if readings.rows else []
    return tuple(blocks)


def _table(rows: Sequence[Evidence]) -> Grid:
    n = "n scored / errored / unscored"
    columns = ("Test", "Outcome", "Suspect", "95 %", "Never trained", "Base", "p", n, "Units")
    caption = f"{len(rows)} {'measurement' if len(rows) == 1 else 'measurements'}"
    if all(on_effect_scale(e.measurement) for e in rows):
        caption += " on the effect scale: 0 is never trained, 1 is base"
    return Grid(caption, columns, tuple(_finding(e) for e in rows))


def _finding(e: Evidence) -> tuple[Cell, ...]:
    m = e.measurement
    if isinstance(m.value, Missing):
        value = f"missing ({visible(m.value.missing, CELL)})"
    else:
        value = number(m.value) + ("" if on_effect_scale(m) else f" {unit(m.unit)}")
    null = m.null if isinstance(m.null, Missing) else median(m.null)
    control = m.positive_control if isinstance(m.positive_control, Missing) else m.positive_control.value
    return (
        Cell(title(m)), Cell(part(e), "mark"), _num(value),
        _num(bounds(m)), _num(_once(m, null) or number(null)),
        _num(_once(m, control) or number(control)), _num(_once(m, m.p) or p_value(m.p).removeprefix("p = ")),
        _num(f"{m.n.scored} / {m.n.errored} / {m.n.unscored}"), _num(units(m)),
    )  # fmt: skip


def _once(m: Measurement, found: object) -> str:
    """The word 'missing' alone where the reason is the one that the value gives already."""
    return "missing" if isinstance(found, Missing) and found == m.value else ""


def _readings(rows: Sequence[Evidence]) -> Grid:
    found = tuple(
        (Cell(title(e.measurement)), _name(k.replace("_", " ")), _num(number(v)))
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
    caption = f"{title(m)} by {axis}. Shaded: the suspect's pointwise 95 % interval, and the null band."
    hidden = svg.outside(curves)
    if hidden:
        caption += f" {hidden} points lie outside the frame, drawn at its edge; the table has their values."
    xs = sorted({x for c in curves for x in c.x})
    rows: list[tuple[Cell, ...]] = []
    for x in xs:
        cells = [_num(_at(c, x)) for c in curves]
        rows.append((Cell(f"{x:g}"), *cells))
    columns = (axis, *(f"{c.role} ({unit(c.unit)})" for c in curves))
    return Figure(svg.profile(curves, label), label, caption, Grid(label, columns, tuple(rows)))


def _at(curve: Curve, x: float) -> str:
    if x not in curve.x:
        return "not measured"
    i = curve.x.index(x)
    ends = f" ({number(curve.lo[i])} to {number(curve.hi[i])})" if curve.lo and curve.hi else ""
    return number(curve.y[i]) + ends


# ---- controls, not run, coverage --------------------------------------------------------------------------------
def _controls(report: Report) -> tuple[Block, ...]:
    rows: list[tuple[Cell, ...]] = []
    judged = [e.measurement for e in report.evidence if e.measurement.kind in ("output", "causal", "decoding")]
    for m in judged:
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
        rows.append((Cell(title(m)), _num(base), _num(null), _num(number(m.floor)), Cell(detection_limit(m))))
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


def _not_run(report: Report) -> tuple[Block, ...]:
    blocks: list[Block] = []
    if report.skips:
        rows = tuple((_name(s.probe), _name(s.reason), _name(s.consequence)) for s in report.skips)
        blocks.append(Grid("Not run", ("Test", "Reason", "Consequence for the conclusion"), rows))
    if report.failures:
        rows = tuple((_name(f.probe), _name(f.error), _code(f.error_id)) for f in report.failures)
        blocks.append(Grid("Failed", ("Test", "Error", "Error id, as in the log"), rows))
    return tuple(blocks) or (Text("Every planned test ran, and none failed."),)


def _coverage(report: Report) -> tuple[Block, ...]:
    rows = tuple(tuple(_name(cell) for cell in row) for row in report.coverage)
    if not rows:
        return ()
    return (
        Text("An attack that is not listed as tested is not covered by this report."),
        Grid("Attack families by access", ("Attack family", "Access", "Tested"), rows),
    )


def _reproduction(report: Report) -> tuple[Block, ...]:
    env = report.environment
    flags = ", ".join(f"{visible(k, NAME)} {visible(v, NAME)}" for k, v in sorted(env.flags.items()))
    cpu = sum(t.cpu_s for t in report.timings)
    seeds = sorted({e.measurement.seed for e in report.evidence})
    packages = ", ".join(f"{visible(k, NAME)} {visible(v, NAME)}" for k, v in sorted(env.packages.items()))
    rows = (
        ("Tool", ", ".join(f"{visible(k, NAME)} {visible(v, NAME)}" for k, v in sorted(report.tool.items()))),
        ("Python", f"{visible(env.python, NAME)}, {visible(env.platform, NAME)}"),
        ("Packages", packages),
        ("Ran on", f"{visible(env.device, NAME)}, {visible(env.dtype, NAME)}, {visible(env.backend, NAME)} backend, "
                   f"{env.threads} threads"),
        ("Flags", flags or "none"),
        ("Seeds", ", ".join(str(s) for s in seeds) or "none"),
        ("Run time", f"{number(cpu)} CPU-seconds in {len(report.timings)} units of work"),
    )  # fmt: skip
    tables = {m.path: m for m in (e.measurement.items for e in report.evidence) if not isinstance(m, Missing)}
    blocks: list[Block] = [Code(visible(report.reproduce)), Facts(rows)]
    if tables:
        listed = tuple((_code(t.path), _num(str(t.rows)), _code(t.sha256)) for _, t in sorted(tables.items()))
        blocks.append(Grid("Item tables beside this report", ("File", "Rows", "SHA-256"), listed, folded=True))
    return tuple(blocks)
