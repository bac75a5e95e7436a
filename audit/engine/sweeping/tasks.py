"""The units of a sweep and what became of them: plain values, which any process can send to any other."""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal, NamedTuple

from audit.engine.sweeping.suspects import Suspect
from audit.schema import AuditError


class Task(NamedTuple):
    """One unit of work: the audit of a suspect into ``out``, or what the audits of its kind read of one ``role``.

    ``alike``: other suspects that share it, by whose cases it can be read where this one's cannot be opened.
    """

    kind: Literal["shared", "audit"]
    suspect: Suspect
    out: Path
    role: str = ""
    alike: tuple[Suspect, ...] = ()

    @property
    def name(self) -> str:
        """How the unit is called: a suspect's name is its own, since it names its folder; no folder has a slash."""
        return self.suspect.name if self.kind == "audit" else f"{self.suspect.name}/{self.role}"


class Outcome(NamedTuple):
    """What became of an audit: its verdict and report, or what was wrong with it, what to do, and the exit code.

    ``attempts``: how many workers took it up; more than one where some of them died.
    """

    name: str
    verdict: str = ""
    report_id: str = ""
    what: str = ""
    do: str = ""
    code: int = 0
    attempts: int = 1

    @property
    def finished(self) -> bool:
        """Is there a report?"""
        return not self.what

    def error(self) -> AuditError:
        """What was wrong, as the error that a run of this suspect alone would have ended with."""
        return AuditError(self.what, self.do, self.code)


def tasks_of(suspects: Sequence[Suspect], folder: Path, share: bool) -> tuple[Task, ...]:
    """The units of a sweep into ``folder``: with ``share`` what several suspects read alike comes first, each role of
    such suspects once, then every audit."""
    alike: dict[str, list[Suspect]] = {}
    for suspect in suspects if share else ():
        alike.setdefault(suspect.shared, []).append(suspect)
    shared = (
        Task("shared", several[0], folder / several[0].name, role, tuple(several[1:]))
        for several in alike.values()
        for role in several[0].roles_shared
        if len(several) > 1
    )
    return (*shared, *(Task("audit", suspect, folder / suspect.name) for suspect in suspects))
