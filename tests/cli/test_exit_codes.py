"""Every exit code: what a script sees of the program itself, and the rest in this process, on one finished run."""

import json
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from audit.cli import main
from audit.review import MEANINGS
from audit.zoo import Built
from tests.cli.conftest import RESIDUA, Call


def process(*argv: object) -> subprocess.CompletedProcess[str]:
    """The program as a script starts it, with what it says."""
    command = [*RESIDUA, *(str(word) for word in argv)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_a_script_sees_the_code_that_the_call_returns_and_hears_the_same(
    residua: Call, finished: Path, tmp_path: Path
) -> None:
    for code, words in (
        (0, ("--help-exit-codes",)),
        (1, ("verify", finished, "--fail-on", "any", "--json")),
        (2, ("compare", finished, tmp_path)),
    ):
        script, call = process(*words), residua(*words)
        assert (script.returncode, script.stdout, script.stderr) == (code, call.stdout, call.stderr)
        assert call.returncode == code


def test_the_table_of_codes_is_printed(residua: Call) -> None:
    done = residua("--help-exit-codes")
    assert done.returncode == 0
    assert [int(line.split()[0]) for line in done.stdout.splitlines()] == [code for code, _ in MEANINGS]
    assert {code for code, _ in MEANINGS} == {0, 1, 2, 3, 4, 130}


def test_0_where_it_stands_and_1_where_the_gate_finds_a_trace(residua: Call, finished: Path) -> None:
    assert residua("verify", finished).returncode == 0
    gated = residua("verify", finished, "--fail-on", "any", "--json")
    assert gated.returncode == 1 and json.loads(gated.stdout)["accepted"]
    assert residua("report", finished, "--fail-on", "any", "--baseline", finished).returncode == 0


def test_2_for_what_the_caller_can_mend(residua: Call, finished: Path, tmp_path: Path) -> None:
    """One of them; the rest of these words is tested in test_cli and test_gate."""
    done = residua("compare", finished, tmp_path)
    assert done.returncode == 2
    assert "what to do" in done.stderr and "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("flags", "told"),
    [
        (("--fail-on", "often"), "is no gate"),
        (("--baseline", "report.json"), "no gate was given"),
        (("--min-power", "80"), "is no power"),
        (("--fail-on", "any", "--baseline", "nowhere"), "there is no nowhere"),
    ],
)
def test_a_gate_that_makes_no_sense_is_refused_before_anything_is_done(
    flags: tuple[str, ...],
    told: str,
    finished: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sys, "excepthook", sys.excepthook)
    for verb in ("report", "verify"):
        assert main([verb, str(finished), *flags]) == 2
        assert told in capsys.readouterr().err


def test_3_for_what_is_not_as_it_was_issued(residua: Call, finished: Path, tmp_path: Path) -> None:
    shutil.copytree(finished, tmp_path / "run")
    text = (tmp_path / "run" / "report.md").read_text()
    (tmp_path / "run" / "report.md").write_text(text.replace("INTACT", "CLEAN"))
    done = residua("verify", tmp_path / "run", "--fail-on", "any")
    assert done.returncode == 3 and "report.md: changed" in done.stdout


def test_4_where_a_gate_cannot_be_decided(residua: Call, finished: Path) -> None:
    assert residua("report", finished, "--fail-on", "lr=10").returncode == 4


def _heed_interrupts() -> None:
    signal.signal(signal.SIGINT, signal.SIG_DFL)


@pytest.mark.slow
def test_130_after_ctrl_c_and_the_same_command_goes_on(zoo: Built, tmp_path: Path) -> None:
    command = [*RESIDUA, "run", str(zoo.cases["base"]), "-o", str(tmp_path / "run"), "-q"]
    pipes = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE}
    # A suite that runs in the background of a shell hands its children an ignored Ctrl-C.
    with subprocess.Popen(command, **pipes, text=True, preexec_fn=_heed_interrupts) as child:
        while child.poll() is None and not (tmp_path / "run" / "plan.json").exists():
            time.sleep(0.05)
        child.send_signal(signal.SIGINT)
        _, told = child.communicate(timeout=300)
    assert child.returncode == 130 and "same command resumes" in told
    assert not (tmp_path / "run" / "run.lock").exists()


def test_compare_says_what_it_found_and_gates_nothing(residua: Call, finished: Path) -> None:
    done = residua("compare", finished, finished / "report.json", "--json")
    found = json.loads(done.stdout)
    assert done.returncode == 0 and found["differing"] == [] and len(found["differences"]) > 5
    assert {one["how"] for one in found["differences"]} == {"paired", "approximate"}
    assert "INTACT (the same)" in residua("compare", finished, finished).stdout
