"""What kind of file a name stands for. Only regular files and folders are read: a pipe, a socket or a device may keep
whoever opens it waiting for ever, or never end."""

import stat
from pathlib import Path
from typing import Final

from audit.schema import AuditError

_KINDS: Final = {
    stat.S_IFIFO: "a named pipe", stat.S_IFSOCK: "a socket", stat.S_IFCHR: "a device", stat.S_IFBLK: "a device",
}  # fmt: skip


def refuse_special(path: Path) -> None:
    """AuditError (code 2) where a path, its links followed, is neither a regular file nor a folder. One that is not
    there, or cannot be looked at, passes: whoever opens it says so."""
    try:
        kind = _KINDS.get(stat.S_IFMT(path.stat().st_mode))
    except (OSError, ValueError):
        return
    if kind is not None:
        raise AuditError(f"{path}: is {kind}; only regular files and folders are read", "copy what it gives to a file")


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
