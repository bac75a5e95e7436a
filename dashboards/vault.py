"""The one door to the disk: reads regular files below one folder, follows no link, and stops at a size.

A folder of runs may come from anybody. Paths are walked part by part with links refused by the kernel, so that nothing
outside the folder can be reached, not even by a link that is put there between a check and its use. Nothing that is
read here is ever run.
"""

import hashlib
import os
import stat
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path, PurePosixPath
from typing import BinaryIO, Final, NamedTuple

from audit.runs import run_files
from audit.schema import AuditError, ExitCode
from audit.wording import NAME, size, visible

MB: Final = 1_000_000
DEPTH, FOLDERS = 6, 4000
"""How deep a run may lie, and how many folders are looked at."""
MARKS: Final = (run_files.REPORT, run_files.PLAN, run_files.MANIFEST)
"""A folder with one of these files is a run."""
INNER: Final = frozenset({run_files.UNITS, run_files.TABLES, run_files.SUPERSEDED})


class Stamp(NamedTuple):
    """What tells that a file is still the one that was read: its size and its time of change, in nanoseconds."""

    size: int
    changed_ns: int


class Refused(AuditError):
    """A file that is not read: it is a link, no plain file, too large, or not there."""

    def __init__(self, what: str, do: str) -> None:
        super().__init__(what, do, ExitCode.INTEGRITY)


class Vault(NamedTuple):
    """The folder of runs. Every path is relative to it, with forward slashes."""

    root: Path

    def read(self, path: str, cap: int) -> bytes:
        """The bytes of a file. Refused if it is larger than ``cap`` bytes."""
        with self._opened(path) as file:
            held = os.fstat(file.fileno()).st_size
            if held > cap:
                raise Refused(
                    f"{shown(path)} is too big: {size(held)}, at most {size(cap)} are read", "open it by hand"
                )
            data = file.read(cap + 1)
        if len(data) > cap:
            raise Refused(f"{shown(path)} grew beyond {size(cap)} while it was read", "try again when it is at rest")
        return data

    def tail(self, path: str, length: int) -> bytes:
        """The last bytes of a file that is still being written."""
        with self._opened(path) as file:
            file.seek(max(0, os.fstat(file.fileno()).st_size - length))
            return file.read(length)

    def sha256(self, path: str) -> str:
        """sha256 (hex) of a file of any size."""
        with self._opened(path) as file:
            return hashlib.file_digest(file, "sha256").hexdigest()

    def stamp(self, path: str) -> Stamp | None:
        """Size and time of change of a plain file; None where there is none that may be read."""
        with suppress(Refused), self._opened(path) as file:
            status = os.fstat(file.fileno())
            return Stamp(status.st_size, status.st_mtime_ns)
        return None

    def inside(self, path: str) -> Path:
        """Where a folder below the root lies, or would lie. Refused if its path leads out, by a part or by a link."""
        parts = PurePosixPath(path).parts
        if not parts or path.startswith("/") or ".." in parts or "\0" in path:
            raise Refused(f"{shown(path)} leads out of the folder", "name a folder below it")
        place = self.root
        for part in parts:
            place = place / part
            if place.is_symlink():
                raise Refused(f"{shown(path)} leads through a link", "links are not followed; name a plain folder")
        return place

    def runs(self) -> Iterator[str]:
        """Every folder that holds a run, by path."""
        return self.folders_with(MARKS)

    def folders_with(self, marks: Collection[str]) -> Iterator[str]:
        """Every folder with a file of one of these names, by path; hidden folders and links are passed over."""
        waiting, looked = [""], 0
        while waiting and looked < FOLDERS:
            folder, looked = waiting.pop(), looked + 1
            below: list[str] = []
            marked = False
            with suppress(OSError), os.scandir(self.root / folder) as entries:
                for entry in entries:
                    marked |= entry.name in marks
                    if entry.is_dir(follow_symlinks=False) and not entry.name.startswith(".") and _text(entry.name):
                        below.append(entry.name)
            if marked and folder:
                yield folder
            if folder.count("/") + bool(folder) < DEPTH:
                inner = sorted(name for name in below if not (marked and name in INNER))
                waiting += [f"{folder}/{name}" if folder else name for name in reversed(inner)]

    def files(self, folder: str) -> list[str]:
        """Paths of all plain files below a folder, relative to it, sorted; links are listed too, and never followed."""
        paths: list[str] = []
        for place, _, names in os.walk(self.root / folder, followlinks=False):
            inside = Path(place).relative_to(self.root / folder)
            paths += [(inside / name).as_posix() for name in names]
            if len(paths) > FOLDERS:
                break
        return sorted(paths)

    @contextmanager
    def _opened(self, path: str) -> Iterator[BinaryIO]:
        """A plain file, reached part by part from the root without following a link."""
        parts = PurePosixPath(path).parts
        if not parts or path.startswith("/") or ".." in parts:
            raise Refused(f"{shown(path)} leads out of the folder", "it is not read")
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        handle = os.open(self.root, os.O_RDONLY | os.O_DIRECTORY)
        try:
            for part in parts:
                below = os.open(part, flags, dir_fd=handle)
                os.close(handle)
                handle = below
            if not stat.S_ISREG(os.fstat(handle).st_mode):
                raise Refused(f"{shown(path)} is no plain file", "it is not read")
        except (OSError, ValueError) as error:
            os.close(handle)
            reason = error.strerror if isinstance(error, OSError) else "its name cannot be opened"
            raise Refused(
                f"{shown(path)} cannot be read: {reason}", "links are not followed; put the file itself there"
            ) from None
        except Refused:
            os.close(handle)
            raise
        with os.fdopen(handle, "rb") as file:
            yield file


def shown(path: str) -> str:
    """A path as it may be shown: visible, and not too long."""
    return visible(path.encode("utf-8", "replace").decode(), NAME)


def _text(name: str) -> bool:
    """Can the name be written in UTF-8, as an address and as JSON have to be?"""
    with suppress(UnicodeEncodeError):
        return bool(name.encode())
    return False
