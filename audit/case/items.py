"""Cohorts as items: question and answer, or text; every fault of a file said at once."""

import json
import logging
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple, cast

from pydantic import ValidationError

from audit.case.cells import (
    PICTURE_MARK,
    Exchange,
    chosen,
    exchange_of,
    group_of,
    is_absent,
    is_chat,
    name_of,
    several_of,
    words_of,
)
from audit.case.confidential import confide_items, confide_rows
from audit.case.field_hints import group_hint
from audit.case.fields import Layout, Recognised, recognise
from audit.case.item_pictures import check_mixed, grouped_by_picture
from audit.case.picture_cells import ONE_EACH, PictureCell, picture_of, without_mark
from audit.case.tables import Row, read_table
from audit.schema import FORMS, AuditError, Item

log = logging.getLogger(__name__)

_COPIED, _TEXTS = (
    ("form", "frequency"),
    ("attribute", "key", "paraphrased_answer", "paraphrased_question", "of", "subject"),
)
_LISTS = ("perturbed_answers", "alternates", "alternate_keys")
_MOST_FAULTS = 5


class Data(NamedTuple):
    """The items of a file, what is said of how it was read, where each item stands in it, and of those that ask about a
    picture what their rows say of it, by their ids."""

    items: tuple[Item, ...]
    notes: tuple[str, ...]
    places: tuple[str, ...] = ()
    pictures: Mapping[str, PictureCell] = MappingProxyType({})


class _Asked(NamedTuple):
    """What a row asks and is answered, the answers that a multiple-choice question offers beside that, and the
    picture."""

    question: str
    answer: str
    others: tuple[str, ...] = ()
    picture: PictureCell | None = None


def read_items(path: Path, group_field: str = "group", own_groups: bool = False) -> tuple[Item, ...]:
    """The items of a data file whose columns have names of their own; see :func:`read_data`."""
    return read_data(path, Layout(group_field, own_groups=own_groups)).items


def read_data(path: Path, layout: Layout) -> Data:
    """The items of a data file (:mod:`audit.case.tables`): question and answer, or text.

    A row without a group is its own group if it is plain text or if ``layout.own_groups``. Without ``id`` a row is
    named by its number. What was recognised and which fields are not read is logged once a file. AuditError (code 2)
    names the file, the bad rows, and the line of the case file that would settle it.
    """
    rows = read_table(path)
    confide_rows(path, [row.values for row in rows])
    usable = [row for row in rows if not row.fault]
    recognised = recognise(path, usable, layout)
    prefix = layout.prefix or (path.name if path.is_dir() else path.stem)
    filled = any(not is_absent(row.values.get(recognised.group or layout.group)) for row in usable)
    reader = _Reader(layout, recognised, prefix, _blocks(path, rows, layout, prefix), filled)
    items, pictures = list[Item](), dict[str, PictureCell]()
    faults: list[str] = []
    seen: dict[str, str] = {}
    for index, row in enumerate(rows):
        try:
            item, picture = reader.item(row, index)
        except ValueError as error:
            faults.append(f"{row.place}: {_reason(error)}")
            continue
        if item.id in seen:
            faults.append(f"{row.place}: id {item.id!r} is on {seen[item.id]} already")
        seen.setdefault(item.id, row.place)
        items.append(item)
        pictures |= {} if picture is None else {item.id: picture}
    if faults:
        more = f" (and {len(faults) - _MOST_FAULTS} more lines)" if len(faults) > _MOST_FAULTS else ""
        lacking = sum(_NO_GROUP in fault for fault in faults)
        do = group_hint(usable, recognised.columns) if lacking and not filled else "correct these lines"
        if 1 < lacking == len(rows):
            raise AuditError(f"{path}: no {layout.group!r} in any of {len(rows)} rows, so that nothing says which rows "
                             "are about one person", do)  # fmt: skip
        raise AuditError(f"{path}: {'; '.join(faults[:_MOST_FAULTS])}{more}", do)
    confide_items(path, items, prefix)
    places = tuple(row.place for row in rows)
    check_mixed(path, items, places)
    _log(path, recognised, items, layout.restating)
    grouped = filled or layout.group_rows is not None
    return Data(
        tuple(items), (*recognised.notes, *_kinds(items), *grouped_by_picture(items, grouped)), places, pictures
    )


