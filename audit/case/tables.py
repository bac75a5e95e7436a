"""Data files as rows: JSON lines, JSON, CSV, TSV, Parquet, Arrow, and folders that ``datasets`` saved.

What a file is, is seen by its content where its suffix does not say it. Every row keeps the place that an error names.
Nothing is guessed of a value here, except that an empty cell of a CSV file holds nothing.
"""

import csv
import hashlib
import io
import json
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple, cast

from audit.case import arrow_files
from audit.schema import AuditError, as_audit_error
from audit.storage import refuse_special, too_deep

CHECK: Final = "check the path in [data] and the file"
NOT_A_NUMBER: Final = frozenset({"nan", "NaN", "<NA>"})
"""How pandas writes that a cell holds nothing."""
_SURROGATE = re.compile(r"[\ud800-\udfff]")
_PACKED: Final = {b"\x1f\x8b": "gzip", b"PK\x03\x04": "zip", b"BZh": "bzip2", b"\x28\xb5\x2f\xfd": "zstandard"}
_CSV_SUFFIXES: Final = {".csv": ",;\t", ".tsv": "\t"}
_LONGEST_CELL: Final = 2**31 - 1


class Row(NamedTuple):
    """One row: its number from 1 (of a JSON-lines file: its line), where it stands, what it holds, what is wrong."""

    number: int
    place: str
    values: dict[str, Any]
    fault: str = ""


def read_table(path: Path) -> tuple[Row, ...]:
    """The rows of a data file or folder. AuditError (code 2) if it cannot be read as what it is."""
    if path.is_dir():
        return _numbered(arrow_files.folder_rows(path, _of_shard))
    refuse_special(path, in_memory=True)
    try:
        data = path.read_bytes()
    except OSError as error:
        raise AuditError(f"{path}: cannot be read ({error.strerror})", CHECK) from None
    for magic, name in _PACKED.items():
        if data.startswith(magic):
            raise AuditError(f"{path}: is packed ({name})", "unpack it, and name the unpacked file in [data]")
    if arrow_files.is_arrow(path, data):
        return _numbered(arrow_files.rows(path))
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise AuditError(f"{path}: cannot be read ({error})", "save it as UTF-8") from None
    if path.suffix.lower() in _CSV_SUFFIXES:
        return _csv_rows(path, text)
    return _json_rows(path, text)


def table_sha256(path: Path) -> str:
    """sha256 (hex) of a data file; of a folder, of the names and hashes of the files that are read of it. OSError if
    one cannot be read, AuditError (code 2) if it is unclear which."""
    if not path.is_dir():
        refuse_special(path, in_memory=True)
        return hashlib.sha256(path.read_bytes()).hexdigest()
    parts = arrow_files.parts(path)
    for part in parts:
        refuse_special(part, in_memory=True)
    listed = [(part.name, hashlib.sha256(part.read_bytes()).hexdigest()) for part in parts]
    return hashlib.sha256(json.dumps(listed).encode()).hexdigest()


def _numbered(values: Iterable[dict[str, Any]]) -> tuple[Row, ...]:
    return tuple(Row(n, f"row {n}", row) for n, row in enumerate(values, start=1))


def _of_shard(path: Path) -> list[dict[str, Any]]:
    rows = read_table(path)
    if faults := [f"{row.place}: {row.fault}" for row in rows if row.fault]:
        raise AuditError(f"{path}: {'; '.join(faults[:5])}", "correct these lines")
    return [row.values for row in rows]


# ---- JSON -------------------------------------------------------------------------------------------------------
def _json_rows(path: Path, text: str) -> tuple[Row, ...]:
    """One JSON object a line, or one document: a list of objects, one such list under a name, or columns."""
    start = text.lstrip()[:1]
    if start == "[" or (start == "{" and path.suffix.lower() not in (".jsonl", ".ndjson")):
        try:
            document = _parsed(text)
        except ValueError:
            document = None
        if isinstance(document, list | dict):
            listed = _listed(path, document)
            if listed and all(isinstance(row, str) for row in listed):
                listed = [{"text": row} for row in listed]
            return tuple(_json_row(n, f"row {n}", row) for n, row in enumerate(listed, start=1))
    lines = [(n, line) for n, line in enumerate(text.split("\n"), start=1) if line.strip()]
    return tuple(_json_line(n, line) for n, line in lines)


