"""A report as it was issued: its id, the files that it alone gives, and how it is read back. Free of torch."""

from collections.abc import Mapping
from pathlib import Path

from pydantic import ValidationError

from audit.runs import run_files
from audit.schema import AuditError, ExitCode, Report, canonical_hash
from audit.storage import file_bytes

UNTIMED = ("report_id", "created", "registered", "timings")


def report_id(report: Report) -> str:
    """``UA-`` and 12 hex digits of the sha256 of the canonical document without its id, its date and its times."""
    return document_id(report.model_dump(mode="json"))


def document_id(document: Mapping[str, object]) -> str:
    """:func:`report_id` of the document itself, which may be of an earlier minor version of the schema."""
    content = {key: value for key, value in document.items() if key not in UNTIMED}
    return f"UA-{canonical_hash(content)[:12]}"


def documents(report: Report, prior_odds: float | None = None) -> dict[str, bytes]:
    """The files that a report alone gives, by name: byte for byte the same on every rebuild by one code version.

    ``prior_odds`` are a reader's: they are shown in the views and are no part of report.json.
    """
    from audit.render import html, junit, markdown

    texts = {
        run_files.REPORT: report.model_dump_json(indent=1) + "\n",
        run_files.PAGE: html(report, prior_odds),
        run_files.MARKDOWN: markdown(report, prior_odds),
        run_files.JUNIT: junit(report),
    }
    return {name: text.encode() for name, text in texts.items()}


def read_report(path: Path) -> Report:
    """The report in a file. AuditError (code 2) if it is not there, 3 if it cannot be read by this version."""
    if not path.is_file():
        raise AuditError(f"there is no {path}", "name the folder of a finished run")
    try:
        return Report.model_validate_json(file_bytes(path))
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise AuditError(
            f"{path} is no report of schema version 1: {where}: {first['msg']}",
            "restore the file, or open it with the version that wrote it",
            ExitCode.INTEGRITY,
        ) from None
