"""Numbers that others published, beside ours where the formula is the same: context, never judged."""

from audit.render.interchange import ours
from audit.render.sections.blocks import Block, Cell, Grid, Text
from audit.schema import Missing, Report
from audit.wording import CELL, NAME, number, visible


def published(report: Report) -> tuple[Block, ...]:
    """Every published number with ours, and what of the file was not read, or that none was given."""
    given = report.published
    if isinstance(given, Missing):
        return (Text("The case names no published numbers."),)
    own = ours(report)
    rows = tuple(
        (Cell(visible(name, CELL)), Cell(number(value), "number"), Cell(number(own[name]) if name in own else "–",
                                                                        "number"))
        for name, value in sorted(given.values.items())
    )  # fmt: skip
    source = (
        f"Read from {visible(given.file, CELL)} (sha256 {visible(given.sha256[:12], NAME)}), as the case names it. "
        "These numbers enter no test and no verdict: nothing here says which model they are of, nor on which items. "
        "Where ours stand beside them the formula is the same, and the items are the audited groups only."
    )
    missing = f" Without a number, and so not read: {', '.join(visible(n, NAME) for n in given.unread)}."
    return (
        Text(source + (missing if given.unread else "")),
        Grid("Published numbers", ("Metric", "Published", "Here"), rows),
    )
