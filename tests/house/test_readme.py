"""What the README tells a stranger to type, typed: every command but ``make test``, the demo as the tiny world."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def commands() -> list[str]:
    """Every line of the README's sh blocks, in order."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    blocks = re.findall(r"^```sh\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    return [line for block in blocks for line in block.splitlines() if line.strip() and not line.startswith("#")]


def as_run_here(command: str) -> list[str]:
    """The same command against this interpreter, the demo's world being the tiny one."""
    residua = [sys.executable, "-m", "audit.cli"]
    if command == "make demo":
        return [*residua, "demo", "--world", "tiny"]
    words = command.replace("demo-s0", "tiny-s0").split()
    assert words[0] == ".venv/bin/residua", f"the README types {words[0]}, which this test cannot run"
    return [*residua, *words[1:]]


def test_readme_names_the_two_commands() -> None:
    assert {"make demo", "make test"} <= set(commands())


def test_make_targets_of_the_readme_exist_and_demo_runs_the_demo() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    assert "$(VENV)/bin/residua demo $(ARGS)" in makefile
    for command in commands():
        if command.startswith("make "):
            assert re.search(rf"^{command.split()[1]}:", makefile, re.MULTILINE), command


def test_readme_commands_work_in_the_order_they_are_given(tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    for command in commands():
        if command == "make test":
            continue
        done = subprocess.run(
            as_run_here(command), cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, f"{command}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
        assert "Traceback" not in done.stderr and "Warning" not in done.stderr, f"{command}\n{done.stderr[-3000:]}"


@pytest.mark.parametrize("name", ["README.md", "CONTRIBUTING.md", "SECURITY.md", "studies/speed/README.md"])
def test_links_of_the_pages_lead_somewhere(name: str) -> None:
    page = ROOT / name
    targets = re.findall(r"\]\((?!https?:)([^)#]+)", page.read_text(encoding="utf-8"))
    missing = [target for target in targets if not (page.parent / target).exists()]
    assert not missing
