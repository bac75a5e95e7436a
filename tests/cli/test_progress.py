"""What is shown while a verb runs: a bar to a person, a line a finished step to a log, nothing if quiet."""

import io
import json
import sys

import pytest

from audit.cli.progress import Progress
from audit.planning import Step
from audit.schema import Interval

STEPS = (Step("measure", "utility", 0, 2), Step("measured", "utility", 1, 2, finished=True))


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        return True


def shown(patch: pytest.MonkeyPatch, stream: io.StringIO, quiet: bool = False, **environment: str) -> str:
    """What reaches the stream under this environment."""
    for name in ("CI", "NO_COLOR", "FORCE_COLOR", "TTY_COMPATIBLE"):
        patch.delenv(name, raising=False)
    for name, value in {"TERM": "xterm", **environment}.items():
        patch.setenv(name, value)
    patch.setattr(sys, "stderr", stream)
    with Progress(quiet) as progress:
        for step in STEPS:
            progress.watch(step)
    return stream.getvalue()


def test_a_log_gets_one_plain_line_for_what_is_finished(monkeypatch: pytest.MonkeyPatch) -> None:
    (line,) = shown(monkeypatch, io.StringIO()).splitlines()
    assert line.endswith("s] measured utility (1/2)")
    assert "\x1b" not in line and "\r" not in line


@pytest.mark.parametrize("name", ["CI", "NO_COLOR"])
def test_a_terminal_that_asks_for_plain_text_gets_the_same(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    (line,) = shown(monkeypatch, Terminal(), **{name: "1"}).splitlines()
    assert line.endswith("s] measured utility (1/2)")
    assert "\x1b" not in line and "\r" not in line


def test_a_terminal_gets_a_bar_that_is_gone_afterwards(monkeypatch: pytest.MonkeyPatch) -> None:
    text = shown(monkeypatch, Terminal(), NO_COLOR="")
    assert "\x1b" in text and "s] measured" not in text


@pytest.mark.parametrize("stream", [io.StringIO, Terminal])
def test_quiet_is_quiet(stream: type[io.StringIO], monkeypatch: pytest.MonkeyPatch) -> None:
    assert shown(monkeypatch, stream(), quiet=True) == ""


# ---- how long it takes, and for programs ------------------------------------------------------------------------
def test_the_rest_is_told_as_a_range(monkeypatch: pytest.MonkeyPatch) -> None:
    steps = (Step("measured", "utility", 1, 2, finished=True, left=Interval(lo=90.0, hi=400.0)),)
    monkeypatch.setattr("tests.cli.test_progress.STEPS", steps)
    (line,) = shown(monkeypatch, io.StringIO()).splitlines()
    assert line.endswith("s] measured utility (1/2), about 1.5 to 6.7 min left")


def test_programs_get_every_step_as_a_line_of_json_and_nothing_else(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with Progress(quiet=True, lines=True) as progress:
        for step in (*STEPS, Step("measure", "a\nb\x1b", 1, 2, left=Interval(lo=1.04, hi=2.0))):
            progress.watch(step)
    said = capsys.readouterr()
    events = [json.loads(line) for line in said.out.splitlines()]
    assert [(e["event"], e["detail"], e["finished"]) for e in events] == [
        ("measure", "utility", False), ("measured", "utility", True), ("measure", "a\nb\x1b", False)
    ]  # fmt: skip
    assert events[2]["left_s"] == [1.0, 2.0] and "left_s" not in events[0]
    assert said.err == ""
