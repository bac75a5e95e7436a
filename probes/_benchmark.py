"""The published list of concept vectors, read from a file in its format: which column of which block is which concept.

A file is a JSON list of objects with ``Concept``, ``Layer`` and ``Dim``, and optionally ``ID`` (or ``id``), ``QA`` and
``unrelated_QA`` (lists of questions), ``text_completion`` (objects with ``First_half``) and ``wikipedia_content``.
"""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from audit.probing import AuditError, as_audit_error

_HUB = re.compile(r"(?P<name>[\w.-]+/[\w.-]+)@(?P<commit>[0-9a-f]{40})/(?P<file>\S+\.json)")
_FORMAT = "give a JSON list of objects with Concept, Layer and Dim, as YihuaiHong/ConceptVectors publishes them"
_WHERE = "give a path, or owner/name@commit/file.json of a data set of the hub (40 hexadecimal digits of the commit)"


class Concept(NamedTuple):
    """One entry: a concept, the column that is said to hold it, and texts about it and about others."""

    name: str
    block: int
    unit: int
    questions: tuple[str, ...]
    beginnings: tuple[str, ...]
    unrelated: tuple[str, ...]
    article: str


def read_benchmark(source: str, root: Path) -> tuple[Concept, ...]:
    """The entries of a file, a path relative to ``root`` or a file of the hub that is in the local cache.

    AuditError (code 2) says which entry is amiss and how.
    """
    path = _located(source, root)
    do = "give a readable file of UTF-8 text"
    with as_audit_error(f"{path}: the benchmark cannot be read", do):
        text = path.read_text(encoding="utf-8-sig")
    try:
        entries: Any = json.loads(text)
    except json.JSONDecodeError as error:
        raise AuditError(f"{path}: no JSON (line {error.lineno}: {error.msg})", _FORMAT) from None
    if not isinstance(entries, list) or not entries:
        raise AuditError(f"{path}: the benchmark is no list of entries, or an empty one", _FORMAT)
    return tuple(_concept(entry, f"{path}: entry {n}") for n, entry in enumerate(entries, 1))


def _located(source: str, root: Path) -> Path:
    local = root / Path(source).expanduser()
    if local.is_file():
        return local
    parts = _HUB.fullmatch(source)
    if parts is None:
        raise AuditError(f"benchmark {source!r}: no such file ({local})", _WHERE)
    from huggingface_hub import hf_hub_download

    name, commit, file = parts["name"], parts["commit"], parts["file"]
    do = f"fetch it with: hf download {name} {file} --repo-type dataset --revision {commit}"
    with as_audit_error(f"{source}: not in the local cache, and nothing is fetched unasked", do):
        return Path(hf_hub_download(name, file, repo_type="dataset", revision=commit, local_files_only=True))


def _concept(entry: object, where: str) -> Concept:
    if not isinstance(entry, dict):
        raise AuditError(f"{where} is no object", _FORMAT)
    fields: Mapping[str, object] = {str(key): value for key, value in entry.items()}
    missing = [name for name in ("Concept", "Layer", "Dim") if name not in fields]
    if missing:
        raise AuditError(f"{where} has no {missing[0]!r}", _FORMAT)
    return Concept(
        str(fields["Concept"]), _whole(fields, "Layer", where), _whole(fields, "Dim", where),
        _texts(fields, "QA", where), _texts(fields, "text_completion", where, "First_half"),
        _texts(fields, "unrelated_QA", where), str(fields.get("wikipedia_content") or ""),
    )  # fmt: skip


def _whole(fields: Mapping[str, object], name: str, where: str) -> int:
    value = fields[name]
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise AuditError(f"{where}: {name} is {value!r}, no whole number from 0 on", _FORMAT)
    return value


def _texts(fields: Mapping[str, object], name: str, where: str, part: str = "") -> tuple[str, ...]:
    """The strings of one list, or one string of each of its objects; none where there is no such list."""
    values = fields.get(name)
    if values is None:
        return ()
    if not isinstance(values, list):
        raise AuditError(f"{where}: {name} is no list", _FORMAT)
    texts = [value.get(part) if part and isinstance(value, dict) else value for value in values]
    for n, text in enumerate(texts, 1):
        if not isinstance(text, str):
            wanted = f"an object with {part!r}" if part else "a string"
            raise AuditError(f"{where}: number {n} of {name} is not {wanted}", _FORMAT)
    return tuple(str(text) for text in texts)
