"""Edits that were started from here, as files alone tell of them: how far they are, and what they left."""

import re
from typing import NamedTuple

from pydantic import ValidationError

from audit.schema import EditSummary
from dashboards.workers import Heard, Worker

VERB, PLACE = "edit", "edited"
"""The verb that makes edits, and the folder below that of the runs in which they are suggested to lie."""
_COUNTED = re.compile(r"^(?:\[ *[\d.]+ s\] )?(opening|editing|edited) .*\((\d+)/(\d+)\)")


class Steps(NamedTuple):
    """How far an edit is: its last line, and the training steps done of how many."""

    line: str
    done: int
    total: int

    @property
    def share(self) -> float:
        """From 0 to 1."""
        return min(self.done / self.total, 1.0) if self.total else 0.0


def steps(outcome: Heard) -> Steps:
    """The last line of progress that a worker gave."""
    lines = [match for line in outcome.log.splitlines() if (match := _COUNTED.search(line.strip())) is not None]
    if not lines or lines[-1][1] == "opening":
        return Steps("Opening the case and its models", 0, 0)
    return Steps(lines[-1].string, int(lines[-1][2]), int(lines[-1][3]))


class Left(NamedTuple):
    """What a finished edit left: its summary, its folder, its case file, and the command that audits it."""

    summary: EditSummary
    folder: str
    case: str
    following: str


def left_by(outcome: Heard) -> Left | None:
    """What a finished worker answered; None where that is of another version."""
    answer = outcome.answer
    try:
        summary = EditSummary.model_validate({k: v for k, v in answer.items() if k in EditSummary.model_fields})
    except ValidationError:
        return None
    return Left(summary, *(str(answer.get(name, "")) for name in ("folder", "case_file", "next")))


def edits_of(workers: tuple[Worker, ...]) -> list[Worker]:
    """The latest edit in each folder, the newest first."""
    latest = {w.out: w for w in reversed(workers) if w.verb == VERB}
    return sorted(latest.values(), key=lambda w: w.started, reverse=True)
