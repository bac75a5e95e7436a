"""Workers of a sweep as processes of this machine: one that dies is replaced, and its unit is taken up again.

The pool of the standard library gives up whole when one of its processes is killed. Here each worker has its own pipe;
nobody else holds the other end of it, so that a worker's death is seen at once, and the end of this process by all of
them.
"""

import logging
import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager
from multiprocessing.connection import Connection, Pipe, wait
from multiprocessing.process import BaseProcess
from typing import TYPE_CHECKING, Final, NamedTuple, cast

from audit.engine.sweeping.tasks import Outcome, Task
from audit.schema import ExitCode

if TYPE_CHECKING:
    from audit.engine.sweeping.worker import Worker
    from audit.planning import RunSettings, Step, Watch

ATTEMPTS: Final = 3
"""A unit whose workers died this often is given up."""
PATIENCE_S: Final = 10.0
"""How long an interrupted worker may take to end by itself."""
CARDS: Final = "CUDA_VISIBLE_DEVICES"
log = logging.getLogger(__name__)


class Place(NamedTuple):
    """Which worker it is, by its number, how many hold models in the same memory, and at which level it logs."""

    number: int
    together: int
    level: int


Life = Callable[[Connection, Connection, "RunSettings", Place], None]
"""What a process does from its start to its end; see :func:`serve`."""


