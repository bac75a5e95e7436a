"""A run taken up under other conditions and killed there: it goes on under those it began with, and tampering shows."""

import dataclasses
import multiprocessing
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from audit.engine import run
from audit.planning import RunSettings, Step
from audit.review import verify_run
from audit.runs import custody
from audit.schema import AuditError
from audit.zoo import Built
from tests.engine.test_resume import timeless, with_key
from tests.planted import KINDS, planted_package, write_probe

BY_ATTENTION = 'self = self.model_copy(update={"value": 0.95 if bench.attention == "default" else 0.5})'


@pytest.fixture
def case(zoo: Built) -> Path:
    return zoo.cases["base"]


@pytest.fixture
def how(tmp_path: Path) -> Iterator[RunSettings]:
    with planted_package(tmp_path, f"planted_{tmp_path.name.replace('-', '_')}") as folder:
        for name in KINDS:
            write_probe(folder, name, body=BY_ATTENTION)
        yield RunSettings(package=folder.name, store=tmp_path / "store", threads=1)


def cancelled_after_one(case: Path, out: Path, how: RunSettings) -> None:
    """A run that is asked to stop when its first probe has measured."""

    def cancel(step: Step) -> None:
        if step.stage == "measured":
            (out / "cancel").touch()

    with pytest.raises(KeyboardInterrupt):
        run(case, out, how, watch=cancel)


def dies_after_a_table(case: Path, out: Path, how: RunSettings) -> None:
    """Run, and be killed when a table was put in place and its unit was not yet."""
    replace: Callable[[Path, Path], Path] = Path.replace

    def replacing(path: Path, target: Path) -> Path:
        done = replace(path, target)
        if Path(target).suffix == ".parquet":
            os.kill(os.getpid(), signal.SIGKILL)
        return done

    Path.replace = replacing  # type: ignore[method-assign]
    run(case, out, how)


def killed(case: Path, out: Path, how: RunSettings) -> None:
    child = multiprocessing.get_context("fork").Process(target=dies_after_a_table, args=(case, out, how))
    child.start()
    child.join()
    assert child.exitcode == -signal.SIGKILL


@pytest.mark.thorough
def test_a_run_killed_under_other_conditions_is_finished_under_those_it_began_with(
    case: Path, how: RunSettings, tmp_path: Path
) -> None:
    whole, out = with_key(tmp_path / "whole"), with_key(tmp_path / "run")
    run(case, whole, how)
    cancelled_after_one(case, out, how)
    (table,) = (out / "tables").glob("*.parquet")
    before = table.read_bytes()
    killed(case, out, dataclasses.replace(how, attention="eager"))
    assert table.read_bytes() != before, "the table of the finished unit was written over"
    run(case, out, how)
    assert timeless(out) == timeless(whole) and verify_run(out).accepted


@pytest.mark.thorough
def test_a_table_that_is_changed_after_all_is_finished_again_is_tampering(
    case: Path, how: RunSettings, tmp_path: Path
) -> None:
    out, other = with_key(tmp_path / "run"), dataclasses.replace(how, attention="eager")
    cancelled_after_one(case, out, how)
    killed(case, out, other)
    cancelled_after_one(case, out, other)
    assert custody.read(out).unfinished() == frozenset()
    (table,) = (out / "tables").glob("*.parquet")
    table.write_bytes(table.read_bytes() + b"x")
    with pytest.raises(AuditError, match="was changed after it was written") as caught:
        run(case, out, how)
    assert caught.value.code == 3


@pytest.mark.thorough
def test_a_first_run_begins_nothing_again(case: Path, how: RunSettings, tmp_path: Path) -> None:
    out = with_key(tmp_path / "run")
    run(case, out, how)
    assert custody.read(out).last("begun") is None
