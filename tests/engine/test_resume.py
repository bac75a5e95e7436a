"""Killed at any moment, the same command finishes the job: no finished unit is redone, the report is the same."""

import json
import multiprocessing
import os
import random
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from audit.engine import run
from audit.planning import RunSettings, Step
from audit.review import verify_run
from audit.schema import AuditError, ExitCode
from audit.zoo import Built


def timeless(folder: Path) -> dict[str, object]:
    document = json.loads((folder / "report.json").read_text())
    return {key: value for key, value in document.items() if key not in ("created", "registered", "timings")}


def with_key(out: Path) -> Path:
    """A run folder whose masks are those of every other one here."""
    out.mkdir(parents=True)
    (out / "mask.key").write_text("0" * 64)
    return out


def units(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (folder / "units").glob("*.json")}


def measured(folder: Path) -> list[str]:
    lines = [json.loads(line) for line in (folder / "events.jsonl").read_text().splitlines()]
    return [line["detail"] for line in lines if line["event"] == "measured"]


def check_resumed(folder: Path, finished: dict[str, bytes], whole: dict[str, object], seen: list[str]) -> None:
    """After the second run: units that were finished are untouched, the rest was done once, the report is the same."""
    after = units(folder)
    assert {name: after[name] for name in finished} == finished
    redone = [json.loads(body)["probe"] for body in finished.values()]
    assert not set(measured(folder)[len(seen) :]) & set(redone)
    assert timeless(folder) == whole
    assert verify_run(folder).accepted
    assert not list(folder.rglob("*.tmp"))


@pytest.fixture(scope="module")
def case(zoo: Built) -> Path:
    return zoo.cases["base"]


@pytest.fixture(scope="module")
def how(tmp_path_factory: pytest.TempPathFactory) -> RunSettings:
    return RunSettings(threads=1, store=tmp_path_factory.mktemp("store"))


@pytest.fixture(scope="module")
def whole(case: Path, how: RunSettings, tmp_path_factory: pytest.TempPathFactory) -> dict[str, object]:
    """The report of a run that nobody killed."""
    out = with_key(tmp_path_factory.mktemp("whole") / "run")
    run(case, out, how)
    return timeless(out)


def die_at_write(case: Path, out: Path, how: RunSettings, nth: int) -> None:
    """Run, and be killed in the middle of the nth file that is put in place."""
    replace: Callable[[Path, Path], Path] = Path.replace
    seen = 0

    def replacing(path: Path, target: Path) -> Path:
        nonlocal seen
        inside = str(target).startswith(str(out))
        seen += inside
        if inside and seen == nth:
            os.kill(os.getpid(), signal.SIGKILL)
        return replace(path, target)

    Path.replace = replacing  # type: ignore[method-assign]
    run(case, out, how)


@pytest.mark.thorough
@pytest.mark.parametrize("seed", range(2))
def test_a_run_killed_while_it_writes_is_finished_by_the_same_call(
    seed: int, case: Path, how: RunSettings, whole: dict[str, object], tmp_path: Path
) -> None:
    out = with_key(tmp_path / "run")
    nth = random.Random(seed).randint(1, 12)
    child = multiprocessing.get_context("fork").Process(target=die_at_write, args=(case, out, how, nth))
    child.start()
    child.join()
    assert child.exitcode == -signal.SIGKILL
    finished, seen = units(out), measured(out) if (out / "events.jsonl").exists() else []
    run(case, out, how)
    check_resumed(out, finished, whole, seen)


def cancel_after_one(case: Path, out: Path, how: RunSettings) -> None:
    """A run that is asked to stop when its first probe has measured."""

    def cancel(step: Step) -> None:
        if step.stage == "measured":
            (out / "cancel").touch()

    with pytest.raises(KeyboardInterrupt):
        run(case, out, how, watch=cancel)


@pytest.mark.thorough
def test_a_cancelled_run_keeps_its_finished_units_and_the_same_call_resumes_it(
    case: Path, how: RunSettings, whole: dict[str, object], tmp_path: Path
) -> None:
    out = with_key(tmp_path / "run")

    cancel_after_one(case, out, how)
    finished, seen = units(out), measured(out)
    assert len(finished) == len(seen) + 1 == 2, "the roles, and one probe"
    run(case, out, how)
    check_resumed(out, finished, whole, seen)


def test_a_unit_whose_number_is_changed_before_the_run_is_taken_up_ends_it(
    case: Path, how: RunSettings, tmp_path: Path
) -> None:
    out = with_key(tmp_path / "run")

    cancel_after_one(case, out, how)
    (name,) = {json.loads(body)["probe"]: name for name, body in units(out).items() if b'"value": ' in body}.values()
    path = out / "units" / name
    path.write_text(re.sub(r'"value": [0-9][0-9.]*', '"value": 0.4', path.read_text(), count=1))
    with pytest.raises(AuditError, match=f"units/{name} was changed after it was written") as caught:
        run(case, out, how)
    assert caught.value.code == ExitCode.INTEGRITY and not (out / "report.json").exists()
    assert not (out / "run.lock").exists()


@pytest.mark.thorough
def test_a_finished_folder_with_another_verdict_word_is_not_shown_as_finished(
    case: Path, how: RunSettings, tmp_path: Path
) -> None:
    out = with_key(tmp_path / "run")
    run(case, out, how)
    path = out / "report.json"
    path.write_text(path.read_text().replace('"word": "INTACT"', '"word": "SUPPRESSED"'))
    with pytest.raises(AuditError, match="is not what was issued: report.json: changed") as caught:
        run(case, out, how)
    assert caught.value.code == ExitCode.INTEGRITY


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(10))
def test_a_command_killed_at_a_random_moment_is_finished_by_the_same_command(
    seed: int, case: Path, how: RunSettings, whole: dict[str, object], tmp_path: Path
) -> None:
    out = with_key(tmp_path / "run")
    command = [sys.executable, "-m", "audit.cli", "run", str(case), "-o", str(out), "--store", str(tmp_path / "store")]
    started = time.monotonic()
    subprocess.run([*command[:-3], str(tmp_path / "timed"), *command[-2:]], capture_output=True, check=False)
    took = time.monotonic() - started
    child = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    time.sleep(random.Random(seed).uniform(0.2, 1.0) * took)
    child.kill()
    child.wait()
    finished = units(out) if out.exists() else {}
    seen = measured(out) if (out / "events.jsonl").exists() else []
    subprocess.run(command, capture_output=True, check=False)
    check_resumed(out, finished, whole, seen)
