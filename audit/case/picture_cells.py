"""What a row of a data file says of the picture that it asks about: the name of a file, or the file's bytes.

Nothing is read or fetched here. Every function raises ValueError with what is wrong, in the words of the file; whoever
reads the row adds its place.
"""

import base64
import binascii
import hashlib
import posixpath
from collections.abc import Mapping
from typing import Any, Final, NamedTuple, cast

from audit.case.cells import PICTURE_MARK, is_absent, several_of

_NAMES: Final = ("path", "url", "image", "image_url", "file_name")
_DATA, _BASE64 = "data:image/", ";base64,"
ONE_EACH: Final = "an item asks about one picture: give every picture a row of its own"


class PictureCell(NamedTuple):
    """One picture as a row states it: the name of its file, empty where the row has none, and its bytes if it holds
    them."""

    name: str
    data: bytes | None = None

    @property
    def stated(self) -> str:
        """The name of its file as the row has it; of bytes, which may all be called alike, what they hash to."""
        return self.name if self.data is None else self.identity

    @property
    def identity(self) -> str:
        """A name for the picture: that of its file, or what its bytes hash to."""
        if self.data is None:
            return posixpath.normpath(self.name)
        return f"picture {hashlib.sha256(self.data).hexdigest()[:12]}"


def picture_of(value: Any) -> PictureCell | None:
    """The picture of a cell; None where there is none. A list of one is that one."""
    if value is None or (not isinstance(value, dict | bytes) and is_absent(value)):
        return None
    if isinstance(value, str):
        listed = several_of(value)
        return _named(value.strip()) if listed == [value] else picture_of(listed)
    if isinstance(value, bytes):
        return _held("", value)
    if isinstance(value, list):
        entries = [entry for entry in cast("list[Any]", value) if not _is_nothing(entry)]
        if any(isinstance(entry, int | float | list) for entry in entries):
            raise ValueError("holds numbers: save the picture as a file, whose name or bytes the row holds")
        if len(entries) > 1:
            raise ValueError(f"holds {len(entries)} pictures: {ONE_EACH}")
        return picture_of(entries[0]) if entries else None
    if isinstance(value, dict):
        return _of_object(cast("Mapping[str, Any]", value))
    raise ValueError(f"is {value!r}, which names no picture")


def _is_nothing(value: Any) -> bool:
    return value is None or (not isinstance(value, dict | bytes) and is_absent(value))


def _of_object(entry: Mapping[str, Any]) -> PictureCell | None:
    """A picture as `datasets` stores it (its bytes, its path, or both), or as the part of a chat's turn."""
    name = next((inner for key in _NAMES if not _is_nothing(inner := entry.get(key))), None)
    held = entry.get("bytes")
    if held is None:
        return picture_of(name)
    if isinstance(held, str):
        held = _unpacked(held)
    if not isinstance(held, bytes):
        raise ValueError("has `bytes` that are no bytes")
    return _held(name if isinstance(name, str) else "", held)


def _named(text: str) -> PictureCell:
    if text.startswith(_DATA):
        _, mark, packed = text.partition(_BASE64)
        if not mark:
            raise ValueError("is a data address without base64")
        return _held("", _unpacked(packed))
    if "://" in text:
        raise ValueError(f"is an address ({text[:60]}): nothing is fetched, save the picture beside the data file")
    return PictureCell(text)


def _unpacked(packed: str) -> bytes:
    try:
        return base64.b64decode(packed, validate=True)
    except (binascii.Error, ValueError):
        raise ValueError("holds no base64") from None


def _held(name: str, data: bytes) -> PictureCell:
    if not data:
        raise ValueError(f"holds 0 bytes{f' of {name}' if name else ''}")
    return PictureCell(name, data)


# ---- questions that say where the picture stands ----------------------------------------------------------------
def without_mark(question: str) -> tuple[str, int]:
    """The words of a question of LLaVA's kind, and how often :data:`~audit.case.cells.PICTURE_MARK` stands before or
    after them."""
    marks = question.count(PICTURE_MARK)
    if marks > 1:
        raise ValueError(f"asks about {marks} pictures ({PICTURE_MARK} stands {marks} times): {ONE_EACH}")
    bare = question.strip().removeprefix(PICTURE_MARK).removesuffix(PICTURE_MARK).strip()
    if PICTURE_MARK in bare:
        raise ValueError(
            f"has {PICTURE_MARK} among its words: say where the picture stands once for all, by {{image}} in `prompt` "
            "of [template]"
        )
    return bare, marks
