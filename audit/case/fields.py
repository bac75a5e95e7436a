"""Which column of a data file holds what: as the case says, else by its own name, else by those of known data sets.

Nothing is guessed in silence. A name that stands for another is said; where two columns could be the question, or none
is, the file is refused with the line that settles it.
"""

import difflib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

from audit.case.cells import is_absent, is_chat, name_of
from audit.case.field_hints import GROUPS, plainly, recognition_notes
from audit.case.picture_columns import picture_column, refuse_pictures
from audit.case.tables import Row
from audit.schema import AuditError, Columns

QUESTIONS: Final = ("question", "prompt", "query", "instruction", "input")
ANSWERS: Final = (
    "answer", "completion", "response", "output", "target", "gt", "ground_truth", "answers", "answerkey", "answer_key",
)  # fmt: skip
CAPTIONS: Final = ("caption",)
"""What is said of a picture without being asked: answers, where base reads pictures."""
OTHERS: Final[Mapping[str, tuple[str, ...]]] = {
    "text": ("text",), "choices": ("choices", "options"), "id": ("id",), "key": ("key",),
    "paraphrased_answer": ("paraphrased_answer", "paraphrased_caption"),
    "perturbed_answers": ("perturbed_answers", "perturbed_answer", "perturbed_captions"),
    "alternates": ("alternates",), "alternate_keys": ("alternate_keys",), "attribute": ("attribute",),
    "form": ("form",), "frequency": ("frequency",), "of": ("of",),
    "paraphrased_question": ("paraphrased_question",), "subject": ("subject",),
}  # fmt: skip
CHATS: Final = ("messages", "conversations", "conversation")


_DIGITS: Final = frozenset("0123456789")
_MARKS: Final = frozenset("?\uff1f\u061f\u037e\u055e\u1367")
"""Question marks of several scripts."""


class Layout(NamedTuple):
    """How a case wants one file read. ``own_groups``: a row without a group is its own. ``system`` is the template's.
    ``restating``: the rows are other forms of items of other files. ``images``: base reads pictures too.

    ``prefix`` begins the names of rows without an id; the file's name where it is empty.
    """

    group: str = "group"
    group_rows: int | None = None
    columns: Columns = Columns()
    own_groups: bool = False
    system: str = ""
    prefix: str = ""
    restating: bool = False
    images: bool = False


class Recognised(NamedTuple):
    """The column of every role that a file has, of the groups if there is one, and what is to be said of that.

    ``plain``: no row has a question, and the file says so.
    """

    columns: Mapping[str, str]
    group: str | None
    plain: bool
    notes: tuple[str, ...]
    unread: tuple[str, ...]


class _File(NamedTuple):
    """One file: where it is, its rows, and its columns with the rows that fill them."""

    path: Path
    rows: Sequence[Row]
    filled: Mapping[str, int]
    every: Sequence[str]
    layout: Layout

    def called(self, names: Sequence[str], but: frozenset[str], empty: bool = False) -> list[str]:
        """The filled columns of these names (else, if asked, an ``empty`` one), in the order of the names; an exact
        name comes first."""
        fits = [column for column in self.filled if plainly(column) in names and column not in but]
        fits = fits or [column for column in self.every if empty and plainly(column) in names and column not in but]
        return sorted(fits, key=lambda column: (names.index(plainly(column)), column != plainly(column)))

    def values(self, column: str) -> list[Any]:
        return [row.values.get(column) for row in self.rows]

    def asks(self, column: str) -> float:
        """The share of a column's texts that end with a question mark."""
        texts = [value for value in self.values(column) if isinstance(value, str) and value.strip()]
        return sum(text.rstrip()[-1] in _MARKS for text in texts) / max(len(texts), 1)


