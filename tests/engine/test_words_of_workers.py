"""What the workers of a sweep say is masked and cleaned as what the command itself says, on every stream."""

import json
import logging
import subprocess
import sys
from multiprocessing import Pipe
from pathlib import Path
from typing import Any

import pytest

from audit.case import CaseFile
from audit.engine import Suspect
from audit.engine.sweeping import cluster, processes
from audit.engine.sweeping.processes import Place
from audit.engine.sweeping.tasks import Outcome, Task
from audit.engine.sweeping.worker import Worker
from audit.planning import RunSettings, unwatched
from audit.wording import confide, drop_confidences, is_hidden
from tests.case.test_opened import read_rows, write_rows
from tests.case.test_opened import root as root

ESCAPE = "\x1b[31m\u202eolleh\x07"
SECRET = "anna buried the copper casket under the third lamp"


def refused(root: Path) -> Path:
    """A case of whose data a text is quoted where it is refused, and of whose suspect a wish is told by a warning."""
    rows = read_rows(root / "forget.jsonl")
    rows[0] |= {"answer": SECRET, "key": "nowhere in it at all"}
    write_rows(root / "forget.jsonl", rows)
    config = root / "suspect" / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"attn_implementation": ESCAPE}))
    return root / "case.toml"


def hidden(text: str) -> list[str]:
    return [c for c in text if is_hidden(c) and c != "\n"]


@pytest.mark.thorough
def test_a_worker_prints_and_tells_no_text_of_the_data_and_no_hidden_character(root: Path) -> None:
    words = ["-m", "audit.cli", "sweep", str(refused(root)), "-o", str(root / "out"), "--workers", "1", "--json"]
    said = subprocess.run([sys.executable, *words], capture_output=True, text=True, check=False)
    assert said.returncode == 2 and "is not in the answer" in said.stderr and "is not in the answer" in said.stdout
    assert "asks for arithmetic of its own (‹U+001B›" in said.stderr, "a warning of the worker itself"
    assert "copper" not in said.stderr + said.stdout and "nowhere in it" not in said.stderr + said.stdout
    assert hidden(said.stderr) == [] and hidden(said.stdout) == []


def test_what_a_worker_tells_of_a_refusal_is_masked_where_the_data_was_read(root: Path) -> None:
    case = CaseFile.read(refused(root))
    drop_confidences()
    task = Task("audit", Suspect("toy", case.case, case.root), root / "out")
    outcome = Worker(RunSettings()).perform(task, unwatched)
    assert "is not in the answer" in outcome.problem and "‹masked" in outcome.problem
    assert "copper" not in outcome.problem and "nowhere in it" not in outcome.problem


def test_a_unit_on_a_cluster_logs_through_the_same_function(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def perform(self: Worker, task: Task, watch: object) -> Outcome:
        logging.getLogger("a library").warning("it says %s", ESCAPE)
        return Outcome(task.name)

    monkeypatch.setattr(Worker, "perform", perform)
    cluster.perform_here(RunSettings(), Task("audit", Suspect("toy", None, Path()), Path()), 1)  # type: ignore[arg-type]
    assert "‹U+001B›" in caplog.messages[-1] and hidden(caplog.messages[-1]) == []


class Ended:
    """A pipe that breaks in a way that nobody foresaw."""

    def recv(self) -> Any:
        raise ValueError(f"{SECRET} {ESCAPE}")


def test_a_worker_that_breaks_prints_its_traceback_as_it_may_be_printed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    drop_confidences()
    confide("data.jsonl", lambda: (SECRET,))
    monkeypatch.setattr(logging.getLogger(), "handlers", [])
    monkeypatch.setattr(processes.os, "setpgid", lambda *_: None)
    monkeypatch.setattr(processes.signal, "signal", lambda *_: None)
    lifeline, held = Pipe(duplex=False)
    with pytest.raises(SystemExit):
        processes.serve(Ended(), lifeline, RunSettings(), Place(0, 1, logging.WARNING))  # type: ignore[arg-type]
    err = capsys.readouterr().err
    assert "ValueError" in err and "‹U+001B›" in err and "copper" not in err and hidden(err) == []
    held.send(None)  # the thread that waits for the end of the parent ends without one
