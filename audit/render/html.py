"""Report to one static HTML file: self-contained, no script, no request, the same bytes for the same report.

Jinja escapes everything except the drawings of :mod:`audit.render.svg`, which escape their own labels. The page allows
itself nothing but inline style (content security policy), follows light or dark, and prints.
"""

from functools import cache
from typing import Final, NamedTuple

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape

from audit.findings import Evidence, Report, VerdictWord
from audit.nouns import Missing
from audit.render import svg
from audit.render.ratios import how_sure
from audit.render.sections import sections
from audit.render.wording import (
    CELL,
    NAME,
    VERDICT_MEANING,
    VERDICT_SYMBOL,
    best,
    bounds,
    bounds_told,
    moment,
    number,
    part,
    sentence,
    title,
    visible,
)

RUNGS: Final[tuple[VerdictWord, ...]] = ("INTACT", "PARTIAL", "SUPPRESSED", "CONSISTENT WITH NEVER TRAINED")
OFF_LADDER: Final[tuple[VerdictWord, ...]] = ("INCONCLUSIVE", "INVALID")
GLANCE: Final = (
    ("gate", "Is it usable?"),
    ("output", "Does it still say it?"),
    ("causal", "Can base read it inside?"),
    ("decoding", "Can its own head read it?"),
)


class Glance(NamedTuple):
    """One row of the summary on page one. ``strip`` is a drawing, or why there is none."""

    question: str
    test: str
    strip: Markup
    value: str
    ci95: str
    outcome: str


class Rung(NamedTuple):
    """One word of the ladder, and whether this report stands on it."""

    word: str
    symbol: str
    here: bool


def html(report: Report) -> str:
    """The report as one HTML document."""
    word = report.verdict.word
    return (
        _environment()
        .get_template("report.html.j2")
        .render(
            report=report,
            name=visible(report.plan.case.name, NAME),
            report_id=visible(report.report_id, NAME),
            created=moment(report.created),
            tool=visible(f"{report.tool.get('name', 'residua')} {report.plan.code_version}", NAME),
            symbol=VERDICT_SYMBOL[word],
            meaning=VERDICT_MEANING[word],
            sentence=how_sure(report),
            ladder=[Rung(w, VERDICT_SYMBOL[w], w == word) for w in RUNGS],
            off_ladder=[Rung(w, VERDICT_SYMBOL[w], w == word) for w in OFF_LADDER],
            glance=glance(report),
            untested=untested(report),
            reproduce=visible(report.reproduce, CELL),
            sections=sections(report),
        )
    )


def glance(report: Report) -> tuple[Glance, ...]:
    """The strongest finding of each kind: the four numbers that a reader takes away."""
    rows = ((question, best(report, kind)) for kind, question in GLANCE)
    return tuple(_row(question, e) for question, e in rows if e is not None)


def untested(report: Report) -> str:
    """What no test of this report speaks about: attack families and probes that were not run, in one line."""
    families = [row[0] for row in report.coverage if row[-1].startswith("not tested")]
    probes = [*(s.probe for s in report.skips), *(f.probe for f in report.failures)]
    names = dict.fromkeys(visible(x, NAME).replace("_", " ") for x in (*families, *probes))
    return ", ".join(names) or "every listed attack family was tested"


def _row(question: str, e: Evidence) -> Glance:
    m = e.measurement
    if isinstance(m.value, Missing):
        return Glance(question, title(m), escape(sentence(m.value.missing)), "missing", bounds(m), part(e))
    drawing = Markup("") if m.kind == "gate" else Markup(svg.strip(e))  # noqa: S704 - our own drawing, labels escaped
    return Glance(question, title(m), drawing, number(m.value), bounds_told(e), part(e))


@cache
def _environment() -> Environment:
    env = Environment(
        loader=PackageLoader("audit.render", "templates"), autoescape=True, undefined=StrictUndefined,
        trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True,
    )  # fmt: skip
    env.filters["drawing"] = Markup
    return env
