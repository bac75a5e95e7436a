"""Every audit of the folder as a row: found, filtered, put in order, and written as one table with a link a row.

The words of a row and the order are those of ``residua summary``. A run that has no result keeps its row and says why.
"""

from collections import Counter
from collections.abc import Sequence
from pathlib import PurePosixPath
from typing import Final, NamedTuple
from urllib.parse import urlencode

from audit.render import VERDICT_SYMBOL, VerdictRow, meaning, verdict_row, worst_first
from audit.schema import Missing, Share
from audit.wording import NAME, visible
from dashboards.runs import Run
from dashboards.vault import shown

ORDERS: Final = ("worst first", "newest first", "by name")
MOST: Final = 200
"""So many rows are drawn at once; filters reach the others."""
STATE_WORDS: Final = {
    "unfinished": "not finished", "withheld": "withheld", "foreign": "another version", "unreadable": "cannot be read",
    "too big": "too big to open",
}  # fmt: skip
HEADS: Final = (
    ("Checkpoint", "Suspect"), ("Verdict, and why", ""), ("Outputs, of base", "Outputs, internals"),
    ("Internals, of base", "Outputs, internals"), ("How sure", "Likelihood ratio"), ("Who was audited", ""),
    ("When (UTC)", ""),
)  # fmt: skip
"""What stands over each column, and the term of the glossary that explains it."""


class Audited(NamedTuple):
    """A run with the words of its row; None where it has no result."""

    run: Run
    row: VerdictRow | None

    @property
    def name(self) -> str:
        """What a search finds, and the order by name goes by."""
        return self.row.checkpoint if self.row else shown(PurePosixPath(self.run.name).name)

    @property
    def word(self) -> str:
        """Its verdict's word, or why it has none."""
        return self.run.report.verdict.word if self.run.report else STATE_WORDS[self.run.state]


def audited(runs: Sequence[Run]) -> tuple[Audited, ...]:
    """The rows of these runs."""
    return tuple(Audited(run, None if run.report is None else verdict_row(run.report)) for run in runs)


def words(rows: Sequence[Audited]) -> dict[str, int]:
    """How many rows say each word: verdicts from the one that holds the most, then why others have none."""
    counted = Counter(each.word for each in rows)
    return {word: counted[word] for word in (*VERDICT_SYMBOL, *STATE_WORDS.values()) if counted[word]}


def chosen(rows: Sequence[Audited], only: Sequence[str], search: str, order: str) -> tuple[Audited, ...]:
    """The rows with one of these words (all without any) in whose name, folder or reason all of the search stands."""
    parts = search.casefold().split()
    matching = [
        each for each in rows
        if (not only or each.word in only) and all(part in _searched(each) for part in parts)
    ]  # fmt: skip
    matching.sort(key=lambda each: (each.name, each.run.name))
    if order == "newest first":
        matching.sort(key=lambda each: each.row.issued if each.row else "", reverse=True)
    elif order == "worst first":
        matching.sort(key=_worst)
    return tuple(matching)


def _searched(each: Audited) -> str:
    reason = each.row.reason if each.row else each.run.reason
    return f"{each.name} {shown(each.run.name)} {reason} {each.word}".casefold()


def _worst(each: Audited) -> tuple[bool, int, str]:
    """What holds the most first, as everywhere; a run without a result last."""
    return worst_first(each.run.report) if each.run.report else (True, len(VERDICT_SYMBOL), each.name)


# ---- as a table -------------------------------------------------------------------------------------------------
def address(run: Run, page: str = "verdict") -> str:
    """The address of a page on this run, relative to the dashboard's own."""
    path = PurePosixPath(run.name)
    return f"{page}?{urlencode({'set': path.parent.as_posix(), 'run': path.name})}"


class Line(NamedTuple):
    """A row as its template takes it: a link and a place, then either a verdict's words or why there is none."""

    link: str
    name: str
    place: str
    word: str
    reason: str
    row: VerdictRow | None
    shares: tuple[tuple[str, str, str, int | None], ...]
    who: str
    more: tuple[tuple[str, str], ...]
    demo: bool
    meaning: str = ""


def line(each: Audited, place: bool) -> Line:
    """A row in words. ``place``: say in which folder it lies, where there are several."""
    path, row, report = PurePosixPath(each.run.name), each.row, each.run.report
    where = path.as_posix() if place else "" if path.name == each.name else path.name
    head = (address(each.run), each.name, shown(where), each.word)
    if row is None or report is None:
        return Line(*head, visible(each.run.reason), None, (), "", (), demo=False)
    axes = (("Outputs", row.outputs, report.verdict.outputs), ("Internals", row.internals, report.verdict.internals))
    shares = tuple((name, text, *_bar(share)) for name, text, share in axes)
    who = f"{row.audited}{f'; {row.people}' if row.people else ''}"
    more = (
        ("Why", row.reason), ("Compared with", row.against), ("May it be called erased?", row.erased),
        ("Not tested", row.untested), ("To repeat it", visible(row.repeat)),
    )  # fmt: skip
    return Line(*head, "", row, shares, who, more, report.demo, meaning(report))


def _bar(share: Share | Missing) -> tuple[str, int | None]:
    """Why a share is missing, and how long its bar is, in per cent; none without a number."""
    if isinstance(share, Missing):
        return visible(share.missing, NAME), None
    return "", round(100 * min(max(share.value, 0.0), 1.0))


def lines(rows: Sequence[Audited]) -> tuple[Line, ...]:
    """The rows in words."""
    several = len({PurePosixPath(each.run.name).parent for each in rows}) > 1
    return tuple(line(each, several) for each in rows)
