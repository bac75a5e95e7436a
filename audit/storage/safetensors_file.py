"""Safetensors files read and written by hand: every fault is an AuditError, and the bytes written are deterministic.

No torch import: ``residua fingerprint`` and ``residua verify`` stay light. The format is eight bytes of header length,
a JSON header (name -> dtype, shape, data_offsets) and the data (https://github.com/huggingface/safetensors).
"""

import hashlib
import json
import mmap
import os
import re
from collections.abc import Generator, Iterable, Mapping
from contextlib import contextmanager
from functools import lru_cache
from math import prod
from pathlib import Path
from typing import Any, NamedTuple, cast

from audit.schema import AuditError, ExitCode
from audit.storage.file_kinds import refuse_special

# name in the file -> (bits an element, mask of the exponent bits of its integer view; 0: always finite)
_FORMATS: dict[str, tuple[int, int]] = {
    "F64": (64, 0x7FF0000000000000), "F32": (32, 0x7F800000), "F16": (16, 0x7C00), "BF16": (16, 0x7F80),
    "F8_E5M2": (8, 0x7C), "F8_E4M3": (8, 0x7F), "F8_E8M0": (8, 0xFF), "F8_E5M2FNUZ": (8, 0), "F8_E4M3FNUZ": (8, 0),
    "F6_E2M3": (6, 0), "F6_E3M2": (6, 0), "F4": (4, 0), "I64": (64, 0), "U64": (64, 0), "I32": (32, 0), "U32": (32, 0),
    "I16": (16, 0), "U16": (16, 0), "I8": (8, 0), "U8": (8, 0), "BOOL": (8, 0), "C64": (64, 0),
}  # fmt: skip
# what is no number where all other bit patterns are finite: minus nought
_NO_NUMBER = {"F8_E5M2FNUZ": 0x80, "F8_E4M3FNUZ": 0x80}
_HEADER_LIMIT = 100_000_000
_CHUNK_BYTES = 1 << 26
_MOST = 2**63 - 1


class Entry(NamedTuple):
    """One tensor of a file: its dtype (the file's name for it), shape, and where its bytes lie [start, end)."""

    dtype: str
    shape: tuple[int, ...]
    start: int
    end: int


class Header(NamedTuple):
    """What a file says it holds."""

    entries: dict[str, Entry]
    metadata: dict[str, str]


class FileDigest(NamedTuple):
    """sha256 of the whole file, and of each tensor (dtype, shape and bytes)."""

    sha256: str
    tensors: dict[str, str]
    size_bytes: int


def _broken(path: Path, reason: str) -> AuditError:
    return AuditError(
        f"{path}: not a whole safetensors file: {reason}", "fetch or copy the file again", ExitCode.INTEGRITY
    )


