"""The report in the forms that can be taken along: pure functions of it, the same bytes as the run wrote."""

from collections.abc import Callable
from typing import Final, NamedTuple

from audit.findings import Report
from audit.render.html import html
from audit.render.markdown import markdown


class Format(NamedTuple):
    """One form: what it is for, the end of its file name, its type, and who writes it."""

    label: str
    about: str
    ending: str
    mime: str
    write: Callable[[Report], str]


def _json(report: Report) -> str:
    return report.model_dump_json(indent=1) + "\n"


FORMATS: Final = {
    f.label: f
    for f in (
        Format("HTML", "One static page: no script, no request, prints.", ".html", "text/html", html),
        Format("JSON", "The document itself, which every view reads.", ".json", "application/json", _json),
        Format("Markdown", "For an issue or a pull request.", ".md", "text/markdown", markdown),
    )
}


def written(report: Report, chosen: Format) -> bytes:
    """The report in one form."""
    return chosen.write(report).encode()
