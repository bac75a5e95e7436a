"""What README and documentation tell a stranger to type, typed: the README's commands with the demo as the tiny world,
and those of the documentation that look at what it left. What needs an own model is read by the real parser alone."""

import os
import re
import shlex
import subprocess
import sys
import warnings
from pathlib import Path
from typing import NamedTuple

import pytest

from audit.cli import main
from audit.cli.parser import build_parser

ROOT = Path(__file__).resolve().parents[2]
PAGES = [path.relative_to(ROOT).as_posix() for path in sorted((ROOT / "docs").glob("*.md"))]
MOST_LINES = 150
LOOKS = ("summary", "report", "verify", "compare", "probes", "edit")
"""Verbs that only look where they look at a finished run or list what there is."""


def blocks(page: str, language: str) -> list[str]:
    """The fenced blocks of a page in one language, in order."""
    text = (ROOT / page).read_text(encoding="utf-8")
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.MULTILINE | re.DOTALL)


def commands(page: str = "README.md") -> list[str]:
    """Every line of a page's sh blocks, in order."""
    return [line for block in blocks(page, "sh") for line in block.splitlines() if line.strip() and line[0] != "#"]


def only_looks(words: list[str], folder: Path) -> bool:
    """Does a command only look, at runs that lie in this folder or at what the installation has?"""
    if words[0] == "edit":
        return "--list" in words
    return words[0] in LOOKS and all((folder / word).exists() for word in words if word.startswith("runs"))


def as_run_here(command: str) -> list[str]:
    """The words of the same command, the demo's world being the tiny one."""
    if command == "make demo":
        return ["demo", "--world", "tiny"]
    words = shlex.split(command.replace("demo-s0", "tiny-s0"))
    assert words[0] == ".venv/bin/residua", f"the pages type {words[0]}, which this test cannot run"
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


def test_readme_is_short_and_loses_nobody() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert len(text.splitlines()) < MOST_LINES
    linked = set(re.findall(r"\]\((docs/[a-z-]+\.md)", text))
    assert linked | {"docs/index.md"} == set(PAGES)


def test_make_targets_of_the_pages_exist_and_demo_runs_the_demo() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    assert "$(VENV)/bin/residua demo $(ARGS)" in makefile
    for command in {each for page in ("README.md", *PAGES) for each in commands(page)}:
        if command.startswith("make "):
            assert re.search(rf"^{command.split()[1]}:", makefile, re.MULTILINE), command


@pytest.mark.parametrize("page", ["README.md", *PAGES])
def test_every_command_of_a_page_is_one_that_the_parser_knows(page: str, capsys: pytest.CaptureFixture[str]) -> None:
    parser = build_parser()
    for command in commands(page):
        if not command.startswith("make "):
            try:
                parser.parse_args(as_run_here(command))
            except SystemExit:
                pytest.fail(f"{command}\n{capsys.readouterr().err}")


@pytest.mark.thorough
@pytest.mark.usefixtures("zoo")
def test_readme_commands_work_in_the_order_they_are_given(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The demo, which does the most, in a process of its own; the others look at what it left and need none.

    The demo finds the tiny world that this session trained for all its tests. After the README's commands come those of
    the documentation that look at what the demo left.
    """
    monkeypatch.chdir(tmp_path)
    typed = commands()
    for command in dict.fromkeys([*typed, *(each for page in PAGES for each in commands(page))]):
        if command == "make test":
            continue
        words = as_run_here(command)
        if command not in typed and not only_looks(words, tmp_path):
            continue
        ended = in_a_process(words, tmp_path) if words[0] == "demo" else in_this_process(words, capsys)
        assert ended.code == 0, f"{command}\n{ended.shown}"
        assert "Traceback" not in ended.shown and "Warning" not in ended.shown, f"{command}\n{ended.shown}"


@pytest.mark.parametrize("name", ["README.md", "CONTRIBUTING.md", "SECURITY.md", "studies/speed/README.md"])
def test_links_of_the_pages_lead_somewhere(name: str) -> None:
    page = ROOT / name
    targets = re.findall(r"\]\((?!https?:)([^)#]+)", page.read_text(encoding="utf-8"))
    missing = [target for target in targets if not (page.parent / target).exists()]
    assert not missing
