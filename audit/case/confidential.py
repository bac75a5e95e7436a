"""What a message must not quote of a data file: its texts, confided where they are read (:mod:`audit.wording`)."""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from audit.schema import Item
from audit.wording import confide

_ROLES: Final = frozenset({"system", "assistant", "human", "trained"})
_SHORTEST: Final = 5


def confide_rows(path: Path, rows: Sequence[Mapping[str, object]]) -> None:
    """The texts of rows that are not understood yet, among which are words of the format itself: short ones pass."""
    confide(str(path), lambda: (t for t in _texts(rows) if len(t) >= _SHORTEST and t.lower() not in _ROLES))


def confide_classes(path: Path, classes: Iterable[str]) -> None:
    """The names of classes that a data set of images has, which are its answers; a number says nothing."""
    class_names = frozenset(name for name in classes if not name.isdecimal())
    confide(str(path), lambda: class_names)


def confide_pictures(path: Path, stated: Iterable[tuple[str, str | None]]) -> None:
    """The same of images that were read, by label and group: the names of groups, which may be people, among them."""
    confide_classes(path, (text for pair in stated for text in pair if text is not None))


def confide_items(path: Path, items: Sequence[Item], prefix: str) -> None:
    """The texts of a file's items. An id is no text: it tells which item is meant. Groups that were made here, of
    ``prefix`` and a number, say nothing."""
    numbered = re.compile(rf"{re.escape(prefix)}[- ][\d-]+")
    confide(str(path), lambda: (t for t in _texts(map(_said_of, items)) if not numbered.fullmatch(t)))


def _said_of(item: Item) -> dict[str, Any]:
    return item.model_dump(exclude={"id", "form", "attribute"})


def _texts(value: Any) -> Iterator[str]:
    """Every text in a value, however deep."""
    waiting: list[Any] = [value]
    while waiting:
        part = waiting.pop()
        if isinstance(part, str):
            yield part
        elif isinstance(part, Mapping):
            waiting.extend(part.values())
        elif isinstance(part, Iterable) and not isinstance(part, bytes):
            waiting.extend(part)
