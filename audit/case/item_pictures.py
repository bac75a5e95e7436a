"""The pictures that items ask about, found beside their data file or in it, decoded once: uint8, RGB, upright."""

import hashlib
import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final, NamedTuple, cast

import numpy as np
from jaxtyping import UInt8
from numpy import ndarray

from audit.case.cells import PICTURE_SUFFIXES, several_of
from audit.case.picture_cells import PictureCell
from audit.case.pictures import decoded
from audit.case.tables import read_table, table_sha256
from audit.schema import AuditError, Item
from audit.storage import resolved

_MOST_FAULTS: Final = 5


class Sought(NamedTuple):
    """A picture that a row states: the item's id, where the row stands, and what it says."""

    item: str
    place: str
    cell: PictureCell


def sought(items: Sequence[Item], places: Sequence[str], cells: Mapping[str, PictureCell]) -> tuple[Sought, ...]:
    """What the items of a file ask about, in their order."""
    return tuple(Sought(item.id, p, cells[item.id]) for item, p in zip(items, places, strict=True) if item.id in cells)


def item_pictures(path: Path, wanted: Sequence[Sought]) -> dict[str, UInt8[ndarray, "height width 3"]]:
    """The pictures of a data file's items by their ids. AuditError (code 2) lists the rows whose pictures are missing,
    empty, no images, or lie outside the file's folder."""
    root = folder_of(path)
    decodable: dict[PictureCell, UInt8[ndarray, "height width 3"]] = {}
    faulty: dict[PictureCell, str] = {}
    for _, _, cell in wanted:
        if cell in decodable or cell in faulty:
            continue
        try:
            data = bytes_of(root, cell)
            decodable[cell] = _coloured(decoded(cell.name or "the picture", data))
        except ValueError as error:
            faulty[cell] = f"{cell.name!r} {error}"
        except OSError as error:
            faulty[cell] = f"{cell.name!r}: {error.strerror or error}"
        except AuditError as error:
            faulty[cell] = error.what
    faults = [f"{place}: {faulty[cell]}" for _, place, cell in wanted if cell in faulty]
    if faults:
        more = f" (and {len(faults) - _MOST_FAULTS} more)" if len(faults) > _MOST_FAULTS else ""
        raise AuditError(
            f"{path}: {'; '.join(faults[:_MOST_FAULTS])}{more}",
            "correct these pictures, or the names that the rows give them (relative to the data file's folder), or "
            "take the rows out",
        )
    return {item: decodable[cell] for item, _, cell in wanted}


def folder_of(path: Path) -> Path:
    """The folder that names of pictures are relative to, and that none of them may leave."""
    return path if path.is_dir() else path.parent


def bytes_of(root: Path, cell: PictureCell) -> bytes:
    """The bytes of a picture's file. ValueError or OSError says why there are none."""
    if cell.data is not None:
        return cell.data
    place = root / cell.name
    if not is_inside(root, cell.name):
        raise ValueError("leads out of the folder of the data file")
    if place.is_dir():
        raise ValueError("is a folder")
    if place.exists() and not place.is_file():
        raise ValueError("is no regular file")
    data = place.read_bytes()
    if not data:
        raise ValueError("holds 0 bytes")
    return data


def pictured_sha256(path: Path) -> str:
    """sha256 (hex) of a data file (or folder) together with the files beside it that its cells name; of one that names
    none its own. OSError if the data file cannot be read, AuditError (code 2) if it is no table."""
    table, root = table_sha256(path), folder_of(path)
    hashes = {
        name: hashlib.sha256((root / name).read_bytes()).hexdigest()
        for name in sorted({text for row in read_table(path) for text in _texts(row.values)})
        if name.lower().endswith(PICTURE_SUFFIXES) and is_inside(root, name) and (root / name).is_file()
    }
    return hashlib.sha256(json.dumps([table, hashes]).encode()).hexdigest() if hashes else table


def _texts(value: object) -> Iterator[str]:
    """The texts of a cell, in lists and objects too."""
    if isinstance(value, str):
        listed = several_of(value)
        yield from [value] if listed == [value] else _texts(listed)
    elif isinstance(value, dict):
        yield from (text for inner in cast("dict[str, object]", value).values() for text in _texts(inner))
    elif isinstance(value, list):
        yield from (text for inner in cast("list[object]", value) for text in _texts(inner))


def is_inside(root: Path, name: str) -> bool:
    """Does a name lead to no place outside a folder?"""
    return resolved(root / name).is_relative_to(resolved(root))


def _coloured(pixels: UInt8[ndarray, "height width *channel"]) -> UInt8[ndarray, "height width 3"]:
    """Grey pictures with their one channel repeated: processors of vision-language models take three."""
    return np.repeat(pixels[:, :, None], 3, 2) if pixels.ndim == 2 else pixels


# ---- checks of a file --------------------------------------------------------------------------------------------
def check_mixed(path: Path, items: Sequence[Item], places: Sequence[str]) -> None:
    """AuditError (code 2) where some rows have a picture and others none: what a cohort's numbers compare would be two
    kinds of questions."""
    lacking = [place for item, place in zip(items, places, strict=True) if item.image is None]
    if 0 < len(lacking) < len(items):
        more = f" and {len(lacking) - _MOST_FAULTS} more" if len(lacking) > _MOST_FAULTS else ""
        raise AuditError(
            f"{path}: {len(lacking)} of {len(items)} rows have no picture ({', '.join(lacking[:_MOST_FAULTS])}{more}), "
            "and the others have one",
            "give every row its picture, or put the rows without one into a file of another cohort, such as `general`",
        )


def grouped_by_picture(items: Collection[Item], grouped: bool) -> tuple[str, ...]:
    """Where no row names a group and rows ask about pictures, each picture is one."""
    if grouped or not items or any(item.image is None for item in items):
        return ()
    n = len({item.group for item in items})
    return (f"no row names its group, so that each picture is one: {len(items)} rows count as {n}",)
