"""Where files are kept, and how they are written: whole or not at all, renamed into place. Free of torch."""

import os
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

from audit.schema import AuditError, ExitCode
from audit.storage.leftovers import held
from audit.storage.safetensors_file import sync_folder

TEMP = ".tmp"


def cache_root() -> Path:
    """Where trained worlds and activations are kept: $RESIDUA_CACHE, else ~/.cache/residua."""
    return Path(os.environ.get("RESIDUA_CACHE") or Path.home() / ".cache" / "residua")


def disk_error(path: Path, error: OSError) -> AuditError:
    """The disk refused to write or delete ``path``."""
    return AuditError(
        f"{path}: cannot be written ({error.strerror or error})",
        "free some space, or choose a folder that can be written; nothing half-written was left behind",
        ExitCode.INTEGRITY,
    )


def write_chunks(path: Path, chunks: Iterable[bytes | memoryview], durable: bool = True) -> None:
    """Write a file whole or not at all: temporary name, flush to disk, rename. AuditError (code 3) if the disk refuses.

    Folders that are missing are made. Not ``durable`` is for what can be computed again and is checked when it is read:
    a killed process leaves it whole all the same, only a machine that stops may not, and the disk is not waited for.
    """
    temp = path.with_name(f".{path.name}.{os.getpid()}{TEMP}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with _opened(temp) as file:
            for chunk in chunks:
                file.write(chunk)
            file.flush()
            if durable:
                os.fsync(file.fileno())
            temp.replace(path)
        if durable:
            sync_folder(path.parent)
    except OSError as error:
        raise disk_error(path, error) from None
    finally:
        with suppress(OSError):
            temp.unlink(missing_ok=True)


def _opened(temp: Path) -> BinaryIO:
    """A new file that is held (:mod:`audit.storage.leftovers`), or at least open where there are no locks."""
    temp.unlink(missing_ok=True)
    handle = held(temp)
    return temp.open("wb") if handle is None else os.fdopen(handle, "wb")


def write_atomic(path: Path, data: bytes) -> None:
    """Write ``data`` whole or not at all (see :func:`write_chunks`)."""
    write_chunks(path, (data,))
