"""What a killed process leaves behind, told from what a living one is at: the kernel drops the lock of whoever dies.

Who makes a temporary file or folder holds its lock as long as it is not in its place. What lies there and is held by
nobody is left over. Where a file system has no locks nothing is held and nothing is dropped.
"""

import atexit
import os
import shutil
import tempfile
import time
from collections.abc import Iterable
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Final

YOUNG_S: Final = 60.0
"""A folder this young is let alone: it may have been made and not yet been locked."""
PREFIX: Final = "residua-of-"


def held(path: Path) -> int | None:
    """An open file that is locked and still has its name, made if there is none, after waiting for who holds it now;
    None where there are no locks."""
    import fcntl

    with suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        while True:
            with ExitStack() as opened:
                handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
                opened.callback(os.close, handle)
                fcntl.flock(handle, fcntl.LOCK_EX)
                if _has_name(handle, path):
                    opened.pop_all()
                    return handle
    return None


def _has_name(handle: int, path: Path) -> bool:
    """Is this open file the one of that name, or was the name taken from it by who held it before?"""
    try:
        return os.stat(path).st_ino == os.fstat(handle).st_ino
    except FileNotFoundError:
        return False


def locked(path: Path) -> int | None:
    """An open handle of the file or folder of that name, locked; None where nobody but another can have it now."""
    import fcntl

    with suppress(OSError):
        handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        with suppress(OSError):
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if _has_name(handle, path):
                return handle
        os.close(handle)
    return None


def drop_abandoned(paths: Iterable[Path]) -> int:
    """Delete the temporary files and folders among ``paths`` that nobody holds; returns the bytes freed."""
    freed = 0
    for path in paths:
        handle = locked(path)
        if handle is None:
            continue
        with suppress(OSError):
            freed += bytes_of(path)
            shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
        os.close(handle)
    return freed


def bytes_of(path: Path) -> int:
    """A file's size, or that of all files below a folder; what another process deletes meanwhile counts as nothing."""
    size = 0
    for below in (path, *path.rglob("*")):
        with suppress(FileNotFoundError):
            size += below.stat().st_size if below.is_file() else 0
    return size


def hold_temporary_folder() -> Path:
    """Give this process a folder of its own for all temporary files, and drop those that killed processes left.

    It is deleted when the process ends in whatever way but a kill; after one, by the next process that comes here.
    """
    place = Path(tempfile.gettempdir())
    if place.name.startswith(PREFIX):
        return place
    drop_abandoned(path for path in place.glob(f"{PREFIX}*") if is_old(path))
    folder = Path(tempfile.mkdtemp(prefix=f"{PREFIX}{os.getpid()}-", dir=place))
    locked(folder)
    tempfile.tempdir = str(folder)
    atexit.register(_delete, folder, os.getpid())
    return folder


def is_old(path: Path) -> bool:
    """Has it lain there for longer than it takes to lock it?"""
    with suppress(OSError):
        return time.time() - path.lstat().st_mtime > YOUNG_S
    return False


def _delete(folder: Path, process: int) -> None:
    """A process that was forked off deletes nothing of its parent's."""
    if process == os.getpid():
        shutil.rmtree(folder, ignore_errors=True)
