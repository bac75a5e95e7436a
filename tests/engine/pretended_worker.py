"""A worker of a sweep without a model, which starts at once: it does with a unit what the suspect's name says."""

import os
import signal
from multiprocessing.connection import Connection
from typing import NamedTuple

from audit.engine.sweeping.processes import CARDS, Place
from audit.engine.sweeping.tasks import Outcome, Task


class Said(NamedTuple):
    """What a worker says of a unit: the suspect, the worker's number, and the graphics card that it sees."""

    detail: str
    number: int
    card: str | None


def pretended(pipe: Connection, lifeline: Connection, settings: object, place: Place) -> None:
    """``deadly`` kills every worker, ``once`` the first that takes it up; every other name is audited."""
    del lifeline, settings
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
    while True:
        try:
            task: Task = pipe.recv()
        except (EOFError, KeyboardInterrupt):
            return
        seen = task.out.with_suffix(".seen")
        if task.name == "deadly" or (task.name == "once" and not seen.exists()):
            seen.parent.mkdir(parents=True, exist_ok=True)
            seen.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        pipe.send(Said(task.name, place.number, os.environ.get(CARDS)))
        pipe.send(Outcome(task.name, verdict="INTACT"))
