"""What the README tells a stranger to type, typed: every command but ``make test``, the demo as the tiny world."""

import os
import re
import subprocess
import sys
import warnings
from pathlib import Path
from typing import NamedTuple

import pytest

from audit.cli import main

ROOT = Path(__file__).resolve().parents[2]


def commands() -> list[str]:
    """Every line of the README's sh blocks, in order."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    blocks = re.findall(r"^```sh\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    return [line for block in blocks for line in block.splitlines() if line.strip() and not line.startswith("#")]


def as_run_here(command: str) -> list[str]:
    """The words of the same command, the demo's world being the tiny one."""
    if command == "make demo":
        return ["demo", "--world", "tiny"]
    words = command.replace("demo-s0", "tiny-s0").split()
    assert words[0] == ".venv/bin/residua", f"the README types {words[0]}, which this test cannot run"
    return words[1:]


class Ended(NamedTuple):
    """How a command ended, and everything that it showed."""

    code: int
    shown: str


def in_a_process(words: list[str], folder: Path) -> Ended:
    """As a stranger types it: a fresh interpreter, whose imports warn if they do."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "audit.cli", *words]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    return Ended(done.returncode, done.stdout[-3000:] + done.stderr)


def in_this_process(words: list[str], capsys: pytest.CaptureFixture[str]) -> Ended:
    """The same without a new interpreter; warnings are shown as a new one would show them."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("default")
        for silent in (DeprecationWarning, PendingDeprecationWarning, ImportWarning, ResourceWarning):
            warnings.simplefilter("ignore", silent)
        code = main(words)
    captured = capsys.readouterr()
    return Ended(code, captured.out[-3000:] + captured.err + "".join(map(str, caught)))


def test_readme_names_the_two_commands() -> None:
    assert {"make demo", "make test"} <= set(commands())


def test_make_targets_of_the_readme_exist_and_demo_runs_the_demo() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    assert "$(VENV)/bin/residua demo $(ARGS)" in makefile
    for command in commands():
        if command.startswith("make "):
            assert re.search(rf"^{command.split()[1]}:", makefile, re.MULTILINE), command


@pytest.mark.thorough
@pytest.mark.usefixtures("zoo")
def test_readme_commands_work_in_the_order_they_are_given(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The demo, which does the most, in a process of its own; the others look at what it left and need none.

    The demo finds the tiny world that this session trained for all its tests.
    """
    monkeypatch.chdir(tmp_path)
    for command in commands():
        if command == "make test":
            continue
        words = as_run_here(command)
        ended = in_a_process(words, tmp_path) if words[0] == "demo" else in_this_process(words, capsys)
        assert ended.code == 0, f"{command}\n{ended.shown}"
        assert "Traceback" not in ended.shown and "Warning" not in ended.shown, f"{command}\n{ended.shown}"


@pytest.mark.parametrize("name", ["README.md", "CONTRIBUTING.md", "SECURITY.md", "studies/speed/README.md"])
def test_links_of_the_pages_lead_somewhere(name: str) -> None:
    page = ROOT / name
    targets = re.findall(r"\]\((?!https?:)([^)#]+)", page.read_text(encoding="utf-8"))
    missing = [target for target in targets if not (page.parent / target).exists()]
    assert not missing
