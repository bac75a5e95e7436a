"""What a command has to say, to people and to programs. Imports nothing heavy: every command file imports this one."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from audit.runs import run_files

if TYPE_CHECKING:
    from rich.console import RenderableType

    from audit.schema import Report

JsonValue = str | int | float | bool | None | list["JsonValue"] | dict[str, "JsonValue"]


class Answer(NamedTuple):
    """What a command has to say: one JSON object, the same for people, and the exit code.

    ``remarks`` are said on stderr beside either of them.
    """

    document: Mapping[str, JsonValue]
    shown: "tuple[RenderableType, ...]"
    exit_code: int = 0
    remarks: tuple[str, ...] = ()


def audit_document(report: "Report", out: Path) -> dict[str, JsonValue]:
    """A finished audit as part of an answer: its name, id and verdict, and where its report lies."""
    from audit.review import complete

    return {
        "name": report.plan.case.name,
        "report_id": report.report_id,
        "verdict": report.verdict.word,
        "sentence": report.verdict.sentence,
        "complete": complete(report),
        "findings": _findings(report),
        "report": str(out / run_files.REPORT),
        "html": str(out / run_files.PAGE),
    }


def _findings(report: "Report") -> list[JsonValue]:
    """What its rules of yes or no say, by name; ``holds`` is null where one could not be asked."""
    return [
        {
            "measurement": f"{e.measurement.probe}.{e.measurement.name}", "name": f.name,
            "holds": f.holds if isinstance(f.holds, bool) else None,
        }
        for e in report.evidence for f in e.measurement.findings
    ]  # fmt: skip
