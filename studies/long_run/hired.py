"""Workers that may be killed, and audits that are asked for until they are done."""

import os
import queue
import signal
import subprocess
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Final

TRIES: Final = 8
KILLED, ENDED = "killed", "ended"


class Hired:
    """A worker process; one that was killed is replaced when the next audit is asked for."""

    def __init__(self, words: Sequence[str], environment: dict[str, str], log: Path) -> None:
        self._words, self._environment, self._log = tuple(words), environment, log
        self._process: subprocess.Popen[str] | None = None
        self._answers: queue.Queue[str] = queue.Queue()

    def ask(self, suspect: int, folder: Path) -> None:
        """Hand over one audit; :meth:`answer` tells what became of it."""
        if self._process is None:
            self._start()
        assert self._process is not None and self._process.stdin is not None
        try:
            self._process.stdin.write(f"{suspect} {folder}\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            return  # killed before it was asked: the end of its answers says so

    def _start(self) -> None:
        with self._log.open("ab") as log:
            process = subprocess.Popen(
                [sys.executable, *self._words], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True,
                env={**os.environ, **self._environment},
            )  # fmt: skip
        assert process.stdout is not None
        if process.stdout.readline() != "ready\n":
            raise RuntimeError(f"no worker can be started; see {self._log}")
        self._process, self._answers = process, queue.Queue()
        threading.Thread(target=_listen, args=(process.stdout, self._answers), daemon=True).start()

    def answer(self) -> str | None:
        """What became of the audit in hand; None while it goes on."""
        try:
            answer = self._answers.get_nowait()
        except queue.Empty:
            return None
        if answer == ENDED and self._process is not None:
            self._process.communicate()
            answer = KILLED if self._process.returncode == -signal.SIGKILL else f"broke; see {self._log.name}"
            self._process = None
        return answer

    def kill(self) -> None:
        """End the process without a word (SIGKILL)."""
        if self._process is not None:
            self._process.kill()

    def leave(self) -> None:
        """Let the process end by itself."""
        if self._process is not None and self._process.stdin is not None:
            self._process.stdin.close()
            self._process.wait(120)
            if self._process.stdout is not None:
                self._process.stdout.close()
            self._process = None


def _listen(lines: IO[str], answers: queue.Queue[str]) -> None:
    for line in lines:
        answers.put(line.strip())
    answers.put(ENDED)


class InHand:
    """One audit of a round: begun, and taken up again whenever it ended before it was done."""

    def __init__(self, worker: Hired, suspect: int, folder: Path) -> None:
        self.worker, self.suspect, self.folder = worker, suspect, folder
        self.answers: list[str] = []
        worker.ask(suspect, folder)

    @property
    def over(self) -> bool:
        """Is it done, or was it tried too often?"""
        return bool(self.answers) and (self.answers[-1] == "done" or len(self.answers) >= TRIES)

    @property
    def refused(self) -> bool:
        """Did it end in an error the last time?"""
        return bool(self.answers) and self.answers[-1].startswith("refused")

    def look(self) -> None:
        """Hear what became of it, and ask again where it is not done."""
        answer = None if self.over else self.worker.answer()
        if answer is not None:
            self.answers.append(answer)
            if not self.over:
                self.worker.ask(self.suspect, self.folder)