def _parse(path: Path, raw: bytes, size: int) -> Header:
    """The header in ``raw``, its offsets made absolute and held against the file's size."""
    try:
        header = _named(json.loads(raw.decode(), object_pairs_hook=_once, parse_constant=_no_number), "the header")
        metadata = _texts(header.pop("__metadata__", {}))
        begin = 8 + len(raw)
        entries = {name: _entry(name, stated, begin) for name, stated in header.items()}
    except (ValueError, RecursionError) as error:
        raise _broken(path, f"its header cannot be read ({error})") from None
    end = begin
    for name, entry in sorted(entries.items(), key=lambda pair: (pair[1].start, pair[1].end)):
        if entry.dtype not in _FORMATS:
            raise _broken(path, f"tensor {name!r} has the unknown dtype {entry.dtype!r}")
        if entry.start != end or 8 * (entry.end - entry.start) != prod(entry.shape) * _FORMATS[entry.dtype][0]:
            raise _broken(path, f"the place of tensor {name!r} does not fit its shape")
        end = entry.end
    if end != size:
        raise _broken(path, f"it should have {end} bytes and has {size}" + (" (truncated)" if size < end else ""))
    return Header(entries, metadata)


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object none of whose names stands twice, each of them text that UTF-8 can say. ValueError otherwise."""
    held = dict(pairs)
    if len(held) < len(pairs):
        raise ValueError("a name stands twice")
    "".join(held).encode()  # half a character, which no library reads
    return held


def _no_number(constant: str) -> float:
    raise ValueError(f"{constant} is no JSON")


def _named(value: Any, place: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ValueError(f"{place} is no object")
    return cast("dict[str, Any]", value)


def _texts(stated: Any) -> dict[str, str]:
    """What ``__metadata__`` states: texts under names."""
    metadata = _named(stated, "__metadata__")
    for value in metadata.values():
        if not isinstance(value, str):
            raise ValueError("__metadata__ holds what is no text")
        value.encode()
    return metadata


def _entry(name: str, stated: Any, begin: int) -> Entry:
    """One tensor as the header states it, its place counted from the start of the file."""
    held = _named(stated, f"tensor {name!r}")
    dtype, shape, place = (held.get(key) for key in ("dtype", "shape", "data_offsets"))
    if not isinstance(dtype, str):
        raise ValueError(f"the dtype of tensor {name!r} is no text")
    sides, (start, end) = _counts(name, "shape", shape), _counts(name, "data_offsets", place, 2)
    if prod(max(side, 1) for side in sides) > _MOST:
        raise ValueError(f"tensor {name!r} has more elements than can be counted")
    return Entry(dtype, sides, begin + start, begin + end)


def _counts(name: str, field: str, stated: Any, exactly: int | None = None) -> tuple[int, ...]:
    """A list of whole numbers from nought to 2^63 - 1."""
    held = cast("list[Any]", stated) if isinstance(stated, list) else [-1]
    if any(type(n) is not int or not 0 <= n <= _MOST for n in held) or (exactly or len(held)) != len(held):
        wanted = "a list of whole numbers" if exactly is None else "two whole numbers"
        raise ValueError(f"{field} of tensor {name!r} is not {wanted}")
    return tuple(held)


def read_header(path: Path) -> Header:
    """What does the file hold? AuditError (code 3) if it is truncated or anything in it does not fit."""
    refuse_special(path)
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            if size < 8 or length > min(size - 8, _HEADER_LIMIT):
                raise _broken(path, f"its header should have {length} bytes, the file has {size} (truncated)")
            return _parse(path, file.read(length), size)
    except OSError as error:
        raise _unreadable(path, error) from None


def _unreadable(path: Path, error: OSError) -> AuditError:
    return AuditError(f"{path}: cannot be read ({error.strerror})", "check the path and its permissions", 3)


@contextmanager
def _mapped(path: Path) -> Generator[memoryview]:
    """The bytes of a file that is not empty, memory-mapped for reading."""
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
        view = memoryview(mapped)
        try:
            yield view
        finally:
            view.release()


def digest(path: Path) -> FileDigest:
    """sha256 of a safetensors file and of each of its tensors; remembered within the process while it is untouched."""
    return _digest(path, stamp(path))


def stamp(path: Path) -> tuple[int, int, int, int]:
    """What changes when a file is written: size, times and inode. AuditError (code 3) where there is none."""
    refuse_special(path)
    try:
        stat = path.stat()
    except OSError as error:
        raise _unreadable(path, error) from None
    return stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns, stat.st_ino


@lru_cache(maxsize=4096)
def _digest(path: Path, stamp: tuple[int, int, int, int]) -> FileDigest:
    tensors = tensor_digests(path)
    with _mapped(path) as view:
        return FileDigest(hashlib.sha256(view).hexdigest(), tensors, stamp[0])


def tensor_digests(path: Path) -> dict[str, str]:
    """sha256 of each tensor of a file, read from disk every time."""
    header = read_header(path)
    with _mapped(path) as view:
        return {n: tensor_sha256(e.dtype, e.shape, view[e.start : e.end]) for n, e in sorted(header.entries.items())}


def tensor_sha256(dtype: str, shape: Iterable[int], data: memoryview) -> str:
    """sha256 (hex) over a tensor's dtype, shape and bytes."""
    with data:
        sha = hashlib.sha256(json.dumps([dtype, list(shape)]).encode())
        sha.update(data)
        return sha.hexdigest()


def combined(tensors: Mapping[str, str]) -> str:
    """One sha256 for named tensors, whatever file or order they lie in. Fingerprints rest on its form."""
    return hashlib.sha256(json.dumps(dict(tensors), sort_keys=True).encode()).hexdigest()


def first_not_finite(path: Path, besides: str = "$^") -> str | None:
    """Which tensor holds a NaN or an infinity? The first by name, or None; names that hold the pattern ``besides`` are
    not looked at. No torch, bfloat16 included."""
    return _first_not_finite(path, stamp(path), besides)


@lru_cache(maxsize=4096)
def _first_not_finite(path: Path, stamp: tuple[int, int, int, int], besides: str) -> str | None:
    header = read_header(path)
    if not header.entries:
        return None
    with _mapped(path) as view:
        for name, entry in sorted(header.entries.items()):
            bits, mask = _FORMATS["F32" if entry.dtype == "C64" else entry.dtype]
            if re.search(besides, name):
                continue
            if mask and _any_set(view[entry.start : entry.end], bits // 8, mask):
                return name
            if (code := _NO_NUMBER.get(entry.dtype)) is not None:
                with view[entry.start : entry.end] as data:
                    if code in data:
                        return name
    return None


def _any_set(data: memoryview, width: int, mask: int) -> bool:
    """Do all bits of the mask stand in any element? Chunks bound the memory."""
    import numpy as np

    with data:
        bits = np.frombuffer(data, dtype=f"<u{width}") if len(data) else np.empty(0, dtype="u1")
        step = _CHUNK_BYTES // width
        present = any(bool(((bits[i : i + step] & mask) == mask).any()) for i in range(0, bits.size, step))
        del bits  # the mapping cannot be closed while an array looks at it
        return present


def encode(tensors: Mapping[str, tuple[str, tuple[int, ...], int]], metadata: Mapping[str, str]) -> bytes:
    """The header for tensors (name -> dtype, shape, bytes) laid out in sorted order, padded to eight bytes."""
    header: dict[str, object] = {"__metadata__": dict(sorted(metadata.items()))} if metadata else {}
    at = 0
    for name in sorted(tensors):
        dtype, shape, size = tensors[name]
        header[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [at, at + size]}
        at += size
    raw = json.dumps(header, separators=(",", ":")).encode()
    raw += b" " * (-len(raw) % 8)
    return len(raw).to_bytes(8, "little") + raw


def sync_folder(folder: Path) -> None:
    """Make a rename in ``folder`` durable."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
