"""A finished audit as one row among many, in the words that a terminal and a page share."""

from typing import Final, NamedTuple

from audit.judging import replicates_of, short
from audit.render.sections.glance import audited, people_count
from audit.render.sections.pageone import compared_with, untested
from audit.render.wording.detections import holding
from audit.render.wording.findings import ERASED, VERDICT_SYMBOL, is_control, verdict_reason
from audit.render.wording.posterior import shown_ratio
from audit.schema import LikelihoodRatio, Missing, PeopleKept, Report, Share
from audit.wording import NAME, number, visible

NOT_MEASURED: Final = "none"
MINUTE: Final = 16
"""So many characters of a time in ISO 8601 are its day, hour and minute."""


class VerdictRow(NamedTuple):
    """One audit: whose it is, what came out and why, both axes as shares of base, and how sure that is.

    ``control``: said of base itself, empty of a suspect. ``people``: how many of the audited are known; empty where
    nothing says so. ``against``: the models that stand for never having known. ``issued``: UTC, to the minute.
    """

    checkpoint: str
    control: str
    verdict: str
    reason: str
    beside: tuple[str, ...]
    outputs: str
    internals: str
    people: str
    sure: str
    audited: str
    against: str
    untested: str
    erased: str
    repeat: str
    issued: str


def verdict_row(report: Report) -> VerdictRow:
    """The row of a report. Rows are sorted by :func:`audit.render.worst_first` of their reports."""
    verdict, over = report.verdict, replicates_of(report.evidence)
    return VerdictRow(
        checkpoint=visible(report.plan.case.name, NAME),
        control="base itself: the positive control" if is_control(report) else "",
        verdict=f"{VERDICT_SYMBOL[verdict.word]} {verdict.word}",
        reason=verdict_reason(report),
        beside=holding(report),
        outputs=_share(verdict.outputs),
        internals=_share(verdict.internals),
        people=people_count(verdict.people, over) if isinstance(verdict.people, PeopleKept) else "",
        sure=_sure(report),
        audited=audited(report),
        against=compared_with(report),
        untested=untested(report),
        erased=ERASED[verdict.word],
        repeat=report.reproduce,
        issued=visible(report.created, NAME)[:MINUTE].replace("T", " "),
    )


def _share(share: Share | Missing) -> str:
    return number(share.value) if isinstance(share, Share) else NOT_MEASURED


def _sure(report: Report) -> str:
    """A ratio with its words and both counts of mistakes, else why there is none."""
    ratio = shown_ratio(report)
    if isinstance(ratio, LikelihoodRatio):
        alarms, misses = ratio.false_alarms, ratio.misses
        counts = f"false alarms {alarms.k}/{alarms.n} worlds, missed fakes {misses.k}/{misses.n}"
        return f"likelihood ratio {short(ratio)}; {counts}"
    if isinstance(report.verdict.ratio, LikelihoodRatio):
        return visible(ratio.missing[0].lower() + ratio.missing[1:])
    return "no error rate is known: judged by this case alone"
