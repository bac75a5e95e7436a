"""Cohorts as JSONL: question and answer, or text; every fault of a file said at once."""

import json
import re
from pathlib import Path
from typing import Any, cast

from pydantic import ValidationError

from audit.schema import AuditError, Item

_SURROGATE = re.compile(r"[\ud800-\udfff]")
_KNOWN = ("attribute", "form", "frequency", "key")


def read_items(path: Path, group_field: str = "group", own_groups: bool = False) -> tuple[Item, ...]:
    """The items of a JSONL file: question and answer, or text; one JSON object a line, blank lines ignored.

    A line without ``group_field`` is its own group if it is plain text or if ``own_groups``. Without ``id`` a line is
    named by its number. Fields that are not known are ignored. AuditError (code 2) names the file and the bad lines.
    """
    try:
        lines = path.read_text(encoding="utf-8-sig").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        why = getattr(error, "strerror", None) or str(error)
        raise AuditError(f"{path}: cannot be read ({why})", "check the path in [data] and the file") from None
    items: list[Item] = []
    faults: list[str] = []
    seen: dict[str, int] = {}
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            item = _item(line, f"{path.stem}-{number}", group_field, own_groups)
        except ValueError as error:
            faults.append(f"line {number}: {_said(error)}")
            continue
        if item.id in seen:
            faults.append(f"line {number}: id {item.id!r} is on line {seen[item.id]} already")
        seen.setdefault(item.id, number)
        items.append(item)
    if faults:
        more = f" (and {len(faults) - 5} more lines)" if len(faults) > 5 else ""
        raise AuditError(f"{path}: {'; '.join(faults[:5])}{more}", "correct these lines")
    return tuple(items)


def _said(error: ValueError) -> str:
    """What is wrong with a line, in one sentence."""
    if isinstance(error, ValidationError):
        first = error.errors()[0]
        return f"{'.'.join(str(part) for part in first['loc'])}: {first['msg']}"
    return f"not JSON ({error})" if isinstance(error, json.JSONDecodeError) else str(error)


def _item(line: str, name: str, group_field: str, own_groups: bool) -> Item:
    """One line as an item; ValueError says what is wrong with it."""
    loaded: Any = json.loads(line)
    if not isinstance(loaded, dict):
        raise ValueError("not a JSON object")
    row = {key: value for key, value in cast("dict[str, Any]", loaded).items() if value is not None}
    if _SURROGATE.search(json.dumps(row, ensure_ascii=False)):
        raise ValueError("half a character (a lone surrogate such as \\ud800) is no text")
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
        {key: row[key] for key in _KNOWN if key in row}
        | {"id": identity, "group": group, "question": question, "answer": answer}
        | {"paraphrased_answer": row.get("paraphrased_answer")}
        | {"perturbed_answers": _several(row.get("perturbed_answers", row.get("perturbed_answer")))}
        | {"alternates": _several(row.get("alternates")), "alternate_keys": _several(row.get("alternate_keys"))}
    )


def _several(value: object) -> object:
    """One string or a list of them, as a list; anything else is left to the noun to refuse."""
    return [] if value is None else [value] if isinstance(value, str) else value