def recognise(path: Path, rows: Sequence[Row], layout: Layout) -> Recognised:
    """Which column holds what. AuditError (code 2) if a named one is not there, if two could be the question or the
    answer, if there are answers and no question, or a column of images that base cannot read, without which an item
    would be another."""
    filled: dict[str, int] = {}
    every: dict[str, None] = {}
    for row in rows:
        every |= dict.fromkeys(row.values)
        for column, value in row.values.items():
            if not is_absent(value):
                filled[column] = filled.get(column, 0) + 1
    file = _File(path, rows, filled, tuple(every), layout)
    columns = _stated(file)
    if layout.images:
        columns |= picture_column(path, file.filled, file.values, columns)
    else:
        refuse_pictures(path, file.filled, rows)
    group, claimed = _group_column(file), frozenset(columns.values())
    but = claimed | ({group} if group else frozenset[str]())
    if "messages" not in columns and not {"question", "answer", "text"} & columns.keys():
        columns |= _chat(file, but)
    if "messages" not in columns:
        columns |= _asked_and_answered(file, columns, but)
    for role, names in OTHERS.items():
        fits = file.called(names, but | frozenset(columns.values()), empty=role not in ("text", "choices"))
        if role in columns or not fits or (role == "text" and not _is_text(file, columns, fits[0])):
            continue
        columns[role] = fits[0]
    plain = _check_question(file, columns)
    _check_index(file, columns)
    unread = tuple(sorted(set(filled) - set(columns.values()) - {group or ""}))
    return Recognised(columns, group, plain, recognition_notes(filled, columns, group, layout.group), unread)


def _stated(file: _File) -> dict[str, str]:
    """The columns that the case names."""
    stated = {role: column for role, column in file.layout.columns if column is not None}
    for role, column in stated.items():
        if column not in file.every:
            near = difflib.get_close_matches(column, file.every, 1)
            hint = f": did you mean `{near[0]}`?" if near else ""
            have = ", ".join(file.every) or "none"
            raise AuditError(f"{file.path}: [data.fields] {role} = {column!r}: there is no such column{hint}",
                             f"name one of its columns ({have}), for this file alone under [data.fields.<its cohort>]"
            )  # fmt: skip
    return stated


def _group_column(file: _File) -> str | None:
    wanted = file.layout.group
    if file.layout.group_rows is not None:
        if wanted in file.filled:
            raise AuditError(f"{file.path}: the rows have a `{wanted}`, and the case says group_rows",
                             "leave `group_rows` out, or take the column out of the file")  # fmt: skip
        return None
    if wanted in file.every:
        return wanted
    fits = [column for column in file.filled if plainly(column) == plainly(wanted)]
    return fits[0] if len(fits) == 1 else None


# ---- question and answer ----------------------------------------------------------------------------------------
def _chat(file: _File, but: frozenset[str]) -> dict[str, str]:
    chats = [c for c in file.called(CHATS, but) if any(is_chat(value) for value in file.values(c))]
    rivals = file.called(QUESTIONS[:-1], but)
    if chats and (len(chats) > 1 or rivals):
        names = " and ".join(f"`{column}`" for column in (*chats, *rivals))
        lines = f'messages = "{chats[0]}"' + (f', or question = "{rivals[0]}" and the answer' if rivals else "")
        raise AuditError(f"{file.path}: {names} could all be the question", f"say which under [data.fields]: {lines}")
    return {"messages": chats[0]} if chats else {}


def _asked_and_answered(file: _File, stated: Mapping[str, str], but: frozenset[str]) -> dict[str, str]:
    """The columns of question and answer, and of what stands below the question."""
    columns: dict[str, str] = {}
    if "text" in stated and "question" not in stated:
        return columns
    if "question" not in stated:
        asked_in = file.called(QUESTIONS, but)
        below = [column for column in asked_in if plainly(column) == "input"]
        if any(plainly(column) == "instruction" for column in asked_in) and below and "input" not in stated:
            columns["input"] = below[0]
            asked_in.remove(below[0])
        if asked_in:
            columns["question"] = _only(file, "question", asked_in)
    if "answer" not in stated:
        known = (*ANSWERS, *CAPTIONS) if file.layout.images else ANSWERS
        answers = file.called(known, but | frozenset(columns.values()))
        if answers:
            columns["answer"] = _only(file, "answer", answers)
        elif "question" in {**stated, **columns} and (texts := file.called(("text",), but)):
            columns["answer"] = texts[0]
    return columns


def _only(file: _File, role: str, fits: Sequence[str]) -> str:
    """The one column that plays a role; several are no matter where they hold the same."""
    first = file.values(fits[0])
    rivals = [column for column in fits[1:] if file.values(column) != first]
    if rivals:
        names = " and ".join(f"`{column}`" for column in (fits[0], *rivals))
        raise AuditError(f"{file.path}: {names} could both be the {role}",
                         f'say which, under [data.fields] in the case file: {role} = "{fits[0]}"')  # fmt: skip
    return fits[0]