class Processes:
    """Performs units in up to ``workers`` processes. Use as a context manager: at its end no worker is left."""

    def __init__(
        self, settings: "RunSettings", workers: int, watch: "Watch", cards: Sequence[str] = (),
        life: "Life | None" = None,
    ) -> None:  # fmt: skip
        self._settings, self._workers, self._watch, self._cards = settings, workers, watch, cards
        self._life = serve if life is None else life
        self._alive: list[_Hired] = []
        self._context = multiprocessing.get_context("spawn")
        self._lifeline, self._held = Pipe(duplex=False)

    def __enter__(self) -> "Processes":
        return self

    def __exit__(self, *_: object) -> None:
        for hired in self._alive:
            if hired.process.is_alive() and hired.process.pid is not None:
                os.kill(hired.process.pid, signal.SIGINT)
        for hired in self._alive:
            hired.process.join(PATIENCE_S)
            if hired.process.is_alive():
                hired.process.kill()
                hired.process.join()
            hired.pipe.close()
        self._held.close()
        self._lifeline.close()

    def perform(self, tasks: Sequence[Task]) -> Iterator[Outcome]:
        """The outcome of every unit as they come, started in this order."""
        waiting, deaths = deque(tasks), dict[str, int]()
        while waiting or any(hired.task is not None for hired in self._alive):
            self._hand_out(waiting)
            ready = {*wait([end for hired in self._alive for end in (hired.pipe, hired.process.sentinel)])}
            for hired in [h for h in self._alive if h.pipe in ready or h.process.sentinel in ready]:
                task, message = hired.task, hired.heard()
                if isinstance(message, Outcome):
                    yield message._replace(attempts=deaths.get(message.name, 0) + 1)
                elif message is not None:
                    self._watch(message)
                elif not hired.process.is_alive():
                    yield from self._buried(hired, task, waiting, deaths)

    def _hand_out(self, waiting: deque[Task]) -> None:
        idle = [hired for hired in self._alive if hired.task is None]
        while waiting and (idle or len(self._alive) < self._workers):
            hired = idle.pop() if idle else self._hire()
            hired.give(waiting.popleft())

    def _hire(self) -> "_Hired":
        taken = {hired.place.number for hired in self._alive}
        number = next(n for n in range(self._workers) if n not in taken)
        together = -(-self._workers // max(len(self._cards), 1))
        place = Place(number, together, logging.getLogger().getEffectiveLevel())
        ours, theirs = cast("tuple[Connection, Connection]", Pipe())
        process = self._context.Process(
            target=self._life, args=(theirs, self._lifeline, self._settings, place), name=f"sweep-{number}"
        )
        with _seeing(self._cards[number % len(self._cards)] if self._cards else None), _undisturbed():
            process.start()
        theirs.close()
        self._alive.append(hired := _Hired(process, ours, place))
        return hired

    def _buried(
        self, hired: "_Hired", task: Task | None, waiting: deque[Task], deaths: dict[str, int]
    ) -> Iterator[Outcome]:
        """A dead worker leaves; its unit goes to the next one, or is given up and named."""
        self._alive.remove(hired)
        hired.process.join()
        hired.pipe.close()
        if task is None:
            return
        cause = _death(hired.process.exitcode)
        deaths[task.name] = died = deaths.get(task.name, 0) + 1
        log.warning("the worker of %s %s (%d of %d)", task.name, cause, died, ATTEMPTS)
        if died < ATTEMPTS:
            waiting.appendleft(task)
            return
        problem = f"{died} workers that had taken it up died; the last {cause}"
        do = "look into its run.log; a process killed for want of memory wants fewer workers"
        yield Outcome(task.name, problem=problem, do=do, code=ExitCode.INTEGRITY, attempts=died)


class _Hired:
    """A worker seen from here, and the unit that it has."""

    def __init__(self, process: BaseProcess, pipe: Connection, place: Place) -> None:
        self.process, self.pipe, self.place = process, pipe, place
        self.task: Task | None = None

    def give(self, task: Task) -> None:
        """Hand it a unit. To one that has just died too: its death is seen next."""
        self.task = task
        try:
            self.pipe.send(task)
        except OSError:
            log.debug("the worker for %s is gone", task.name)

    def heard(self) -> "Outcome | Step | None":
        """What it says: a step of its unit or how that ended; None where it has no more to say."""
        try:
            message = self.pipe.recv() if self.pipe.poll() else None
        except (EOFError, OSError):
            return None
        if isinstance(message, Outcome):
            self.task = None
        return message


@contextmanager
def _seeing(card: str | None) -> Generator[None]:
    """Processes that are started in here see this graphics card alone; None: those that this process sees.

    It must stand in their environment before they begin: libraries that they import may count the cards.
    """
    before = os.environ.get(CARDS)
    if card is not None:
        os.environ[CARDS] = card
    try:
        yield
    finally:
        if before is not None:
            os.environ[CARDS] = before
        elif card is not None:
            del os.environ[CARDS]


@contextmanager
def _undisturbed() -> Generator[None]:
    """Processes that are started in here are not interrupted before they allow it: half imported they cannot tell."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _death(code: int | None) -> str:
    if code is not None and code < 0:
        return f"was killed by {signal.Signals(-code).name}"
    return f"ended with exit code {code}"


def serve(pipe: Connection, lifeline: Connection, settings: "RunSettings", place: Place) -> None:
    """The life of a worker: unit after unit, until there are no more, it is interrupted, or its parent is gone."""
    os.setpgid(0, 0)  # Ctrl-C is for the parent, which then interrupts its workers one by one
    threading.Thread(target=_end_with, args=(lifeline,), daemon=True).start()
    logging.basicConfig(level=place.level, format="%(levelname)s %(message)s", force=True)
    from audit.engine import runner
    from audit.engine.sweeping.worker import Worker
    from audit.runs import guarded
    from audit.storage import hold_temporary_folder

    hold_temporary_folder()
    signal.signal(signal.SIGINT, signal.default_int_handler)
    worker = Worker(settings, place.together)
    with guarded():  # and what breaks the worker itself is logged, which the library would print as it is
        if runner.guarded("worker", "sweep", lambda: _perform_all(pipe, worker)) is not None:
            raise SystemExit(1)


def _perform_all(pipe: Connection, worker: "Worker") -> None:
    try:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
        while True:
            task = pipe.recv()
            pipe.send(worker.perform(task, lambda step, name=task.name: pipe.send(_about(step, name))))
    except (EOFError, OSError, KeyboardInterrupt):
        return


def _about(step: "Step", name: str) -> "Step":
    """A step that says whose it is, as it may be printed: what to mask in it, this process alone knows."""
    from audit.runs import printable

    return step._replace(detail=printable(f"{name} {step.detail}".strip()))


def _end_with(lifeline: Connection) -> None:
    """End this process as soon as the other end of the pipe is closed: what it writes is whole or not there."""
    try:
        lifeline.recv()
    except (EOFError, OSError):
        os._exit(ExitCode.INTERRUPTED)
