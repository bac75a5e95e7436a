"""Finished audits as one table of verdicts and reasons, worst first, and what one looks at next."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from audit.runs import run_files

if TYPE_CHECKING:
    from rich.console import RenderableType

    from audit.schema import Report


class Found(NamedTuple):
    """A finished audit and its folder."""

    report: "Report"
    folder: Path


def verdict_table(audits: Sequence[Found]) -> "tuple[RenderableType, ...]":
    """The table, then the commands that show the worst in full and all of them; nothing without audits."""
    from audit.render import path_word, table, worst_first

    if not audits:
        return ()
    ordered = sorted(audits, key=lambda each: worst_first(each.report))
    worst = ordered[0].folder
    top = worst.parent if len(audits) > 1 else worst
    return (
        table([each.report for each in ordered]),
        f"the first in full: residua report {path_word(str(worst))}, or open {worst / run_files.PAGE}",
        f"all of them in a browser: residua dashboard {path_word(str(top))}",
    )
