"""One process at a time per file name: who comes later waits without computing, and finds what the first one made."""

import os
from collections.abc import Generator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from audit.storage.atomic import TEMP
from audit.storage.leftovers import held

LOCKED: Final = ".lock"


@contextmanager
def exclusive(path: Path) -> Generator[None]:
    """Hold the lock of ``path`` for the length of a block, waiting for who holds it now.

    The kernel drops the lock of a process that dies. Where no lock can be had (a read-only folder, a file system
    without them) the block runs without one: what it guards may then be computed twice, and is the same.
    """
    beside = path.with_name(f".{path.name}{LOCKED}{TEMP}")
    handle = held(beside)
    try:
        yield
    finally:
        if handle is not None:
            with suppress(OSError):
                beside.unlink(missing_ok=True)
            os.close(handle)
