"""Cohorts as JSONL: question and answer, or text; every fault of a file said at once."""

import json
import logging
import re
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, cast

from pydantic import ValidationError

from audit.schema import FORMS, AuditError, Item

log = logging.getLogger(__name__)

_SURROGATE = re.compile(r"[\ud800-\udfff]")
_COPIED = ("attribute", "form", "frequency", "key")
_KNOWN = frozenset(
    {*Item.model_fields, "text", "perturbed_answer"}  # a line may say `text` for an answer, and one perturbed answer
)
_IMAGES = frozenset({"image", "images", "image_path", "image_paths", "image_url", "image_urls", "pixel_values"})


def read_items(path: Path, group_field: str = "group", own_groups: bool = False) -> tuple[Item, ...]:
    """The items of a JSONL file: question and answer, or text; one JSON object a line, blank lines ignored.

    A line without ``group_field`` is its own group if it is plain text or if ``own_groups``. Without ``id`` a line is
    named by its number. Fields that are not known are ignored, and logged once a file. AuditError (code 2) names the
    file and the bad lines, and a column of images, which is not ignored.
    """
    try:
        lines = path.read_text(encoding="utf-8-sig").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        why = getattr(error, "strerror", None) or str(error)
        raise AuditError(f"{path}: cannot be read ({why})", "check the path in [data] and the file") from None
    items: list[Item] = []
    faults: list[str] = []
    seen: dict[str, int] = {}
    fields: dict[str, int] = {}
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            row = _row(line)
            for name in row:
                fields.setdefault(name, number)
            item = _item(row, f"{path.stem}-{number}", group_field, own_groups)
        except ValueError as error:
            faults.append(f"line {number}: {_said(error)}")
            continue
        if item.id in seen:
            faults.append(f"line {number}: id {item.id!r} is on line {seen[item.id]} already")
        seen.setdefault(item.id, number)
        items.append(item)
    _check_images(path, fields)
    if faults:
        more = f" (and {len(faults) - 5} more lines)" if len(faults) > 5 else ""
        raise AuditError(f"{path}: {'; '.join(faults[:5])}{more}", "correct these lines")
    _log_unknown(path, fields.keys() - {group_field}, items)
    return tuple(items)


def _check_images(path: Path, fields: Mapping[str, int]) -> None:
    """AuditError where some line brings an image: it would be another item without it. ``fields``: name -> line."""
    images = [f"`{name}` (line {fields[name]})" for name in sorted(_IMAGES & fields.keys())]
    if images:
        do = "audit items of text alone, or take the column out of the file if the questions stand without it"
        raise AuditError(f"{path}: {', '.join(images)}: images are not supported yet", do)


def _log_unknown(path: Path, fields: Collection[str], items: Collection[Item]) -> None:
    """Say once a file what was not read, and which forms are counted as held out because nothing declares them."""
    if unknown := sorted(set(fields) - _KNOWN):
        log.warning("%s: fields that are not read: %s", path, ", ".join(unknown))
    if undeclared := sorted({item.form for item in items} - FORMS.keys()):
        declared = ", ".join(FORMS)
        log.warning("%s: items of form %s count as held out (declared are %s)", path, ", ".join(undeclared), declared)


def _said(error: ValueError) -> str:
    """What is wrong with a line, in one sentence."""
    if isinstance(error, ValidationError):
        first = error.errors()[0]
        return f"{'.'.join(str(part) for part in first['loc'])}: {first['msg']}"
    return f"not JSON ({error})" if isinstance(error, json.JSONDecodeError) else str(error)


def _row(line: str) -> dict[str, Any]:
    """What one line states; ValueError says what is wrong with it."""
    loaded: Any = json.loads(line)
    if not isinstance(loaded, dict):
        raise ValueError("not a JSON object")
    row = {key: value for key, value in cast("dict[str, Any]", loaded).items() if value is not None}
    if _SURROGATE.search(json.dumps(row, ensure_ascii=False)):
        raise ValueError("half a character (a lone surrogate such as \\ud800) is no text")
    return row


def _item(row: dict[str, Any], name: str, group_field: str, own_groups: bool) -> Item:
    """One line's fields as an item; ValueError says what is wrong with them."""
    question, answer = row.get("question", ""), row.get("answer", row.get("text"))
    if not isinstance(answer, str) or not answer.strip():
        raise ValueError("no `answer` (with `question`) and no `text`")
    identity = str(row.get("id", name))
    if group_field in row:
        group = str(row[group_field])
    elif own_groups or not question:
        group = identity
    else:
        known = ", ".join(sorted(key for key in row if key.endswith(("id", "group", "author", "person", "subject"))))
        raise ValueError(f"no {group_field!r}: name the field to split by as `group` in [data] (here are: {known})")
    return Item.model_validate(
        {key: row[key] for key in _COPIED if key in row}
        | {"id": identity, "group": group, "question": question, "answer": answer}
        | {"paraphrased_answer": row.get("paraphrased_answer")}
        | {"perturbed_answers": _several(row.get("perturbed_answers", row.get("perturbed_answer")))}
        | {"alternates": _several(row.get("alternates")), "alternate_keys": _several(row.get("alternate_keys"))}
    )


def _several(value: object) -> object:
    """One string or a list of them, as a list; anything else is left to the noun to refuse."""
    return [] if value is None else [value] if isinstance(value, str) else value
