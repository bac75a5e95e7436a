"""Worlds that several test files need, made once a session however many workers there are.

Who asks first makes the world, the others wait and copy it. A lock belongs to an open file, so that a worker that dies
holds up nobody; a folder gets its name when it is finished, so that nothing half-made is ever copied.
"""

import fcntl
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

SHARED = "RESIDUA_TEST_WORLDS"
"""The variable that names the folder which the workers of this session have in common."""


def session_folder(factory: pytest.TempPathFactory) -> Path:
    """That folder, for a worker of pytest-xdist or for the one process there is; the one that is named already, where
    one is."""
    own = factory.getbasetemp()
    usual = (own.parent if "PYTEST_XDIST_WORKER" in os.environ else own) / "worlds"
    shared = Path(os.environ.get(SHARED, usual))
    shared.mkdir(exist_ok=True)
    return shared


def made_once(name: str, make: Callable[[Path], None]) -> Path:
    """The folder that ``make`` fills, by whichever worker comes first. Shared: never write into it, copy it."""
    shared = Path(os.environ[SHARED])
    finished, unfinished = shared / name, shared / f"{name}.unfinished"
    with (shared / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not finished.exists():
            shutil.rmtree(unfinished, ignore_errors=True)
            unfinished.mkdir()
            make(unfinished)
            unfinished.rename(finished)
    return finished
