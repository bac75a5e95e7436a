"""Cohorts as JSONL, split once by group, and the rule that says which words of an answer carry the fact.

**Content rule.** The key, where the item names one: its first whole-word occurrence in the answer. A matched alternate
has its own key: the one given, else what stands where the answer's key stood. Everything else (answers without a key,
paraphrased and perturbed answers, so that both sides of a truth ratio follow one rule): the words of the answer that
are not in the question and are no English function words; if nothing is left, the whole answer. No model is asked.
"""

import hashlib
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple, cast

from pydantic import ValidationError

from audit.casefile import load_case
from audit.nouns import AuditError, Cohort, Item

__all__ = ["Split", "check_disjoint", "content_spans", "load_case", "read_items", "split"]

_WORD = re.compile(r"[^\W_]+(?:['’.\-][^\W_]+)*")
_SURROGATE = re.compile(r"[\ud800-\udfff]")
_POSSESSIVE = re.compile(r"['’]s$")
_FUNCTION_WORDS = (
    "a an the and or but nor so yet if than that this these those there here it its he she they them his her their "
    "him hers theirs i me my we us our you your who whom whose which what when where why how is am are was were be "
    "been being do does did done has have had having will would shall should can could may might must not no yes "
    "of in on at to from by for with about as into onto over under after before during between through per via "
    "also very just both each any all some such own same other"
)
FUNCTION_WORDS = frozenset(_FUNCTION_WORDS.split())
_KNOWN = ("attribute", "form", "frequency", "key")


class Split(NamedTuple):
    """Items by part: what we fit is fitted on ``calibration`` and measured on ``audit``. No group is in both."""

    calibration: tuple[Item, ...]
    audit: tuple[Item, ...]


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


def split(items: tuple[Item, ...], seed: int) -> Split:
    """Halve the groups, the larger half to ``audit``. Depends on group names and seed only, not on the rows' order."""
    names = {item.group for item in items}
    ranked = sorted(names, key=lambda group: hashlib.sha256(f"{seed}\n{group}".encode()).digest())
    fitted = set(ranked[: len(ranked) // 2])
    return Split(
        calibration=tuple(item for item in items if item.group in fitted),
        audit=tuple(item for item in items if item.group not in fitted),
    )


def check_disjoint(cohorts: Mapping[Cohort, tuple[Item, ...]]) -> None:
    """Do forget, retain and holdout share no id, no group and no text, and general no text with forget?

    AuditError (code 2) lists every overlap with examples.
    """
    faults: list[str] = []
    strict: tuple[Cohort, ...] = ("forget", "retain", "holdout")
    pairs: list[tuple[Cohort, Cohort]] = [(a, b) for i, a in enumerate(strict) for b in strict[i + 1 :]]
    pairs.append(("forget", "general"))
    for a, b in pairs:
        one, other = cohorts.get(a, ()), cohorts.get(b, ())
        texts = {(item.question.strip(), item.answer.strip()): item.id for item in one}
        same = [item.id for item in other if (item.question.strip(), item.answer.strip()) in texts]
        found = [("text", same)]
        if b != "general":
            found.append(("id", sorted({item.id for item in one} & {item.id for item in other})))
            found.append(("group", sorted({item.group for item in one} & {item.group for item in other})))
        faults += [
            f"{a} and {b} share {len(shared)} {what}{'s' if len(shared) > 1 else ''} ({', '.join(shared[:3])})"
            for what, shared in found
            if shared
        ]
    if faults:
        raise AuditError("; ".join(faults), "make the cohorts disjoint: no item, group or text in two of them")


# ---- the content rule -------------------------------------------------------------------------------------------
def content_spans(item: Item, answer: str) -> tuple[tuple[int, int], ...]:
    """Which characters of ``answer`` carry the fact? Spans [start, end), by the content rule of this module.

    ``answer`` is one of the item's answers. AuditError (code 2) if the item's key is not in it.
    """
    key = _key_of(item, answer)
    if key is None:
        return _content_words(item.question, answer)
    whole = re.search(rf"(?<!\w){re.escape(key)}(?!\w)", answer)
    start = whole.start() if whole else answer.find(key)
    if start < 0 or not key:
        raise AuditError(f"item {item.id!r}: its key {key!r} is not in the answer {answer!r}", "correct the key")
    return ((start, start + len(key)),)


def _key_of(item: Item, answer: str) -> str | None:
    """The key that the item names for this answer, or None."""
    if answer == item.answer:
        return item.key
    if answer not in item.alternates:
        return None
    index = item.alternates.index(answer)
    if index < len(item.alternate_keys):
        return item.alternate_keys[index]
    if item.key is None:
        return None
    before, _, after = item.answer.partition(item.key)
    middle = answer[len(before) : len(answer) - len(after)]
    return middle if middle and before + middle + after == answer else None


def _content_words(question: str, answer: str) -> tuple[tuple[int, int], ...]:
    """Spans of the answer's words that the question does not give away."""
    asked = {_plain(match.group()) for match in _WORD.finditer(question)}
    spans = [m.span() for m in _WORD.finditer(answer) if _plain(m.group()) not in asked | FUNCTION_WORDS]
    if spans:
        return tuple(spans)
    start = len(answer) - len(answer.lstrip())
    return ((start, len(answer.rstrip())),)


def _plain(word: str) -> str:
    return _POSSESSIVE.sub("", word.casefold())
