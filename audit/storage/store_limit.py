"""How large a store may grow, and which of its entries are in use; shared by all processes that write into it.

Below the store lies a folder with one file a living process, which holds its lock and lists the entries that it has
read or written, and a ledger of how many bytes the store holds. Whoever wants to write reserves its bytes in the ledger
first; where the limit would be passed, what was used longest ago goes, and nothing that another living process uses.
"""

import atexit
import fcntl
import os
import secrets
from collections.abc import Callable, Generator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import Final

from audit.storage.leftovers import drop_abandoned, held

IN_USE: Final = "in_use"
LEDGER: Final = "ledger"
USUAL: Final = 50_000_000_000
"""Bytes, where nothing else is said."""
NAMED: Final = 32
"""So many digits of a key name an entry here: as many as name a fitted checkpoint."""
SLACK: Final = 10
"""Where entries must go, a tenth of the limit is freed, so that the next ones find room."""
_WIDTH: Final = 20


@cache
def users(root: Path) -> "Users":
    """Who uses the store below ``root``: the same for all who open it in this process."""
    return Users(root)


class Users:
    """The processes that use the store below ``root``, this one among them from its first :meth:`mark` on."""

    def __init__(self, root: Path) -> None:
        self.folder = root / IN_USE
        self._marked: set[str] = set()
        self._process = 0
        self._handle: int | None = None
        self._own = Path()

    @contextmanager
    def ledger(self, write: bool) -> Generator[int | None]:
        """The ledger, locked for the length of a block: shared, or to ``write``. None where there can be none."""
        handle: int | None = None
        with suppress(OSError):
            self.folder.mkdir(parents=True, exist_ok=True)
            handle = os.open(self.folder / LEDGER, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
            fcntl.flock(handle, fcntl.LOCK_EX if write else fcntl.LOCK_SH)
        try:
            yield handle
        finally:
            if handle is not None:
                os.close(handle)

    def knows(self, key: str) -> bool:
        """Has this process marked the entry as used?"""
        return key[:NAMED] in self._marked and self._process == os.getpid()

    def mark(self, key: str) -> None:
        """This process uses the entry from now on; the ledger is held while it is called."""
        if self.knows(key):
            return
        if self._process != os.getpid():
            self._enter()
        self._marked.add(key[:NAMED])
        if self._handle is not None:
            with suppress(OSError):
                os.write(self._handle, f"{key[:NAMED]}\n".encode())

    def _enter(self) -> None:
        """This process, new or forked off, gets a file of its own."""
        self._marked, self._process = set(), os.getpid()
        self._own = self.folder / f"{os.getpid()}-{secrets.token_hex(4)}"
        self._handle = held(self._own)
        atexit.register(_leave, self._own, os.getpid())

    def elsewhere(self) -> frozenset[str]:
        """The entries that other living processes use; the ledger is held. What dead ones left is dropped."""
        used: set[str] = set()
        for path in self.folder.iterdir() if self.folder.is_dir() else ():
            if path.name == LEDGER or (path == self._own and self._process == os.getpid()):
                continue
            if not drop_abandoned([path]) and path.exists():
                with suppress(OSError):
                    used.update(path.read_text(encoding="ascii", errors="replace").split())
        return frozenset(used)


def _leave(own: Path, process: int) -> None:
    if process == os.getpid():
        with suppress(OSError):
            own.unlink(missing_ok=True)


def reserve(ledger: int | None, size: int, limit: int, shrink: Callable[[int], int]) -> bool:
    """Is there room for ``size`` more bytes within ``limit``? Where there is, it is taken; the ledger is held.

    ``shrink(to)`` drops what may go until ``to`` bytes are left, and says how many are.
    """
    if size > limit:
        return False
    if ledger is None:
        return True
    total = _read(ledger)
    if total is None or total + size > limit:
        total = shrink(limit - max(size, limit // SLACK))
    if total + size > limit:
        _write(ledger, total)
        return False
    _write(ledger, total + size)
    return True


def forget(ledger: int | None) -> None:
    """The bytes that are held have to be counted anew; the ledger is held."""
    if ledger is not None:
        with suppress(OSError):
            os.ftruncate(ledger, 0)


def _read(ledger: int) -> int | None:
    with suppress(OSError):
        text = os.pread(ledger, _WIDTH, 0)
        return int(text) if len(text) == _WIDTH and text.isdigit() else None
    return None


def _write(ledger: int, total: int) -> None:
    with suppress(OSError):
        os.pwrite(ledger, f"{total:0{_WIDTH}d}".encode(), 0)
