"""Report to CSV: every table that a section shows, also those behind its figures, one file each.

A cell that a spreadsheet would take for a formula is led by an apostrophe.
"""

import csv
import io
import re
from typing import Final

from audit.render.sections.blocks import Figure, Grid, Section
from audit.render.sections.outline import report_sections
from audit.schema import Report

FORMULA: Final = ("=", "+", "-", "@")


def sheets(report: Report, prior_odds: float | None = None) -> dict[str, str]:
    """CSV texts by file name: section, place in it, and what the table is about."""
    return {
        f"{section.id}-{place:02}-{_slug(grid.caption)}.csv": _csv(grid)
        for section in report_sections(report, prior_odds)
        for place, grid in enumerate(_grids(section), 1)
    }


def _grids(section: Section) -> list[Grid]:
    shown = (block.data if isinstance(block, Figure) else block for block in section.blocks)
    return [block for block in shown if isinstance(block, Grid)]


def _slug(text: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", text.lower())[:48].strip("-") or "table"


def _csv(grid: Grid) -> str:
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([_cell(c) for c in grid.columns])
    writer.writerows([_cell(cell.text) for cell in row] for row in grid.rows)
    return text.getvalue()


def _cell(text: str) -> str:
    return f"'{text}" if text.startswith(FORMULA) else text
