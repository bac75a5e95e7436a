"""A finished report written elsewhere: as one file whose ending names the format, or all of it into a folder."""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from audit.runs.printing import printed
from audit.runs.report_file import documents
from audit.schema import AuditError, Report
from audit.storage import write_atomic


class Wanted(NamedTuple):
    """What a reader asked for beyond the report itself: live figures, and the posterior of his own prior odds."""

    interactive: bool = False
    prior_odds: float | None = None


def export(report: Report, target: Path, wanted: Wanted) -> int:
    """Write the report; how many files that were. AuditError (code 2) for a format that there is not."""
    if target.is_dir() or not target.suffix:
        files = _everything(report, wanted)
        for name, data in files.items():
            write_atomic(target / name, data)
        return len(files)
    write_atomic(target, _rendered(report, target, wanted))
    return 1


def _everything(report: Report, wanted: Wanted) -> dict[str, bytes]:
    from audit.render import sheets

    files = documents(report, wanted.prior_odds)
    files |= {f"sheets/{name}": text.encode() for name, text in sheets(report, wanted.prior_odds).items()}
    if wanted.interactive:
        from audit.render import interactive

        files["interactive.html"] = interactive(report, wanted.prior_odds).encode()
    return files


def _rendered(report: Report, target: Path, wanted: Wanted) -> bytes:
    """The report in the format that the ending of a file name asks for."""
    from audit.render import ENDINGS, html, interactive, junit, markdown

    writers: dict[str, Callable[[], str | bytes]] = {
        ".html": lambda: (interactive if wanted.interactive else html)(report, wanted.prior_odds),
        ".md": lambda: markdown(report, wanted.prior_odds),
        ".json": lambda: report.model_dump_json(indent=1) + "\n",
        ".xml": lambda: junit(report),
        ".pdf": lambda: printed(html(report, wanted.prior_odds)),
    }
    if target.suffix not in writers:
        endings = ", ".join((*writers, *ENDINGS))
        raise AuditError(f"{target}: no such format", f"end the name in {endings}, or name a folder")
    if wanted.interactive and target.suffix != ".html":
        raise AuditError(f"{target}: only a page can be interactive", "end the name in .html, or name a folder")
    if wanted.prior_odds is not None and target.suffix in (".json", ".xml"):
        raise AuditError(f"{target}: a prior is the reader's, no part of this format", "end the name in .html or .md")
    written = writers[target.suffix]()
    return written if isinstance(written, bytes) else written.encode()
