"""Activations and scores on disk, named by content. A broken entry is dropped and computed again, never believed.

An entry is a safetensors file ``root/ab/abcdef....safetensors``, written under another name and renamed, so that a
killed process leaves nothing half-written. Its own sha256 lies in its metadata and is checked the first time a
process reads it. Checkpoints that were fitted for a case lie beside the entries, each a folder. No torch import until
a tensor is touched: reports are written with :func:`write_atomic` too.
"""

import logging
import os
import shutil
import time
from collections.abc import Collection, Iterable, Mapping
from contextlib import AbstractContextManager, nullcontext, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from audit.schema import AuditError, ExitCode
from audit.storage import safetensors_file
from audit.storage.atomic import TEMP, disk_error
from audit.storage.atomic import write_atomic as write_atomic
from audit.storage.atomic import write_chunks as write_chunks
from audit.storage.exclusive import exclusive
from audit.storage.leftovers import bytes_of, drop_abandoned, is_old
from audit.storage.store_limit import NAMED, USUAL, forget, reserve, users
from audit.storage.tensor_files import opened_tensors

if TYPE_CHECKING:
    from torch import Tensor

log = logging.getLogger(__name__)

_SUFFIX = ".safetensors"
_FITTED = "fitted"
_CROWDED_S = 5.0
_HEAD = 1024
"""Bytes of an entry beside its tensors, at most."""


def _dtype_names() -> "dict[object, str]":
    import torch

    return {
        torch.float64: "F64", torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16", torch.int64: "I64",
        torch.int32: "I32", torch.int16: "I16", torch.int8: "I8", torch.uint8: "U8", torch.bool: "BOOL",
        torch.float8_e4m3fn: "F8_E4M3", torch.float8_e5m2: "F8_E5M2",
    }  # fmt: skip


def _raw(tensor: "Tensor") -> memoryview:
    """The bytes of a contiguous CPU tensor, uncopied."""
    import torch

    if not tensor.numel():  # an empty NumPy array comes with strides that no view of bytes can be had of
        return memoryview(b"")
    return tensor.reshape(-1).view(torch.uint8).numpy().data


def write_tensors(
    path: Path, tensors: "Mapping[str, Tensor]", metadata: Mapping[str, str], durable: bool = True
) -> str:
    """Write a safetensors file whole or not at all; returns the sha256 of its tensors (:func:`tensorfile.combined`).

    Equal tensors and metadata give equal bytes. The sha256 is added to the metadata. ``durable``: :func:`write_chunks`.
    """
    names = _dtype_names()
    ready = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    layout = {n: (names[t.dtype], tuple(t.shape), t.numel() * t.element_size()) for n, t in ready.items()}
    sha256 = tensors_sha256(ready)
    head = safetensors_file.encode(layout, {**metadata, "sha256": sha256})
    write_chunks(path, (head, *(_raw(ready[name]) for name in sorted(ready))), durable)
    return sha256


def tensors_sha256(tensors: "Mapping[str, Tensor]") -> str:
    """sha256 over named tensors: names, dtypes, shapes and bytes; the same for a file of them in any layout."""
    return safetensors_file.combined({name: tensor_sha256(tensor) for name, tensor in tensors.items()})


def tensor_sha256(tensor: "Tensor") -> str:
    """sha256 over a tensor's dtype, shape and bytes, as :func:`tensorfile.tensor_digests` reads it from a file."""
    ready = tensor.detach().cpu().contiguous()
    return safetensors_file.tensor_sha256(_dtype_names()[ready.dtype], tuple(ready.shape), _raw(ready))


def read_tensors(path: Path) -> "dict[str, Tensor]":
    """The tensors of a whole safetensors file, memory-mapped. AuditError (code 3) if it is truncated."""
    names = safetensors_file.read_header(path).entries
    with opened_tensors(path) as file:
        return {name: file.read(name) for name in names}


