"""What every test runs under: one torch thread, no network, fixed seeds, shapes and types checked at run time."""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"
os.environ["WANDB_MODE"] = "disabled"

import gc
import logging
import shutil
import sys
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import settings

from tests import shapes, worlds
from tests.browsing import axe as axe
from tests.browsing import browser as browser
from tests.slow_slices import pytest_addoption as pytest_addoption
from tests.slow_slices import pytest_collection_modifyitems as pytest_collection_modifyitems

if TYPE_CHECKING:
    from audit.zoo import Built

# Every function of these modules checks its annotations, tensor shapes included, while the tests run. The hook acts
# on modules imported after it, hence before any test module is collected.
shapes.check_imports(shapes.NUMERICAL)

# Derandomised, so that a failure is the same failure next time; no deadline, because the machine may be busy.
settings.register_profile("house", deadline=None, derandomize=True, max_examples=50, database=None)
settings.load_profile("house")


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """Importing the libraries makes millions of objects that stay: looking for garbage among them takes a quarter of
    the time that collecting takes. The collector rests meanwhile, and leaves them alone afterwards.
    """
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.enable()


@pytest.fixture(autouse=True, scope="session")
def one_torch_thread() -> None:
    """Two cores and several workers: more threads than one only get in one another's way."""
    import torch

    torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def seeds() -> Iterator[None]:
    """Library code that draws without a generator draws the same in every test, in any order."""
    import random

    import numpy as np
    import torch

    random.seed(0)
    np.random.seed(0)
    torch.manual_seed(0)
    yield


@pytest.fixture(autouse=True, scope="session")
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Tests never read or write the user's cache; what is dear to make is shared between workers."""
    patch, cache = pytest.MonkeyPatch(), tmp_path_factory.mktemp("cache")
    patch.setenv("RESIDUA_CACHE", str(cache))
    patch.setenv(worlds.SHARED, str(worlds.session_folder(tmp_path_factory)))
    yield cache
    patch.undo()


@pytest.fixture(scope="session")
def zoo(own_cache: Path) -> "Built":
    """The tiny world in this worker's own cache, trained once a session."""
    from audit.zoo import build

    def train(folder: Path) -> None:
        build("tiny", cache=folder)

    shutil.copytree(worlds.made_once("tiny", train), own_cache, dirs_exist_ok=True)
    return build("tiny")


@pytest.fixture(scope="session")
def finished(zoo: "Built", tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished run: base audited as a suspect, once a session. Whoever changes a file puts it back."""
    from audit.cli import main

    def audit(folder: Path) -> None:
        hook = sys.excepthook
        main(["run", str(zoo.cases["base"]), "-o", str(folder / "run"), "-q"])
        sys.excepthook = hook

    return shutil.copytree(worlds.made_once("finished", audit) / "run", tmp_path_factory.mktemp("finished") / "run")


@pytest.fixture(autouse=True)
def _own_excepthook(monkeypatch: pytest.MonkeyPatch) -> None:
    """The command line ends a crash of its own by a hook; called within a test, it leaves pytest's in place."""
    monkeypatch.setattr(sys, "excepthook", sys.excepthook)


@pytest.fixture(autouse=True)
def _confides_nothing() -> None:
    """What another test's data must not show on a stream is no secret of this one's."""
    from audit.wording import drop_confidences

    drop_confidences()


@pytest.fixture(autouse=True)
def _as_loud_as_before() -> Iterator[None]:
    """Whoever quiets a logger, as the studies' commands do, quiets it for one test only."""
    loggers = [logging.getLogger(name) for name in ("", "audit", "audit.pools", "audit.zoo", "transformers")]
    levels = [logger.level for logger in loggers]
    yield
    for logger, level in zip(loggers, levels, strict=True):
        logger.setLevel(level)
