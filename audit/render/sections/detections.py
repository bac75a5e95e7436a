"""Rules of yes or no as blocks: a table of answers and rates, then each in words, with the string that shows it."""

from collections.abc import Sequence

from audit.render.sections.blocks import Block, Cell, Code, Facts, Grid, Text
from audit.render.wording.detections import answer, finding_facts, finding_name, rate_cell, replay
from audit.render.wording.findings import title
from audit.schema import Evidence, Finding, Measurement

COLUMNS = ("Test", "Finding", "Answer", "False alarms, exact 95 %", "Detection rate, exact 95 %")


def findings_of(rows: Sequence[Evidence]) -> tuple[tuple[Measurement, Finding], ...]:
    """Every finding with its measurement, those that hold first."""
    pairs = [(e.measurement, finding) for e in rows for finding in e.measurement.findings]
    return tuple(sorted(pairs, key=lambda pair: pair[1].holds is not True))


def detection_grid(rows: Sequence[Evidence]) -> tuple[Block, ...]:
    """The answers and both rates of every rule as a table; nothing where no measurement has a rule."""
    cells = tuple(
        (
            Cell(title(m)), Cell(finding_name(f)), Cell(answer(f), "mark" if f.holds is True else ""),
            Cell(rate_cell(f.false_alarms), "number"), Cell(rate_cell(f.hits), "number"),
        )
        for m, f in findings_of(rows)
    )  # fmt: skip
    return (Grid("Rules of yes or no: what they say, and how often they err", COLUMNS, cells),) if cells else ()


def detections(rows: Sequence[Evidence]) -> tuple[Block, ...]:
    """:func:`detection_grid`, then every finding in words, with the line that says its string again."""
    blocks: list[Block] = [*detection_grid(rows)]
    for m, finding in findings_of(rows):
        blocks += [Text(f"{finding_name(finding)}: {answer(finding)}", "lead"), Facts(finding_facts(m, finding))]
        if finding.trigger is not None and (line := replay(finding.trigger)):
            blocks.append(Code(line))
    return tuple(blocks)
