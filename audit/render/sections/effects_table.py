"""One table of all tests: a row a measurement, by family, with what decides it and how often such a test errs.

Everything else that a measurement says stands in the appendix, family by family.
"""

from collections.abc import Iterable
from typing import Final

from audit.judging import rates_sentence
from audit.render.drawings.scale import judged_place
from audit.render.sections.blocks import Block, Bullets, Cell, Grid, Heading, Text
from audit.render.sections.detections import detection_grid
from audit.render.sections.findings import FAMILIES, PLANNED, Adjusted, adjusted, forest
from audit.render.sections.glance import axes_blocks
from audit.render.wording.findings import part, row_said, sentence, spoken, title
from audit.render.wording.quantities import (
    LARGEST,
    ONE,
    OVERALL,
    deciding,
    is_blind,
    judged_reading,
    judged_shown,
    power_cell,
)
from audit.schema import Evidence, LikelihoodRatio, Missing, Report
from audit.wording import least_p, p_value

COLUMNS: Final = (
    "Test", "Judged number (95 %)", "Outcome", "What decides", "False alarms", "Missed fakes", "Detection limit",
    "p, adjusted",
)  # fmt: skip
CAPTION: Final = "All tests: 0 is never trained, 1 is base, unless a unit is named"
EXPLAINED: Final = (
    "Every measurement is listed, the silent ones too. An overall effect is over all layers; the largest is that of "
    "one layer. False alarms and missed fakes are counted in held-out worlds, for that test alone. A fake keeps quiet, "
    "so that tests of the outputs miss it. A dash: not judged, or not counted. The appendix has all numbers."
)
MOST_DRAWN: Final = 30
"""More judged tests than this are drawn by family only, in the appendix."""
SHORT: Final = {ONE: "", OVERALL: "overall ", LARGEST: "largest "}


def findings(report: Report) -> tuple[Block, ...]:
    """All tests in one table and one figure; then the two axes, who is known, and what the verdict rests on."""
    if not report.evidence:
        return (*axes_blocks(report), Text("No test gave a finding."))
    adjustments = adjusted(report)
    blocks: list[Block] = [Text(EXPLAINED), all_tests(report), Text(_adjustment(adjustments.values()))]
    judged = [e for e in report.evidence if e.measurement.kind in PLANNED and e.status != "listed"]
    if 0 < sum(not isinstance(judged_place(e), Missing) for e in judged) <= MOST_DRAWN:
        blocks.append(forest(judged, "All judged tests"))
    blocks += [*detection_grid(report.evidence), *axes_blocks(report)]
    if report.verdict.because:
        reasons = tuple(sentence(spoken(report, x)) for x in report.verdict.because if x not in _said_above(report))
        blocks += [Heading("What the verdict rests on"), Bullets(reasons)]
    return tuple(blocks)


def _said_above(report: Report) -> tuple[str, ...]:
    """What of the reasons stands elsewhere in the body: the counted mistakes of the rule."""
    ratio = report.verdict.ratio
    return (rates_sentence(ratio),) if isinstance(ratio, LikelihoodRatio) else ()


def _adjustment(adjustments: Iterable[Adjusted]) -> str:
    """How p was adjusted, and over how many tests."""
    tests = {a.method: a.tests for a in adjustments}
    return (
        f"Planned tests with a p: {tests.get('Holm', 0)}, adjusted by Holm. Exploratory ones: {tests.get('BH', 0)}, "
        "adjusted by Benjamini and Hochberg (BH). An exploratory result is a lead, not a finding. Findings are never "
        "multiplied."
    )


def all_tests(report: Report) -> Grid:
    """A row a measurement, under the question of its family."""
    adjustments = adjusted(report)
    rows: list[tuple[Cell, ...]] = []
    for kind, question in FAMILIES:
        of_kind = [(i, e) for i, e in enumerate(report.evidence) if e.measurement.kind == kind]
        if of_kind:
            rows.append((Cell(question, "group"), *(Cell("") for _ in COLUMNS[1:])))
            rows += [_row(e, adjustments.get(i)) for i, e in of_kind]
    return Grid(CAPTION, COLUMNS, tuple(rows))


def _row(e: Evidence, adjustment: Adjusted | None) -> tuple[Cell, ...]:
    m = e.measurement
    gate, judged = m.kind == "gate", e.status != "listed"
    alarms, misses = _counted(e)
    p = "–" if adjustment is None else p_value(adjustment.p, least_p(m)).removeprefix("p = ").removeprefix("p ")
    limit = power_cell(m) if judged and not gate else "–"
    decides = deciding(e).words if judged else "–"
    return (
        Cell(title(m)), _number(_value(e)), Cell(part(e), "mark"), Cell(decides), _number(alarms), _number(misses),
        _number(limit), _number(p if adjustment is None or adjustment.method == "Holm" else f"{p} (BH)"),
    )  # fmt: skip


def _number(text: str) -> Cell:
    return Cell(text, "number")


def _value(e: Evidence) -> str:
    """The judged number under its name, where that is not the one effect of the test."""
    if row_said(e.measurement) and isinstance(e.measurement.value, float):
        return f"row {e.measurement.value:g}"
    value, ci95 = judged_shown(e)
    name = judged_reading(e).name
    if is_blind(e) or not ci95 or isinstance(e.measurement.value, Missing):
        return value
    shown = f"{value} ({'no interval' if isinstance(judged_reading(e).ci95, Missing) else ci95})"
    return f"{SHORT[name]}{shown}" if name in SHORT else f"{shown}, {name}"


def _counted(e: Evidence) -> tuple[str, str]:
    """Both error counts of the calibration that judged a finding: ``0 of 60``; a dash where none did."""
    if not isinstance(e.ratio, LikelihoodRatio):
        return "–", "–"
    alarms, misses = e.ratio.false_alarms, e.ratio.misses
    return f"{alarms.k} of {alarms.n}", f"{misses.k} of {misses.n}"
