"""What one worker of a sweep does: it opens a bench once and takes many units, so that models stay open between them.

Nothing that it raises leaves it: errors are told as plain text, since not every library's can be sent to another
process.
"""

from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final

from audit.engine.sweeping.tasks import Outcome, Task
from audit.schema import AuditError, Checkpoint, ExitCode

if TYPE_CHECKING:
    from audit.bench import Bench
    from audit.engine.sweeping.shared_reads import SharedReads
    from audit.engine.sweeping.suspects import Suspect
    from audit.planning import RunSettings, Watch

TRIED: Final = 3
"""By so many suspects' cases it is tried to open what they share."""


class Worker:
    """Performs units one after another, beside so many workers that hold models in the same memory, itself counted.

    torch is imported with the first unit.
    """

    def __init__(self, settings: "RunSettings", together: int = 1) -> None:
        self.settings, self._together = settings, together
        self._bench: Bench | None = None
        self._shared: tuple[str, SharedReads] | None = None

    def perform(self, task: Task, watch: "Watch") -> Outcome:
        """Perform a unit. Only an interruption is raised; a wish to stop this one run is an outcome, and what is said
        of it quotes no text of the data, which this process alone has read."""
        from audit.engine.runner import guarded
        from audit.runs import Cancelled, printable

        work = self._read if task.kind == "shared" else self._audit
        try:
            result = guarded(task.name, "sweep", lambda: work(task, watch))
        except AuditError as error:
            return Outcome(task.name, problem=printable(error.what), do=printable(error.do), code=error.code)
        except Cancelled:
            do = "the same command takes it up"
            return Outcome(task.name, problem="it was cancelled", do=do, code=ExitCode.INTERRUPTED)
        if isinstance(result, Outcome):
            return result
        do = f"audit it alone with --debug and report what that prints (failure {result.error_id})"
        return Outcome(task.name, problem=printable(result.error), do=do, code=ExitCode.INTEGRITY)

    def _audit(self, task: Task, watch: "Watch") -> Outcome:
        from audit.case import CaseFile
        from audit.engine.auditing import run

        self._shared = None
        report = run(CaseFile(task.suspect.case, task.suspect.root), task.out, self.settings, self.bench, watch)
        return Outcome(task.name, verdict=report.verdict.word, report_id=report.report_id)

    def _read(self, task: Task, _: "Watch") -> Outcome:
        name = task.suspect.shared
        if self._shared is None or self._shared[0] != name:
            self._shared = None
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
                return SharedReads.of(prepare(CaseFile(suspect.case, suspect.root), out, self.settings, self.bench))
        last = CaseFile(alike[-1].case, alike[-1].root)
        return SharedReads.of(prepare(last, out, self.settings, self.bench))

    def bench(self, settings: "RunSettings", models: "Sequence[Checkpoint]") -> "Bench":
        """The bench for these models, with those of earlier units still open where it is the same, else let go; what it
        counts starts anew, since each report tells of its own. Its store waits for what another worker is computing."""
        from audit.planning import make_bench

        bench, earlier = make_bench(settings, models), self._bench
        if earlier is not None and (earlier.settings, earlier.pool.placement) == (bench.settings, bench.pool.placement):
            bench = earlier
        self._bench = bench
        bench.halvings = 0
        bench.pool.opened.clear()
        bench.pool.processes = self._together
        if bench.store is not None:
            bench.store.waits = True
        return bench
