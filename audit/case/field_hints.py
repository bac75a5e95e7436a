"""Names of known data sets, and what is said of a file by them: what was recognised, and what to add to the case."""

import re
from collections.abc import Collection, Mapping, Sequence
from typing import Final

from audit.case.cells import is_absent
from audit.case.replication import FEW_ROWS, neighbours
from audit.case.tables import Row
from audit.schema import Item

GROUPS: Final = (
    "author_id", "author", "subject", "person", "person_id", "name", "title", "entity", "topic", "document",
    "document_id", "doc_id", "user_id",
)  # fmt: skip
_DATA_SETS: Final = (
    ("MUSE", {"prompt", "gt"}), ("RWKU", {"query", "answer", "subject"}), ("RWKU", {"query", "answer", "level"}),
    ("WMDP and MMLU", {"question", "choices", "answer"}), ("chat data", {"messages"}),
    ("LLaVA", {"image", "conversations"}), ("CLEAR", {"image", "caption", "name"}),
    ("MLLMU-Bench", {"image", "biography", "question"}),
    ("ShareGPT", {"conversations"}), ("Alpaca", {"instruction", "output"}),
    ("prompt-completion data", {"prompt", "completion"}),
)  # fmt: skip
_BESIDE: Final = frozenset({"context", "passage", "background", "evidence", "history", "system", "system_prompt"})
"""Columns that a model may have read with the question."""
_TOFU: Final = 20
"""Rows of one author of TOFU, as it is published."""


def plainly(name: str) -> str:
    """A column's name without case, spaces and hyphens."""
    return re.sub(r"[\s\-]+", "_", name.strip().casefold())


def recognition_notes(
    filled: Collection[str], columns: Mapping[str, str], group: str | None, wanted: str
) -> tuple[str, ...]:
    """Which columns, of those that are ``filled``, stand for which roles under other names, and what follows of that.

    ``wanted`` is what the case calls the column of the groups.
    """
    notes: list[str] = []
    own_names = {role: (role, role.removesuffix("s")) for role in columns}
    renamed = [
        f"`{column}` is read as {_role(role)}"
        for role, column in columns.items()
        if plainly(column) not in own_names[role]
    ]
    if renamed:
        have = {plainly(column) for column in filled}
        known = next((f", as in {name}" for name, needed in _DATA_SETS if needed <= have), "")
        notes.append("; ".join(renamed) + known)
    if "input" in columns:
        notes.append(f"`{columns['input']}` stands below the question, on a line of its own, where it is not empty")
    if "messages" in columns:
        notes.append("of a chat the user's turn is the question and the assistant's turn the answer")
    if "choices" in columns and "answer" in columns:
        notes.append(
            f"the answer is the one of `{columns['choices']}` that `{columns['answer']}` names; the others are "
            "perturbed answers, and the choices are not part of the question"
        )
    beside = sorted(c for c in filled if plainly(c) in _BESIDE and c not in (*columns.values(), group))
    if beside:
        listed = ", ".join(f"`{column}`" for column in beside)
        notes.append(
            f"{listed} may belong to the question and is not read (what stands below it is `input` in [data.fields], "
            "what stands above it is `system` or `prompt` in [template])"
        )
    if group is not None and group != wanted:
        notes.append(f"`{group}` is the group")
    return tuple(notes)


def _role(role: str) -> str:
    return role.replace("_", " ") if role.endswith("s") or role in ("text", "input") else f"the {role}"


def group_hint(rows: Sequence[Row], columns: Mapping[str, str]) -> str:
    """What to write into [data] of a file whose rows name no group; ``columns``: role -> column, as recognised."""
    read = [column for role, column in columns.items() if role != "subject"]  # what is asked about may be the group too
    others = {column: None for row in rows for column in row.values if column not in read}
    alike = [c for c in others if plainly(c) in GROUPS or plainly(c).endswith(("group", "author", "person", "_id"))]
    counted = {c: len({str(row.values.get(c)) for row in rows if not is_absent(row.values.get(c))}) for c in alike}
    filled = {c: sum(not is_absent(row.values.get(c)) for row in rows) for c in alike}
    fits = sorted(
        (c for c in alike if counted[c]), key=lambda c: (filled[c] < len(rows), counted[c] == len(rows), alike.index(c))
    )
    listed = ", ".join(f"`{column}`: {counted[column]} different in {filled[column]} rows" for column in fits[:4])
    if _published_order(rows, columns) and not (fits and counted[fits[0]] * _TOFU == len(rows)):
        others = f"; else name a column as `group` ({listed})" if fits else ""
        return (
            f"as TOFU is published, {_TOFU} rows in file order are one author: add `group_rows = {_TOFU}` under [data] "
            f"if the file is in that order ({len(rows)} rows, so {len(rows) // _TOFU} by that count){others}"
        )
    if fits:
        return f'the person, author or document of a row is the group: add group = "{fits[0]}" under [data] ({listed})'
    return (
        "give every row the person, author or document that it is about, in a column `group`; or, where so many "
        "consecutive rows are one person, add `group_rows = N` under [data]"
    )


def _published_order(rows: Sequence[Row], columns: Mapping[str, str]) -> bool:
    """Could so many rows be TOFU in the order of its authors? Of many rows neighbours show it."""
    question, answer = columns.get("question", ""), columns.get("answer", "")
    texts = [(str(row.values.get(question, "")), str(row.values.get(answer, ""))) for row in rows]
    authors = sum("author" in words.casefold() for words, _ in texts)
    if not rows or len(rows) % _TOFU or authors * _TOFU < len(rows):
        return False
    items = [Item(id="", group="", question=words, answer=given) for words, given in texts]
    return len(rows) < FEW_ROWS or neighbours(items).run_on
