"""What the audits of several suspects of one base read alike: the passes of base, references and ancestor."""

from typing import NamedTuple, Self

from audit.case import OpenCase
from audit.engine.roles import audited, taking_part
from audit.engine.runner import Prepared
from audit.planning import Planner
from audit.probing import check_recall
from audit.schema import Checkpoint


class SharedReads(NamedTuple):
    """A case whose roles were audited, as every run of it audits them, with the planner of what is then read."""

    prepared: Prepared
    judged: OpenCase
    planner: Planner

    @classmethod
    def of(cls, prepared: Prepared) -> Self:
        """Audit the roles and base's recall; nothing is written but to the store. AuditError as of a run."""
        case, bench = prepared.case, prepared.bench
        records = audited(bench, case, "", None).roles
        check_recall(bench, taking_part(case, records, undisputed=True))
        judged = taking_part(case, records)
        return cls(prepared, judged, prepared.planner.on(judged))

    def read(self, role: str) -> int:
        """Put into the store all that the probes want of the checkpoint in a role (:attr:`Suspect.roles_shared`), one
        pass for its rows; how many passes those are, none where the role takes no part."""
        wanted = _checkpoint(self.prepared.case, role).key
        passes = 0
        for fetch in self.planner.fetches(self.planner.running):
            checkpoint = self.judged.checkpoint(fetch.role, fetch.reference)
            if fetch.role != "suspect" and checkpoint.key == wanted:
                self.prepared.bench.run(checkpoint, self.judged.rows(fetch.texts), list(fetch.reads))
                passes += 1
        return passes


def _checkpoint(case: OpenCase, role: str) -> Checkpoint:
    name, _, number = role.partition(" ")
    if name == "reference":
        return case.checkpoint("reference", int(number))
    return case.checkpoint("ancestor" if name == "ancestor" else "base")
