"""What one worker of a sweep does: it opens a bench once and takes many units, so that models stay open between them.

Nothing that it raises leaves it: errors are told as plain text, since not every library's can be sent to another
process.
"""

import hashlib
import logging
import traceback
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final

from audit.engine.sweeping.tasks import Outcome, Task
from audit.schema import AuditError, ExitCode

if TYPE_CHECKING:
    from audit.bench import Bench
    from audit.engine.sweeping.shared_reads import SharedReads
    from audit.engine.sweeping.suspects import Suspect
    from audit.planning import RunSettings, Watch

TRIED: Final = 3
"""By so many suspects' cases it is tried to open what they share."""
log = logging.getLogger(__name__)


class Worker:
    """Performs units one after another. torch is imported with the first of them."""

    def __init__(self, settings: "RunSettings") -> None:
        self.settings = settings
        self._bench: Bench | None = None
        self._shared: tuple[str, SharedReads] | None = None

    def perform(self, task: Task, watch: "Watch") -> Outcome:
        """Perform a unit. Only an interruption is raised; a wish to stop this one run is an outcome."""
        from audit.runs import Cancelled

        try:
            return self._read(task) if task.kind == "shared" else self._audit(task, watch)
        except AuditError as error:
            return Outcome(task.name, what=error.what, do=error.do, code=error.code)
        except Cancelled:
            do = "the same command takes it up"
            return Outcome(task.name, what="it was cancelled", do=do, code=ExitCode.INTERRUPTED)
        except Exception as error:
            # A broad except: what breaks in one suspect's audit costs that audit, never the sweep, and is never silent.
            what = f"{type(error).__name__}: {error}"
            error_id = hashlib.sha256(what.encode(errors="replace")).hexdigest()[:8]
            log.error("the audit of %s broke, error %s\n%s", task.name, error_id, traceback.format_exc())
            do = f"run it alone with --debug and report what it prints (error {error_id})"
            return Outcome(task.name, what=what, do=do, code=ExitCode.INTEGRITY)

    def _audit(self, task: Task, watch: "Watch") -> Outcome:
        from audit.case import CaseFile
        from audit.engine.runner import run

        bench = self.bench()
        bench.halvings = 0  # each report tells of its own
        self._shared = None
        report = run(CaseFile(task.suspect.case, task.suspect.root), task.out, self.settings, bench, watch)
        return Outcome(task.name, verdict=report.verdict.word, report_id=report.report_id)

    def _read(self, task: Task) -> Outcome:
        name = task.suspect.shared
        if self._shared is None or self._shared[0] != name:
            self._shared = name, self._opened([task.suspect, *task.alike][:TRIED], task.out)
        self._shared[1].read(task.role)
        return Outcome(task.name)

    def _opened(self, alike: "Sequence[Suspect]", out: Path) -> "SharedReads":
        """What these suspects share, by the first of their cases that can be opened."""
        from audit.case import CaseFile
        from audit.engine.runner import prepare
        from audit.engine.sweeping.shared_reads import SharedReads

        for suspect in alike[:-1]:
            with suppress(AuditError):
                return SharedReads.of(prepare(CaseFile(suspect.case, suspect.root), out, self.settings, self.bench()))
        last = CaseFile(alike[-1].case, alike[-1].root)
        return SharedReads.of(prepare(last, out, self.settings, self.bench()))

    def bench(self) -> "Bench":
        """The bench of this worker, whose store waits for what another worker is computing."""
        from audit.planning import make_bench

        if self._bench is None:
            self._bench = make_bench(self.settings)
            if self._bench.store is not None:
                self._bench.store.waits = True
        return self._bench
