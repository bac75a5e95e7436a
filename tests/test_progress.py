"""What is shown while a verb runs: a bar to a person, a line a finished step to a log, nothing if quiet."""

import io
import sys

import pytest

from audit.engine import Step
from audit.render.progress import Progress

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
