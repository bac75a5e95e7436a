"""Names of known data sets, and what is said of a file by them: what was recognised, and what to add to the case."""

import re
from collections.abc import Collection, Mapping, Sequence
from typing import Final

from audit.case.cells import is_absent
from audit.case.tables import Row

GROUPS: Final = (
    "author_id", "author", "subject", "person", "person_id", "name", "title", "entity", "topic", "document",
    "document_id", "doc_id", "user_id",
)  # fmt: skip
_DATA_SETS: Final = (
    ("MUSE", {"prompt", "gt"}), ("RWKU", {"query", "answer", "subject"}), ("RWKU", {"query", "answer", "level"}),
    ("WMDP and MMLU", {"question", "choices", "answer"}), ("chat data", {"messages"}),
    ("ShareGPT", {"conversations"}), ("Alpaca", {"instruction", "output"}),
    ("prompt-completion data", {"prompt", "completion"}),
)  # fmt: skip


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
    if group is not None and group != wanted:
        notes.append(f"`{group}` is the group")
    return tuple(notes)


def _role(role: str) -> str:
    return role.replace("_", " ") if role.endswith("s") or role in ("text", "input") else f"the {role}"


def group_hint(rows: Sequence[Row], columns: Mapping[str, str]) -> str:
    """What to write into [data] of a file whose rows name no group; ``columns``: role -> column, as recognised."""
    others = {column: None for row in rows for column in row.values if column not in columns.values()}
    alike = [c for c in others if plainly(c) in GROUPS or plainly(c).endswith(("group", "author", "person", "_id"))]
    counted = {c: len({str(row.values.get(c)) for row in rows if not is_absent(row.values.get(c))}) for c in alike}
    fits = sorted((c for c in alike if counted[c]), key=lambda c: (counted[c] == len(rows), alike.index(c)))
    if fits:
        listed = ", ".join(f"`{column}`: {counted[column]} different in {len(rows)} rows" for column in fits[:4])
        return f'the person, author or document of a row is the group: add group = "{fits[0]}" under [data] ({listed})'
    question = columns.get("question", "")
    authors = sum("author" in str(row.values.get(question, "")).casefold() for row in rows)
    if rows and len(rows) % 20 == 0 and authors * 20 >= len(rows):
        return (
            "as TOFU is published, 20 rows in file order are one author: add `group_rows = 20` under [data] if the "
            f"file is in that order ({len(rows)} rows, so {len(rows) // 20} by that count)"
        )
    return (
        "give every row the person, author or document that it is about, in a column `group`; or, where so many "
        "consecutive rows are one person, add `group_rows = N` under [data]"
    )
