"""Progress on stderr: a bar on a terminal, a line a finished step elsewhere (no TTY, CI, NO_COLOR), none if quiet.

For programs every step is one JSON object a line on stdout (``--jsonl``), quiet or not.
"""

import os
import sys
import time
from types import TracebackType
from typing import Protocol, Self

from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, TaskID, TextColumn, TimeElapsedColumn
from rich.progress import Progress as Bar

from audit.cli import streams
from audit.schema import Interval
from audit.wording import lasting


class Stepped(Protocol):
    """A step of the engine, as far as it is shown."""

    @property
    def stage(self) -> str:
        """What is being done."""
        ...

    @property
    def detail(self) -> str:
        """To what."""
        ...

    @property
    def done(self) -> int:
        """How many are done."""
        ...

    @property
    def total(self) -> int:
        """Of how many."""
        ...

    @property
    def finished(self) -> bool:
        """Is the step done, or about to be?"""
        ...

    @property
    def left(self) -> Interval | None:
        """How many seconds the rest takes, where that is known."""
        ...


class Progress:
    """Shows steps while a command runs. Use as a context manager."""

    def __init__(self, quiet: bool = False, lines: bool = False) -> None:
        plain = not sys.stderr.isatty() or any(os.environ.get(name) for name in ("CI", "NO_COLOR"))
        self._console = streams.console(soft_wrap=True)
        self._quiet, self._bar, self._task, self._lines = quiet, None, TaskID(0), lines
        self._started = time.monotonic()
        if not quiet and not plain:
            self._bar = Bar(
                TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(),
                console=self._console, transient=True,
            )  # fmt: skip

    def __enter__(self) -> Self:
        if self._bar is not None:
            self._bar.start()
            self._task = self._bar.add_task("starting", total=None)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if self._bar is not None:
            self._bar.stop()

    def watch(self, step: Stepped) -> None:
        """Show one step."""
        if self._lines:
            self._line(step)
        text = streams.printable(f"{step.stage} {step.detail}".strip())
        if step.left is not None:
            text += f", about {lasting(*step.left.ends)} left"
        if self._bar is not None:
            self._bar.update(self._task, description=escape(text), completed=step.done, total=step.total)
        elif step.finished:
            # A log is read and not watched: one line for what is done, and none for what is about to be.
            line = f"{step.stage} {step.detail}".strip() + f" ({step.done}/{step.total})"
            self.say(line + (f", about {lasting(*step.left.ends)} left" if step.left is not None else ""))

    def _line(self, step: Stepped) -> None:
        event = {
            "event": step.stage, "detail": step.detail, "done": step.done, "total": step.total,
            "finished": step.finished, "at_s": round(time.monotonic() - self._started, 3),
        }  # fmt: skip
        left = {} if step.left is None else {"left_s": [round(end, 1) for end in step.left.ends]}
        with streams.unread():
            print(streams.json_line({**event, **left}))

    def say(self, text: str) -> None:
        """One plain line, with the seconds since the start."""
        if self._quiet:
            return
        self._console.print(
            f"[{time.monotonic() - self._started:6.1f} s] {streams.printable(text)}", markup=False, highlight=False
        )
