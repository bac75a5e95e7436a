"""One process at a time per file name: who comes later waits without computing, and finds what the first one made."""

import os
from collections.abc import Generator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Final

from audit.storage.atomic import TEMP

LOCKED: Final = ".lock"


@contextmanager
def exclusive(path: Path) -> Generator[None]:
    """Hold the lock of ``path`` for the length of a block, waiting for who holds it now.

    The kernel drops the lock of a process that dies. Where no lock can be had (a read-only folder, a file system
    without them) the block runs without one: what it guards may then be computed twice, and is the same.
    """
    beside = path.with_name(f".{path.name}{LOCKED}{TEMP}")
    handle = _held(beside)
    try:
        yield
    finally:
        if handle is not None:
            with suppress(OSError):
                beside.unlink(missing_ok=True)
            os.close(handle)


def _held(beside: Path) -> int | None:
    """An open file that is locked and still has its name; None where there are no locks."""
    import fcntl

    try:
        beside.parent.mkdir(parents=True, exist_ok=True)
        while True:
            with ExitStack() as opened:
                handle = os.open(beside, os.O_RDWR | os.O_CREAT, 0o644)
                opened.callback(os.close, handle)
                fcntl.flock(handle, fcntl.LOCK_EX)
                if _has_name(handle, beside):
                    opened.pop_all()
                    return handle
    except OSError:
        return None


def _has_name(handle: int, path: Path) -> bool:
    """Is this open file the one of that name, or was the name taken from it by who held it before?"""
    try:
        return os.stat(path).st_ino == os.fstat(handle).st_ino
    except FileNotFoundError:
        return False
