"""Tensors of a safetensors file that training does not leave: matrices that are zero, constant, or of integers, and
vectors that are constant. No torch, bfloat16 included; one that is none of these is known by its first elements."""

from functools import lru_cache
from pathlib import Path
from typing import Final, Literal

import numpy as np
from numpy import ndarray

from audit.storage.safetensors_file import Entry, read_header

Plain = Literal["zero", "constant", "of integers"]
_FLOATS: Final = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": "<u2"}
_ALL_WHOLE: Final = {"F64": 2.0**53, "F32": 2.0**24, "F16": 2.0**11, "BF16": 2.0**8}
"""From here on every number of a type is whole, which says nothing of a matrix."""
_CHUNK: Final = 1 << 16


def plain_matrices(path: Path) -> dict[str, Plain]:
    """Which floating-point matrices (two dimensions or more) of the file are zero, constant, or of integers."""
    stat = path.stat()
    return dict(_plain(path, (stat.st_size, stat.st_mtime_ns, stat.st_ino)))


def constant_vectors(path: Path) -> dict[str, bool]:
    """Is each floating-point vector of the file one number again and again?"""
    entries = read_header(path).entries.items()
    vectors = {name: e for name, e in entries if e.dtype in _FLOATS and len(e.shape) == 1 and e.shape[0] > 1}
    return {name: _kind(path, entry) in ("zero", "constant") for name, entry in vectors.items()}


@lru_cache(maxsize=4096)
def _plain(path: Path, stamp: tuple[int, int, int]) -> tuple[tuple[str, Plain], ...]:
    kinds: list[tuple[str, Plain]] = []
    for name, entry in sorted(read_header(path).entries.items()):
        if entry.dtype in _FLOATS and len(entry.shape) >= 2 and min(entry.shape) > 1:
            kind = _kind(path, entry)
            if kind is not None:
                kinds.append((name, kind))
    return tuple(kinds)


def _kind(path: Path, entry: Entry) -> Plain | None:
    raw = np.memmap(path, dtype=_FLOATS[entry.dtype], mode="r", offset=entry.start, shape=(_count(entry),))
    first = _values(raw[:1], entry)[0]
    constant = integers = True
    counted, bound = False, _ALL_WHOLE[entry.dtype]
    for start in range(0, len(raw), _CHUNK):
        values = _values(raw[start : start + _CHUNK], entry)
        constant = constant and bool((values == first).all())
        integers = integers and bool((values == np.rint(values)).all())
        counted = counted or bool(((values != 0) & (np.abs(values) < bound)).any())
        if not constant and not integers:
            return None
    if constant:
        return "zero" if first == 0 else "constant"
    return "of integers" if counted else None


def _values(raw: ndarray, entry: Entry) -> ndarray:
    """The elements as numbers; bfloat16 is the upper half of a float32."""
    return (raw.astype("<u4") << 16).view("<f4") if entry.dtype == "BF16" else np.asarray(raw)


def _count(entry: Entry) -> int:
    return int(np.prod(entry.shape, dtype=np.int64))
