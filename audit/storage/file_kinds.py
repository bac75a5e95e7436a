"""What kind of file a name stands for. Only regular files and folders are read: a pipe, a socket or a device may keep
whoever opens it waiting for ever, or never end."""

import os
import stat
from functools import cache
from pathlib import Path
from typing import Final

from audit.schema import AuditError, ExitCode

_KINDS: Final = {
    stat.S_IFIFO: "a named pipe", stat.S_IFSOCK: "a socket", stat.S_IFCHR: "a device", stat.S_IFBLK: "a device",
}  # fmt: skip
_SHARE: Final = 4
"""A file that is read whole may take one part in so many of the machine's memory: what is made of it takes more."""


def refuse_special(path: Path, in_memory: bool = False, code: int = ExitCode.INPUT) -> None:
    """AuditError (of ``code``) where a path, its links followed, is neither a regular file nor a folder, or is a file
    that the kernel makes up (/proc, /sys). ``in_memory``: or has more bytes than can be read at once. One that is not
    there, or cannot be looked at, passes: whoever opens it says so."""
    try:
        status = path.stat()
    except (OSError, ValueError):
        return
    kind = _KINDS.get(stat.S_IFMT(status.st_mode))
    if stat.S_ISREG(status.st_mode) and status.st_dev in _made_up():
        kind = "a file of the kernel"
    if kind is not None:
        problem = f"{path}: is {kind}; only regular files and folders are read"
        raise AuditError(problem, "copy what it gives to a file", code)
    if in_memory and stat.S_ISREG(status.st_mode) and status.st_size > _memory() // _SHARE:
        raise AuditError(
            f"{path}: has {status.st_size} bytes, more than can be read at once on this machine",
            "check that it is the file that is meant, and no other was written into it",
            code,
        )


def file_bytes(path: Path) -> bytes:
    """What a file of a run folder holds. AuditError (code 3): see :func:`refuse_special`, read whole; OSError if it is
    not there."""
    refuse_special(path, in_memory=True, code=ExitCode.INTEGRITY)
    return path.read_bytes()


@cache
def _made_up() -> frozenset[int]:
    """The devices of the file systems in which a file may keep its reader waiting, or never end."""
    return frozenset(os.stat(place).st_dev for place in ("/proc", "/sys") if os.path.ismount(place))


def _memory() -> int:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def resolved(path: Path) -> Path:
    """The absolute path with its links followed, of a file that need not be there. AuditError (code 2) where links
    lead round in a circle, or where no such path can be."""
    try:
        place = path.resolve()
        place.exists()  # which says of a path that is too long, or that may not be looked at
        return place
    except (OSError, RuntimeError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise AuditError(f"{path}: cannot be followed ({reason})", "correct the path, or the links on it") from None
