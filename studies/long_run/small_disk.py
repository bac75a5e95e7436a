"""A disk of its own that can be filled: a tmpfs of a stated size, and a file that takes up what should not be free."""

import os
import subprocess
from collections.abc import Generator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final, NamedTuple

from audit.schema import AuditError

FILLER: Final = "filler"


class SmallDisk(NamedTuple):
    """A folder on a disk of its own."""

    root: Path

    def free(self) -> int:
        """Bytes that can still be written."""
        status = os.statvfs(self.root)
        return status.f_bavail * status.f_frsize

    def fill(self, leave: int) -> None:
        """Take up all but ``leave`` bytes; somebody else may be writing at the same time."""
        with (self.root / FILLER).open("ab") as filler, suppress(OSError):
            filler.truncate(0)
            os.posix_fallocate(filler.fileno(), 0, max(1, self.free() - leave))

    def empty(self) -> None:
        """Give back what :meth:`fill` took."""
        (self.root / FILLER).unlink(missing_ok=True)


@contextmanager
def small_disk(root: Path, size: int) -> Generator[SmallDisk]:
    """A disk of ``size`` bytes at ``root`` for the length of a block; what is left of an earlier one is taken on.

    AuditError (code 2) where this user may mount nothing.
    """
    root.mkdir(parents=True, exist_ok=True)
    if not root.is_mount():
        command = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(root)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            do = "run it as root, or in a name space of your own: unshare --user --map-root-user --mount COMMAND"
            raise AuditError(f"no small disk can be mounted at {root}: {done.stderr.strip()}", do)
    disk = SmallDisk(root)
    disk.empty()
    yield disk
