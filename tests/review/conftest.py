"""A finished run, made once, and a copy of it for each test to change."""

import shutil
from pathlib import Path

import pytest

from tests import whole_run


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run as the engine leaves it; no test changes it."""
    folder = tmp_path_factory.mktemp("made") / "run"
    whole_run.make(folder)
    return folder


@pytest.fixture
def folder(made: Path, tmp_path: Path) -> Path:
    """A copy of it."""
    return Path(shutil.copytree(made, tmp_path / "run"))