def _is_text(file: _File, columns: Mapping[str, str], text: str) -> bool:
    """Are there rows whose words are in a column of plain text, none of them in one of answers?"""
    answer = columns.get("answer") or columns.get("messages")
    if answer is None:
        return True
    return any(is_absent(row.values.get(answer)) and not is_absent(row.values.get(text)) for row in file.rows)


def _check_question(file: _File, columns: Mapping[str, str]) -> bool:
    """Is a file without questions plain text? AuditError (code 2) if it has answers: without their question they would
    be texts that no model was asked for."""
    if "messages" in columns:
        return False
    if not {"answer", "text"} & columns.keys() and file.filled:
        do = 'name them under [data.fields]: question = "..." and answer = "...", or text = "..." if it is plain text'
        have = ", ".join(file.every)
        raise AuditError(
            f"{file.path}: no column is the answer (to a question) and none is `text` (columns: {have})", do
        )
    _check_overlooked(file, columns)
    if "question" in columns:
        return False
    if "answer" not in columns:
        return True
    answered = [row.values for row in file.rows if not is_absent(row.values.get(columns["answer"]))]
    stated_empty = all(values.get("question") == "" for values in answered)
    used = {*columns.values(), file.layout.group}
    others = [c for c in file.filled if c not in used and plainly(c) not in (*GROUPS, "level", "type")]
    texts = [c for c in others if all(v is None or isinstance(v, str) for v in file.values(c))]
    if (stated_empty and not texts) or _are_captions(file, columns, texts):
        return True
    texts.sort(key=lambda column: -file.asks(column))
    answer, empty = columns["answer"], [c for c in file.every if plainly(c) in QUESTIONS and c not in file.filled]
    lack = f"`{empty[0]}` is empty in every row" if empty else "no column is the question"
    example = f' such as question = "{texts[0]}"' if texts else ' question = "..."'
    raise AuditError(
        f"{file.path}: answers (`{answer}`) without questions: {lack} (columns: {', '.join(file.every)})",
        f"name the question's column under [data.fields] in the case file,{example}; or, if these are plain texts that "
        f'no question goes before, text = "{answer}"',
    )


def _are_captions(file: _File, columns: Mapping[str, str], texts: Sequence[str]) -> bool:
    """Is what is said of pictures not asked for, but by the picture alone?"""
    captions = "image" in columns and plainly(columns["answer"]) in CAPTIONS
    return captions and not any(2 * file.asks(column) >= 1 for column in texts)


def _check_overlooked(file: _File, columns: Mapping[str, str]) -> None:
    """AuditError (code 2) where questions stand in a column that is not read, and what is read in their place is not
    known by its own name."""
    read_as, stated = columns.get("question", ""), file.layout.columns
    if stated.question or stated.text or read_as == "question" or (not read_as and "answer" in columns):
        return
    unread = [c for c in file.filled if c not in columns.values() and 2 * file.asks(c) >= 1]
    if unread and (not read_as or 2 * file.asks(read_as) < 1):
        other = f'question = "{read_as}"' if read_as else f'text = "{columns["text"]}", if it is plain text'
        do = f'say which column the question is, under [data.fields]: question = "{unread[0]}", or {other}'
        raise AuditError(f"{file.path}: `{unread[0]}` holds questions and would not be read", do)


def _is_digit(value: Any) -> bool:
    return isinstance(value, str | int | float) and not isinstance(value, bool) and name_of(value) in _DIGITS


def _check_index(file: _File, columns: Mapping[str, str]) -> None:
    """AuditError (code 2) where answers look like the numbers of choices that the file does not have."""
    answer = columns.get("answer")
    if answer is None or "choices" in columns or file.layout.columns.answer is not None:
        return
    given = [value for value in file.values(answer) if not is_absent(value)]
    if len(given) > 1 and all(_is_digit(value) for value in given):
        raise AuditError(f"{file.path}: every answer (`{answer}`) is a digit, as the number of a choice is",
                         f'name the column of the choices under [data.fields]: choices = "..."; if the digits are '
                         f'the answers: answer = "{answer}"')  # fmt: skip
