"""A world that workers share is made once, whole, and also where a worker dies while it makes it."""

import multiprocessing
import os
import signal
import time
from pathlib import Path

import pytest

from tests import worlds


@pytest.fixture(autouse=True)
def _shared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(worlds.SHARED, str(tmp_path))


def write(folder: Path) -> None:
    with (folder.parent / "makers").open("a") as makers:
        makers.write(f"{os.getpid()}\n")
    time.sleep(0.3)  # the others come meanwhile
    (folder / "model").write_text("whole")


def test_several_workers_make_one_world_between_them(tmp_path: Path) -> None:
    workers = [multiprocessing.get_context("fork").Process(target=worlds.made_once, args=("w", write)) for _ in "abc"]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert [worker.exitcode for worker in workers] == [0, 0, 0]
    assert (worlds.made_once("w", write) / "model").read_text() == "whole"
    (maker,) = (tmp_path / "makers").read_text().split()
    assert int(maker) in {worker.pid for worker in workers}


def test_a_worker_that_dies_over_a_world_blocks_nobody_and_leaves_no_half_of_it() -> None:
    def die(folder: Path) -> None:
        (folder / "half").write_text("")
        os.kill(os.getpid(), signal.SIGKILL)

    worker = multiprocessing.get_context("fork").Process(target=worlds.made_once, args=("w", die))
    worker.start()
    worker.join()
    assert worker.exitcode == -signal.SIGKILL
    folder = worlds.made_once("w", write)
    assert [path.name for path in folder.iterdir()] == ["model"]


def test_a_world_that_could_not_be_made_is_made_by_the_next() -> None:
    def fail(folder: Path) -> None:
        (folder / "half").write_text("")
        raise ValueError("planted")

    with pytest.raises(ValueError, match="planted"):
        worlds.made_once("w", fail)
    assert [path.name for path in worlds.made_once("w", write).iterdir()] == ["model"]


def test_worlds_lie_where_it_was_named_else_among_the_files_of_the_session(
    tmp_path: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert worlds.session_folder(tmp_path_factory) == tmp_path
    monkeypatch.delenv(worlds.SHARED)
    monkeypatch.delenv("PYTEST_XDIST_WORKER", raising=False)
    own = tmp_path_factory.getbasetemp()
    assert worlds.session_folder(tmp_path_factory) == own / "worlds" and (own / "worlds").is_dir()
