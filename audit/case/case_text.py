"""A case as the text of a case file: what is at its default is left out, and paths are those of another folder."""

import json
import os
from collections.abc import Mapping
from pathlib import Path

from pydantic import JsonValue

from audit.schema import Case, DataFiles, Source

_FILES = ("forget", "retain", "holdout", "general", "neighbour", "forms")


def moved(case: Case, root: Path, to: Path) -> Case:
    """The same case for a file in the folder ``to``: paths relative to ``root`` lead to where they led.

    Absolute paths, those of a home folder and hub ids stay as they are.
    """
    roles = case.roles
    sources = {
        "base": _source(roles.base, root, to), "suspect": _source(roles.suspect, root, to),
        "references": tuple(_source(source, root, to) for source in roles.references),
        "ancestor": None if roles.ancestor is None else _source(roles.ancestor, root, to),
    }  # fmt: skip
    files = {name: _path(path, root, to) for name in _FILES if (path := getattr(case.data, name)) is not None}
    return case.model_copy(
        update={
            "roles": roles.model_copy(update=sources),
            "data": DataFiles.model_validate(case.data.model_dump() | files),
            "published": None if case.published is None else _path(case.published, root, to),
        }
    )


def _source(source: Source, root: Path, to: Path) -> Source:
    adapter = None if source.adapter is None else _path(source.adapter, root, to)
    return source.model_copy(update={"path": _path(source.path, root, to), "adapter": adapter})


def _path(path: str, root: Path, to: Path) -> str:
    """A relative path as it is seen from another folder; one of nothing here (a hub id) as it is."""
    target = root / path
    if Path(path).is_absolute() or path.startswith("~") or not target.exists():
        return path
    return Path(os.path.relpath(target.resolve(), to.resolve())).as_posix()


def case_text(case: Case) -> str:
    """The TOML of a case, which reads back as the same case."""
    document: dict[str, JsonValue] = case.model_dump(mode="json", exclude_defaults=True, exclude_none=True)
    return "\n".join(_table(document, "")).strip() + "\n"


def _table(table: Mapping[str, JsonValue], name: str) -> list[str]:
    """The lines of a table: its own values, then the tables in it."""
    lines = [f"{_key(key)} = {toml_value(value)}" for key, value in table.items() if not _nested(value)]
    if name and (lines or not table):
        lines.insert(0, f"\n[{name}]")
    for key, value in table.items():
        below = f"{name}.{_key(key)}" if name else _key(key)
        if isinstance(value, dict):
            lines += _table(value, below)
        elif isinstance(value, list) and _nested(value):
            for entry in value:
                assert isinstance(entry, dict), "the lists of a case are of texts or of tables"
                lines += [f"\n[[{below}]]", *_table(entry, "")]
    return lines


def _nested(value: JsonValue) -> bool:
    return isinstance(value, dict) or (isinstance(value, list) and any(isinstance(entry, dict) for entry in value))


def _key(key: str) -> str:
    return key if key and all(c.isascii() and (c.isalnum() or c in "_-") for c in key) else toml_value(key)


def toml_value(value: JsonValue) -> str:
    """A value as TOML writes it: JSON's notation of texts, numbers, lists and truth is TOML's too."""
    if isinstance(value, list):
        return "[" + ", ".join(map(toml_value, value)) + "]"
    if isinstance(value, float):
        return repr(value)
    return "".join(map(_shown, json.dumps(value, ensure_ascii=False)))


def _shown(c: str) -> str:
    """A character of a text, or the number of one that cannot be seen (TOML has no pairs of numbers for one)."""
    if c.isprintable():
        return c
    return f"\\u{ord(c):04x}" if ord(c) < 0x10000 else f"\\U{ord(c):08x}"
