"""Parquet and Arrow files, and folders of them or of other shards, as ``datasets`` and the hub lay them out."""

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

from audit.schema import AuditError, as_audit_error

SUFFIXES: Final = (".parquet", ".arrow", ".jsonl", ".ndjson", ".json", ".csv", ".tsv")
_PARQUET, _ARROW = b"PAR1", b"ARROW1"
_STATE, _SPLITS = "state.json", "dataset_dict.json"
_ABOUT: Final = frozenset({_STATE, _SPLITS, "dataset_info.json", "dataset_infos.json"})
_SHARD = re.compile(r"(?P<split>.*?)[-_.]?(?P<index>\d{5})-of-(?P<count>\d{5})")
Values = dict[str, Any]


def is_arrow(path: Path, data: bytes) -> bool:
    """Is this a Parquet or an Arrow file, by its first bytes or its name?"""
    return data.startswith((_PARQUET, _ARROW)) or path.suffix.lower() in (".parquet", ".arrow")


def rows(path: Path) -> Iterator[Values]:
    """The rows of a Parquet or Arrow file. AuditError (code 2) if it is none."""
    with as_audit_error(f"{path}: cannot be read as Parquet or Arrow", "save it again, or as JSON lines"):
        names, listed = _read(path)
    if len(set(names)) < len(names):
        raise AuditError(f"{path}: two columns have one name", "give every column a name of its own")
    yield from listed


def _read(path: Path) -> tuple[list[str], list[Values]]:
    import pyarrow
    from pyarrow import ipc, parquet

    with path.open("rb") as file:
        magic = file.read(len(_ARROW))
    if magic.startswith(_PARQUET):
        table = parquet.ParquetFile(path).read()
    elif magic == _ARROW:
        table = ipc.open_file(pyarrow.OSFile(str(path))).read_all()
    else:
        table = ipc.open_stream(pyarrow.OSFile(str(path))).read_all()
    return table.column_names, table.to_pylist() if len(set(table.column_names)) == table.num_columns else []


# ---- folders ----------------------------------------------------------------------------------------------------
def folder_rows(folder: Path, read: Callable[[Path], list[Values]]) -> Iterator[Values]:
    """The rows of all shards of a folder, in their order; ``read`` reads the shards that are neither Parquet nor
    Arrow."""
    for part in parts(folder):
        yield from rows(part) if part.suffix.lower() in (".parquet", ".arrow") else read(part)


def parts(folder: Path) -> tuple[Path, ...]:
    """The files of a folder that hold its rows, in order. AuditError (code 2) if it holds several data sets or none,
    or if a shard is missing."""
    if (folder / _SPLITS).is_file():
        splits = sorted(path.parent for path in folder.glob(f"*/{_STATE}"))
        if len(splits) != 1:
            names = ", ".join(split.name for split in splits) or "none"
            raise AuditError(f"{folder}: holds several splits ({names})", f"name one, such as {folder.name}/<split>")
        return parts(splits[0])
    if (folder / _STATE).is_file():
        return _saved(folder)
    for place in (folder, folder / "data"):
        files = sorted(f for f in place.glob("*") if f.suffix.lower() in SUFFIXES and f.name not in _ABOUT)
        if files:
            return _shards(folder, files)
    raise AuditError(f"{folder}: a folder without data files", f"name a file, or a folder with {', '.join(SUFFIXES)}")


def _saved(folder: Path) -> tuple[Path, ...]:
    """What ``Dataset.save_to_disk`` wrote."""
    with as_audit_error(f"{folder / _STATE}: cannot be read", "save the data set again"):
        state = json.loads((folder / _STATE).read_text(encoding="utf-8"))
        files = tuple(folder / Path(entry["filename"]).name for entry in state["_data_files"])
    if state.get("_indices_data_files"):
        raise AuditError(f"{folder}: holds a selection of rows", "save it again after `flatten_indices()`")
    _check_there(folder, files)
    return files


def _shards(folder: Path, files: list[Path]) -> tuple[Path, ...]:
    """One file, or all shards of one split."""
    if len(files) == 1 and not _SHARD.fullmatch(files[0].stem):
        return (files[0],)
    shards = [(file, match) for file in files if (match := _SHARD.fullmatch(file.stem))]
    kinds = {(match["split"], match["count"], file.suffix.lower()) for file, match in shards}
    if len(shards) < len(files) or len(kinds) != 1:
        names = ", ".join(file.name for file in files[:5]) + (" ..." if len(files) > 5 else "")
        do = "name one of the files, or put the shards of one split into a folder of their own"
        raise AuditError(f"{folder}: holds several data files ({names}), of which one is meant", do)
    ((split, count, suffix),) = kinds
    place, between = files[0].parent, files[0].stem[len(split) : -len(f"00000-of-{count}")]
    wanted = tuple(place / f"{split}{between}{n:05d}-of-{count}{suffix}" for n in range(int(count)))
    _check_there(folder, wanted)
    return wanted


def _check_there(folder: Path, files: tuple[Path, ...]) -> None:
    missing = [file.name for file in files if not file.is_file()]
    if missing or not files:
        raise AuditError(f"{folder}: shards are missing ({', '.join(missing[:3]) or 'all'})", "copy the whole folder")