def _json_line(number: int, line: str) -> Row:
    place = f"line {number}"
    try:
        return _json_row(number, place, _parsed(line))
    except json.JSONDecodeError as error:
        return Row(number, place, {}, f"not JSON ({error})")
    except ValueError as error:
        return Row(number, place, {}, str(error))


def _json_row(number: int, place: str, loaded: Any) -> Row:
    if not isinstance(loaded, dict):
        return Row(number, place, {}, "not a JSON object")
    values = cast("dict[str, Any]", loaded)
    if too_deep(values):
        return Row(number, place, {}, "nested too deep to be read")
    if _SURROGATE.search(json.dumps(values, ensure_ascii=False)):
        return Row(number, place, {}, "half a character (a lone surrogate such as \\ud800) is no text")
    return Row(number, place, values)


def _parsed(text: str) -> Any:
    try:
        return json.loads(text, object_pairs_hook=_once)
    except RecursionError:
        raise ValueError("nested too deep to be read") from None


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) < len(pairs):
        twice = next(name for name, times in Counter(name for name, _ in pairs).items() if times > 1)
        raise ValueError(f"`{twice}` stands twice in one object")
    return values


def _listed(path: Path, document: list[Any] | dict[str, Any]) -> Sequence[Any]:
    """The rows of one JSON document; what stands beside one list of rows, and is none itself, is about it."""
    if isinstance(document, list):
        return document
    lists = {name: v for name, v in document.items() if isinstance(v, list) and v and _is_row(v[0])}
    plain = {name: v for name, v in document.items() if isinstance(v, dict) or (isinstance(v, list) and _is_list(v))}
    if document and len(plain) == len(document) and (not lists or len(lists) < len(plain)):
        by_index = [dict(enumerate(v)) if isinstance(v, list) else v for v in plain.values()]
        if all(column.keys() == by_index[0].keys() for column in by_index):
            if all(name.isdecimal() for name in plain) and not any(str(at).isdecimal() for at in by_index[0]):
                return list(plain.values())
            return [{name: column[at] for name, column in zip(plain, by_index, strict=True)} for at in by_index[0]]
    if len(lists) == 1 and all(document[name] for name in plain):
        return next(iter(lists.values()))
    if document and len(plain) == len(document):
        names = ", ".join(plain)
        raise AuditError(
            f"{path}: several lists ({names}), of which one is meant", "save that one as a file of its own"
        )
    return [document]


def _is_list(value: list[Any]) -> bool:
    """A list of rows or of one column's values, not the turns of a chat."""
    return not value or not isinstance(value[0], dict) or _is_row(value[0])


def _is_row(value: Any) -> bool:
    """An object that is no turn of a chat."""
    return isinstance(value, dict) and not {"role", "from"} & value.keys()


# ---- CSV --------------------------------------------------------------------------------------------------------
def _csv_rows(path: Path, text: str) -> tuple[Row, ...]:
    """The rows under a header. A cell that is empty, or that pandas wrote for nothing, is absent."""
    header = next(filter(str.strip, text.splitlines()), "")
    delimiter = max(_CSV_SUFFIXES[path.suffix.lower()], key=header.count)
    csv.field_size_limit(_LONGEST_CELL)
    spaced = header.count(delimiter) == header.count(f"{delimiter} ") > 0
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True, skipinitialspace=spaced)
    with as_audit_error(f"{path}: not CSV", "write it again with every text in double quotes, or as JSON lines"):
        lines = [(reader.line_num, cells) for cells in reader if cells]
    if not lines:
        return ()
    names = [name.strip() for name in lines[0][1]]
    used = [at for at, name in enumerate(names) if name or any(cells[at:] and cells[at] for _, cells in lines)]
    lines = [(line, [cells[at] for at in used] if len(cells) == len(names) else cells) for line, cells in lines]
    names = [names[at] for at in used]
    if twice := [name for name, times in Counter(names).items() if times > 1]:
        raise AuditError(f"{path}: the header has `{twice[0]}` twice", "give every column a name of its own")
    rows: list[Row] = []
    for n, (line, cells) in enumerate(lines[1:], start=1):
        fault = "" if len(cells) == len(names) else f"{len(cells)} cells under {len(names)} names"
        values = {name: _cell(cell) for name, cell in zip(names, cells, strict=False)}
        rows.append(Row(n, f"row {n} (line {line})", values, fault))
    return tuple(rows)


def _cell(cell: str) -> str | float | None:
    if cell.strip() in NOT_A_NUMBER:
        return float("nan")
    return cell if cell.strip() else None
