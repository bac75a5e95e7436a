"""The person-level panels of one world on disk: every assessed effect of every model, as it was measured.

One ``.npz`` a world with two members: a tree of records in JSON, and all arrays end to end. An array that occurs more
than once (what base, the references and the ancestor read is the same for every suspect) is stored once. Nothing is
rounded: what is computed again from a panel is exact.
"""

import io
import json
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple, cast

import numpy as np
from numpy import ndarray

from audit.probing import Design, Panel, Sides
from audit.schema import AuditError, ExitCode
from audit.storage import write_atomic


class Assessed(NamedTuple):
    """One effect of one model: what it was computed from, and what of the score was the assessment's own.

    ``fields`` of the score were as assessed (a probe may have put another number in place of one), ``readings`` are the
    names of those readings that the assessment gave.
    """

    panel: Panel
    design: Design
    fields: tuple[str, ...]
    readings: tuple[str, ...]


Panels = Mapping[str, Mapping[str, Assessed]]
"""By model, and by measurement (``probe.name``)."""
_RECORDS = {record.__name__: record for record in (Assessed, Panel, Design, Sides)}


def panels_path(folder: Path, world: int) -> Path:
    """Where a world's panels lie in a folder."""
    return folder / f"world-{world:04d}.npz"


def write_panels(path: Path, panels: Panels) -> None:
    """Write panels whole or not at all; equal panels give equal bytes."""
    pool = _Pool()
    tree = {model: {name: pool.tree(entry) for name, entry in measured.items()} for model, measured in panels.items()}
    index = json.dumps({"arrays": pool.index, "models": tree}, separators=(",", ":")).encode()
    file = io.BytesIO()
    np.savez_compressed(file, tree=_bytes(index), values=_bytes(b"".join(pool.chunks)))
    write_atomic(path, file.getvalue())


def read_panels(path: Path) -> dict[str, dict[str, Assessed]]:
    """The panels in one file. AuditError (code 3) if it cannot be read as such."""
    try:
        with np.load(path, allow_pickle=False) as file:
            document, values = json.loads(file["tree"].tobytes()), file["values"].tobytes()
        arrays = [_array(values, *where) for where in document["arrays"]]
        return {
            model: {name: cast("Assessed", _record(tree, arrays)) for name, tree in measured.items()}
            for model, measured in document["models"].items()
        }
    except (OSError, ValueError, KeyError, TypeError, IndexError, EOFError, zipfile.BadZipFile) as error:
        raise AuditError(
            f"{path} holds no panels of a world ({error})",
            "delete the world's scores, so that it is scored again",
            ExitCode.INTEGRITY,
        ) from error


def add_panels(path: Path, new: Panels) -> None:
    """Put panels beside those that a file holds, if there is one."""
    before = read_panels(path) if path.is_file() else {}
    names = dict.fromkeys((*before, *new))
    write_panels(path, {name: {**before.get(name, {}), **new.get(name, {})} for name in names})


class _Pool:
    """Arrays end to end, each content once."""

    def __init__(self) -> None:
        self.chunks: list[bytes] = []
        self.index: list[tuple[str, tuple[int, ...], str, int]] = []
        self._places: dict[tuple[str, tuple[int, ...], str, bytes], int] = {}
        self._end = 0

    def tree(self, value: object) -> object:
        """A value as JSON, arrays by number and records by name."""
        if isinstance(value, ndarray):
            return {"array": self._place(value)}
        if isinstance(value, tuple) and type(value).__name__ in _RECORDS:
            fields: dict[str, object] = cast("Any", value)._asdict()
            return {"record": type(value).__name__, **{name: self.tree(field) for name, field in fields.items()}}
        if isinstance(value, (tuple, list)):
            return [self.tree(part) for part in cast("tuple[object, ...]", value)]
        return value.item() if isinstance(value, np.generic) else value

    def _place(self, array: ndarray) -> int:
        # In the order in which it lies in memory, since sums are taken in that order.
        order, data = "C" if array.flags.c_contiguous else "F", array.tobytes("A")
        key = (array.dtype.str, array.shape, order, data)
        if key not in self._places:
            self._places[key] = len(self.index)
            self.index.append((array.dtype.str, array.shape, order, self._end))
            self.chunks.append(data)
            self._end += len(data)
        return self._places[key]


def _bytes(data: bytes) -> ndarray:
    return np.frombuffer(data, dtype=np.uint8)


def _array(values: bytes, dtype: str, shape: list[int], order: Literal["C", "F"], start: int) -> ndarray:
    count = int(np.prod(shape, dtype=int))
    flat = np.frombuffer(values, dtype=np.dtype(dtype), count=count, offset=start if count else 0)
    return flat.reshape(shape, order=order)


def _record(tree: Any, arrays: list[ndarray]) -> object:
    if isinstance(tree, list):
        return tuple(_record(part, arrays) for part in cast("list[Any]", tree))
    if not isinstance(tree, dict):
        return cast("object", tree)
    fields = cast("dict[str, Any]", tree)
    if "array" in fields:
        return arrays[fields["array"]]
    record: Any = _RECORDS[fields["record"]]
    return record(**{name: _record(field, arrays) for name, field in fields.items() if name != "record"})