_NO_GROUP = "name the field to split by"


class _Reader(NamedTuple):
    """Reads single rows of one file. ``blocks`` names the group of every row where consecutive rows are one.

    ``grouped``: some row names its group.
    """

    layout: Layout
    recognised: Recognised
    prefix: str
    blocks: Sequence[str]
    grouped: bool

    def item(self, row: Row, index: int) -> tuple[Item, PictureCell | None]:
        """One row as an item, and the picture that it asks about; ValueError says what is wrong with it."""
        if row.fault:
            raise ValueError(row.fault)
        question, answer, others, picture = self._texts(row)
        own = self._cell(row, "id")
        identity = f"{self.prefix}-{row.number}" if is_absent(own) else name_of(own)
        of_picture = picture is not None and not self.grouped and not self.layout.own_groups
        if self.blocks:
            group = self.blocks[index]
        else:
            group = picture.identity if of_picture and picture else self._group(row, identity, question)
        lists = {role: self._several(row, role) for role in _LISTS}
        copied = {role: value for role in _COPIED if (value := self._cell(row, role)) is not None and value == value}
        texts = {role: _named(role, self.recognised.columns[role], value)
                 for role in _TEXTS if not is_absent(value := self._cell(row, role))}  # fmt: skip
        if others and lists["perturbed_answers"]:
            raise ValueError("has choices and perturbed answers: the other choices would be perturbed answers too")
        if answer.strip() in {text.strip() for text in lists["alternates"]}:
            raise ValueError("an alternate is the answer itself: alternates have a value that is not true")
        shown = {} if picture is None else {"image": picture.stated}
        return Item.model_validate(
            copied | texts | lists | ({"perturbed_answers": list(others)} if others else {})
            | {"id": identity, "group": group, "question": question, "answer": answer} | shown
        ), picture  # fmt: skip

    def _several(self, row: Row, role: str) -> list[str]:
        """The texts of a cell that holds a list."""
        listed = several_of(self._cell(row, role))
        if not isinstance(listed, list):
            raise ValueError(f"{role}: `{self.recognised.columns[role]}` is no list of texts")
        entries = cast("list[Any]", listed)
        return [_named(f"{role}, number {n}", self.recognised.columns[role], x) for n, x in enumerate(entries, start=1)]

    def _cell(self, row: Row, role: str) -> Any:
        column = self.recognised.columns.get(role)
        return None if column is None else row.values.get(column)

    def _texts(self, row: Row) -> _Asked:
        """What a row asks and is answered, and its picture."""
        columns, picture = self.recognised.columns, self._picture(row)
        messages, asked_for, given, text = (self._cell(row, r) for r in ("messages", "question", "answer", "text"))
        if is_absent(messages) and is_absent(given) and not is_absent(text):
            if not is_absent(asked_for):
                return _Asked(self._question(row), _named("text", columns["text"], text), (), picture)
            return _Asked("", _named("text", columns["text"], text), (), picture)
        if not is_absent(messages):
            return self._exchange(messages, picture)
        if is_absent(given):
            raise ValueError("no `answer` (with `question`) and no `text`")
        if is_chat(asked_for):
            end = given if is_chat(given) else [{"role": "assistant", "content": given}]
            return self._exchange([*several_of(asked_for), *several_of(end)], picture)
        if is_chat(given) and not is_absent(asked_for):
            return self._exchange([{"role": "user", "content": self._question(row)}, *several_of(given)], picture)
        plain = self.recognised.plain or (self.layout.restating and is_absent(asked_for))
        if is_absent(asked_for) and not plain:
            raise ValueError(f"no question (`{columns.get('question', 'question')}` is empty)")
        question = "" if plain else self._question(row)
        choices = self._cell(row, "choices")
        if is_absent(choices):
            return _Asked(question, _named("answer", columns["answer"], given), (), picture)
        choice = chosen(choices, given)
        return _Asked(question, choice.answer, choice.others, picture)

    def _question(self, row: Row) -> str:
        columns, below = self.recognised.columns, self._cell(row, "input")
        question = _named("question", columns["question"], self._cell(row, "question"))
        return question if is_absent(below) else f"{question}\n{_named('input', columns['input'], below)}"

    def _picture(self, row: Row) -> PictureCell | None:
        """The picture that a column of the row names or holds."""
        try:
            return picture_of(self._cell(row, "image"))
        except ValueError as error:
            raise ValueError(f"image: `{self.recognised.columns['image']}` {error}") from None

    def _exchange(self, messages: Any, picture: PictureCell | None) -> _Asked:
        """The exchange of a chat; its turn, or a column beside it, may show a picture."""
        exchange = exchange_of(messages, self.layout.system)
        if not self.layout.images:
            if exchange.pictures:
                raise ValueError("a turn of a picture, and base reads texts alone")
            return _Asked(exchange.question, exchange.answer)
        return _shown(exchange, picture)

    def _group(self, row: Row, identity: str, question: str) -> str:
        field = self.recognised.group or self.layout.group
        try:
            group = group_of(row.values.get(field))
        except ValueError as error:
            raise ValueError(f"`{field}` {error}: every row needs the name of its group") from None
        if group is not None:
            return group
        if self.layout.own_groups or not question:
            return identity
        known = sorted(
            k for k in row.values if k.endswith(("id", "group", "author", "person", "subject")) and k != field
        )
        listed = f" (here are: {', '.join(known)})" if known else ""
        raise ValueError(f"no {field!r}: {_NO_GROUP} as `group` in [data]{listed}")


