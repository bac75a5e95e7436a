"""Which column of a data file holds the pictures that its questions ask about.

Some names say it, others only where what stands in the column looks like pictures: `file_name` may name anything.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, cast

from audit.case.cells import PICTURE_SUFFIXES, is_absent, several_of
from audit.case.field_hints import plainly
from audit.case.tables import Row
from audit.schema import AuditError

PICTURES: Final = (
    "image", "images", "image_path", "image_paths", "image_url", "image_urls", "pixel_values",
)  # fmt: skip
"""Columns of these names are pictures whatever they hold."""
PERHAPS: Final = ("picture", "pictures", "img", "image_file", "image_name", "file_name", "filename")
"""Columns of these names are pictures where they look like some."""


def picture_column(
    path: Path, filled: Collection[str], values: Callable[[str], Sequence[Any]], stated: Mapping[str, str]
) -> dict[str, str]:
    """The column of the role `image`; none where the case states it or there is none.

    AuditError (code 2) where two could be it and do not hold the same.
    """
    if "image" in stated:
        return {}
    free = [column for column in filled if column not in stated.values()]
    fits = [column for name in PICTURES for column in free if plainly(column) == name]
    fits = fits or [c for name in PERHAPS for c in free if plainly(c) == name and any(map(looks_pictured, values(c)))]
    if not fits:
        return {}
    first = values(fits[0])
    if rivals := [column for column in fits[1:] if plainly(column) in PICTURES[:4] and values(column) != first]:
        names = " and ".join(f"`{column}`" for column in (fits[0], *rivals))
        do = f'say which, under [data.fields] in the case file: image = "{fits[0]}"'
        raise AuditError(f"{path}: {names} could both be the picture", do)
    return {"image": fits[0]}


def refuse_pictures(path: Path, filled: Collection[str], rows: Sequence[Row]) -> None:
    """AuditError (code 2) where rows have pictures: to base, which reads texts alone, they would be other items."""
    columns = [c for c in filled if plainly(c) in PICTURES or (plainly(c) in PERHAPS and _some_pictured(c, rows))]
    if columns:
        where = {c: next(r.place for r in rows if not is_absent(r.values.get(c))) for c in sorted(columns)}
        listed = ", ".join(f"`{column}` ({place})" for column, place in where.items())
        do = (
            "audit a vision-language model; or items of text alone, with the column taken out of the file if the "
            "questions stand without it"
        )
        raise AuditError(f"{path}: {listed}: base reads no images, or came without a processor", do)


def _some_pictured(column: str, rows: Sequence[Row]) -> bool:
    return any(looks_pictured(row.values.get(column)) for row in rows)


def looks_pictured(value: Any) -> bool:
    """Is a cell the name of an image file, its bytes, or a list of such?"""
    if isinstance(value, bytes):
        return True
    if isinstance(value, dict):
        entry = cast("Mapping[str, Any]", value)
        return isinstance(entry.get("bytes"), bytes) or looks_pictured(entry.get("path"))
    if isinstance(value, str):
        listed = several_of(value)
        return value.strip().lower().endswith(PICTURE_SUFFIXES) if listed == [value] else looks_pictured(listed)
    return isinstance(value, list) and bool(value) and all(map(looks_pictured, cast("list[Any]", value)))
