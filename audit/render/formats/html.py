"""Report to one static HTML file: self-contained, no script, no request, the same bytes for the same report.

Jinja escapes everything except our own drawings, which escape their labels. The page allows itself nothing but inline
style (content security policy), follows light or dark, and prints; a small report also carries its document, as data.
"""

import json
import re
from collections.abc import Mapping
from functools import cache
from types import MappingProxyType
from typing import Final, NamedTuple

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from audit.render.sections.blocks import letter
from audit.render.sections.glance import axes_drawing, glance
from audit.render.sections.outline import PAGE_ONE, report_sections
from audit.render.sections.pageone import first_lines, repeated
from audit.render.sections.quotes import warning
from audit.render.wording.detections import beside_verdict
from audit.render.wording.findings import VERDICT_SYMBOL, meaning
from audit.schema import Report, VerdictWord
from audit.wording import NAME, moment, visible

RUNGS: Final[tuple[VerdictWord, ...]] = ("INTACT", "PARTIAL", "SUPPRESSED", "CONSISTENT WITH NEVER TRAINED")
POLICY: Final = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"
EMBEDDED: Final = 300_000
OFF_LADDER: Final[tuple[VerdictWord, ...]] = ("INCONCLUSIVE", "INVALID")


class Rung(NamedTuple):
    """One word of the ladder, and whether this report stands on it."""

    word: str
    symbol: str
    here: bool


class Live(NamedTuple):
    """What makes figures answer to a pointer: a library, and the figures by their key. Nothing in a static page."""

    library: str = ""
    figures: Mapping[str, str] = MappingProxyType({})


STATIC: Final = Live()


def html(report: Report, prior_odds: float | None = None, live: Live = STATIC) -> str:
    """The report as one HTML document; with the reader's ``prior_odds``, and with ``live`` figures, if given."""
    word = report.verdict.word
    chapters = report_sections(report, prior_odds)
    report_id = visible(report.report_id, NAME)
    return (
        environment()
        .get_template("report.html.j2")
        .render(
            report=report,
            name=visible(report.plan.case.name, NAME),
            report_id=report_id,
            margin_id=report_id if re.fullmatch(r"UA-[0-9a-f]{12}", report_id) else "",
            created=moment(report.created),
            tool=visible(f"{report.tool.get('name', 'residua')} {report.plan.code_version}", NAME),
            status=status(report),
            warning=warning(report),
            symbol=VERDICT_SYMBOL[word],
            meaning=meaning(report),
            axes=Markup(axes_drawing(report)),  # noqa: S704 - our own drawing, labels escaped
            beside=beside_verdict(report),
            lines=first_lines(report),
            again=visible(report.reproduce),
            files=visible(repeated(report)),
            ladder=[Rung(w, VERDICT_SYMBOL[w], w == word) for w in RUNGS],
            off_ladder=[Rung(w, VERDICT_SYMBOL[w], w == word) for w in OFF_LADDER],
            glance=glance(report),
            page_one=chapters[: len(PAGE_ONE)],
            rest=tuple(part for part in chapters[len(PAGE_ONE) :] if not part.appendix),
            appendix=[(letter(i), part) for i, part in enumerate(part for part in chapters if part.appendix)],
            policy=f"{POLICY}; script-src 'unsafe-inline'" if live.library else POLICY,
            library=live.library,
            live=live.figures,
            document=embedded(report),
        )
    )


def status(report: Report) -> str:
    """Draft or final; a derived document names its parent."""
    return f"derived from {visible(report.parent, NAME)}" if report.parent else report.status


def embedded(report: Report) -> str:
    """The document itself for the page to carry, where it is small: JSON in which no character can end the element."""
    text = json.dumps(report.model_dump(mode="json"), sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    for mark in "<>&":
        text = text.replace(mark, f"\\u{ord(mark):04x}")
    return text if len(text) <= EMBEDDED else ""


@cache
def environment() -> Environment:
    """What every page is made with: all text escaped, and no variable passed over."""
    env = Environment(
        loader=PackageLoader("audit.render", "templates"), autoescape=True, undefined=StrictUndefined,
        trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True,
    )  # fmt: skip
    env.filters["drawing"] = Markup
    return env