def _shown(exchange: Exchange, picture: PictureCell | None) -> _Asked:
    """A chat's question without the mark of its picture, which is its own or stands in a column beside it."""
    question, marks = without_mark(exchange.question)
    stated = [cell for entry in exchange.pictures if (cell := picture_of(entry)) is not None]
    if len(stated) + (picture is not None) > 1:
        raise ValueError(f"a turn with a picture beside another picture: {ONE_EACH}")
    picture = picture or next(iter(stated), None)
    if marks and picture is None:
        raise ValueError(f"{PICTURE_MARK} in the user's turn, and no picture in the row")
    return _Asked(question, exchange.answer, (), picture)


def _named(role: str, column: str, value: Any) -> str:
    try:
        return words_of(value)
    except ValueError as error:
        raise ValueError(f"{role}: `{column}` {error}") from None


def _blocks(path: Path, rows: Sequence[Row], layout: Layout, prefix: str) -> Sequence[str]:
    """The group of every row where consecutive rows are one; empty where a field names it."""
    size = layout.group_rows
    if size is None or layout.own_groups:
        return ()
    if len(rows) % size:
        raise AuditError(f"{path}: {len(rows)} rows are not whole groups of {size} consecutive rows",
                         "correct `group_rows` in [data], or the file")  # fmt: skip
    starts = [index - index % size for index in range(len(rows))]
    return [f"{prefix} {start + 1}-{start + size}" for start in starts]


# ---- what is said -----------------------------------------------------------------------------------------------
def _kinds(items: Collection[Item]) -> tuple[str, ...]:
    """How many rows are plain text, where it is not all or none."""
    plain = sum(not item.question for item in items)
    notes = [f"{plain} of {len(items)} rows are plain text without a question"] if 0 < plain < len(items) else []
    if items and plain == len(items) and all(item.image is not None for item in items):
        notes.append("no row asks a question: what is said of each picture is asked for by the picture and [template]")
    return tuple(notes)


def _log(path: Path, recognised: Recognised, items: Collection[Item], restating: bool) -> None:
    """Say once a file what was read as what, what was not read, and which forms count as held out by default."""
    if recognised.notes:
        log.warning("%s: %s", path, "; ".join(recognised.notes))
    if recognised.unread:
        log.warning("%s: fields that are not read: %s", path, ", ".join(recognised.unread))
    if not restating and (undeclared := sorted({item.form for item in items} - FORMS.keys())):
        declared = ", ".join(FORMS)
        log.warning("%s: items of form %s count as held out (declared are %s)", path, ", ".join(undeclared), declared)


def _reason(error: ValueError) -> str:
    """What is wrong with a line, in one sentence."""
    if isinstance(error, ValidationError):
        first = error.errors()[0]
        return f"{'.'.join(str(part) for part in first['loc'])}: {first['msg']}"
    return f"not JSON ({error})" if isinstance(error, json.JSONDecodeError) else str(error)
