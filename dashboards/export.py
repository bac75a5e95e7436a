"""The report in the forms that can be taken along: pure functions of it, the same bytes as the command line writes."""

import io
import zipfile
from collections.abc import Callable
from typing import Final, NamedTuple

from audit.render import html, interactive, junit, markdown, sheets
from audit.runs import documents
from audit.schema import Report

EPOCH: Final = (1980, 1, 1, 0, 0, 0)
"""The oldest time that a zip can state: the same report gives the same bytes whenever it is packed."""


class Format(NamedTuple):
    """One form: what it is for, the end of its file name, its type, and who writes it."""

    label: str
    about: str
    ending: str
    mime: str
    write: Callable[[Report], bytes]


def packed(report: Report) -> bytes:
    """Document, pages and sheets in one zip."""
    files = documents(report) | {f"sheets/{name}": text.encode() for name, text in sheets(report).items()}
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in sorted(files.items()):
            archive.writestr(zipfile.ZipInfo(name, EPOCH), data, zipfile.ZIP_DEFLATED)
    return out.getvalue()


FORMATS: Final = {
    f.label: f
    for f in (
        Format("HTML", "One static page: no script, no request, prints.", ".html", "text/html",
               lambda r: html(r).encode()),
        Format("HTML, interactive", "The same page with figures that answer to a pointer.", ".html", "text/html",
               lambda r: interactive(r).encode()),
        Format("JSON", "The document itself, which every view reads.", ".json", "application/json",
               lambda r: (r.model_dump_json(indent=1) + "\n").encode()),
        Format("Markdown", "For an issue or a pull request.", ".md", "text/markdown", lambda r: markdown(r).encode()),
        Format("JUnit", "Planned tests as cases, for continuous integration.", ".xml", "application/xml",
               lambda r: junit(r).encode()),
        Format("Zip", "Document, pages and a sheet (CSV) a table.", ".zip", "application/zip", packed),
    )
}  # fmt: skip