class Store:
    """A folder of tensors named by what they were computed from. Safe under parallel processes and kills.

    ``waits``: what another process is computing is waited for (:meth:`exclusively`), so that processes that fill one
    store make each entry once; without it they do not look at one another.

    ``limit`` bounds the bytes of all entries, whoever writes them: what was used longest ago goes first, nothing that
    another living process uses goes at all, and what finds no room is not kept. Checkpoints that were fitted are
    counted when the next entry is written.
    """

    def __init__(self, root: Path, limit: int = USUAL) -> None:
        self.root = Path(root)
        self.limit = limit
        self.waits = False
        self._checked: set[str] = set()
        self._users = users(self.root.absolute())
        self._swept = False
        self._crowded_until = 0.0

    def path(self, key: str) -> Path:
        """Where the entry lies or would lie. ``key`` is a hex hash."""
        assert len(key) >= 8 and set(key) <= set("0123456789abcdef"), f"not a hex hash: {key!r}"
        return self.root / key[:2] / f"{key}{_SUFFIX}"

    def folder(self, key: str) -> Path:
        """Where a fitted checkpoint lies or would lie. Whoever makes it puts it in place whole, and touches it when it
        is used; what ends in ``.tmp`` beside it is one in the making. ``key`` is a hex hash."""
        folder = self.root / _FITTED / self.path(key).stem[:NAMED]
        if not self._users.knows(key):
            with self._users.ledger(write=True) as ledger:
                self._users.mark(key)
                if not folder.exists():
                    forget(ledger)
        return folder

    def get(self, key: str) -> "dict[str, Tensor] | None":
        """The tensors kept under ``key``, memory-mapped, or None. A broken entry is dropped, said in the log."""
        path = self.path(key)
        if not path.is_file() or not self._used(key, path):
            return None
        try:
            if key not in self._checked:
                self._check(path)
            tensors = read_tensors(path)
        except AuditError as error:
            log.warning("store: dropped a broken entry, it will be computed again: %s", error.what)
            with suppress(OSError):
                path.unlink(missing_ok=True)
            return None
        self._checked.add(key)
        with suppress(OSError):  # a read-only store still serves; it only forgets what was used last
            os.utime(path)
        return tensors

    def put(self, key: str, tensors: "Mapping[str, Tensor]", meta: Mapping[str, str]) -> None:
        """Keep tensors under ``key``, whole or not at all; where the limit leaves no room, not at all, said in the log.
        AuditError (code 3) if the disk is full or read-only."""
        path, size = self.path(key), _HEAD + sum(t.numel() * t.element_size() for t in tensors.values())
        with self._users.ledger(write=True) as ledger:
            if not self._swept:
                self._swept = True
                self._sweep(self._users.elsewhere())
            self._users.mark(key)
            if not reserve(ledger, size, self.limit, self._shrink):
                log.warning("store: no room for %d bytes within %d: an entry is not kept", size, self.limit)
                return
            write_tensors(path, tensors, meta, durable=False)  # a count by another process finds it there
        self._checked.add(key)

    def use(self, key: str) -> None:
        """This process uses from now on what lies under ``key`` (a hex hash) in a folder that is pruned with the store
        (:meth:`prune`): no other process drops it."""
        if not self._users.knows(key):
            with self._users.ledger(write=False):
                self._users.mark(key)

    def _used(self, key: str, path: Path) -> bool:
        """This process uses an entry from now on; false where another one dropped it just before."""
        if self._users.knows(key):
            return True
        with self._users.ledger(write=False):
            if not path.is_file():
                return False
            self._users.mark(key)
        return True

    def exclusively(self, key: str) -> AbstractContextManager[None]:
        """Look for ``key`` and compute it in here: where the store waits, no other process that does so is at it."""
        return exclusive(self.path(key)) if self.waits else nullcontext()

    def prune(self, max_bytes: int, also: Iterable[Path] = ()) -> int:
        """Drop what was used longest ago, entries, fitted checkpoints and the folders of ``also`` (each called by its
        key), until at most ``max_bytes`` remain, but for what another process uses; returns the bytes freed."""
        with self._users.ledger(write=True) as ledger:
            freed = self._dropped(max_bytes, also)[0]
            forget(ledger)
        return freed

    def _shrink(self, to: int) -> int:
        """Drop what may go until ``to`` bytes are left; how many are. After a look in vain, none for a while."""
        if time.monotonic() < self._crowded_until:
            return self.limit
        held = self._dropped(to, ())[1]
        if held > to:
            self._crowded_until = time.monotonic() + _CROWDED_S
        return held

    def _dropped(self, max_bytes: int, also: Iterable[Path]) -> tuple[int, int]:
        """The bytes that were freed and those that are left of the store."""
        entries: list[tuple[int, int, Path]] = []
        used, others = self._users.elsewhere(), frozenset(also)
        freed = self._sweep(used, others)
        for path in (*self.root.glob("??/*"), *self.root.glob(f"{_FITTED}/*"), *others):
            with suppress(FileNotFoundError):  # an older Residua may prune too
                stat, folder = path.stat(), path.is_dir()
                size = bytes_of(path)
                if path.suffix != TEMP and (folder or path.suffix == _SUFFIX):
                    entries.append((stat.st_mtime_ns, size, path))
        total = sum(size for _, size, _ in entries)
        for _, size, path in sorted(entries):
            if total <= max_bytes:
                break
            if path.stem[:NAMED] not in used:
                dropped = _drop(path, size)
                total, freed = total - dropped, freed + dropped
        return freed, total

    def _sweep(self, used: Collection[str], also: Iterable[Path] = ()) -> int:
        """Drop what killed processes had not put in place; returns the bytes freed. An entry in the making is held, a
        folder in the making belongs to who uses its key."""
        unfinished = [*self.root.glob(f"{_FITTED}/.*{TEMP}"), *(p for p in also if p.suffix == TEMP and p.is_dir())]
        folders = [p for p in unfinished if p.name.split(".")[1] not in used and is_old(p)]
        return drop_abandoned(
            (*self.root.glob(f"??/.*{TEMP}"), *(p for p in folders if not self._users.knows(p.name[1:])))
        )

    def _check(self, path: Path) -> None:
        """Raise AuditError unless the entry's tensors are those that were put."""
        written = safetensors_file.read_header(path).metadata.get("sha256")
        if safetensors_file.combined(safetensors_file.tensor_digests(path)) != written:
            raise AuditError(f"{path}: its bytes are not those that were written", "delete it", ExitCode.INTEGRITY)


def _drop(path: Path, size: int) -> int:
    """Delete a file or a folder of the store; returns the bytes freed. AuditError (code 3) if the disk refuses."""
    try:
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
    except OSError as error:
        raise disk_error(path, error) from None
    return size
