"""The images of a case found again by what its report states: paths as they were given, and the hashes of the data."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import get_args

from numpy import ndarray

from audit.case.pictures import Named, Picture, identity, pictures_sha256, read_pictures
from audit.schema import Cohort, DataFiles


def stored_pictures(
    data: DataFiles, sha256: Mapping[str, str], roots: Iterable[Path], inside: bool = False
) -> dict[str, ndarray]:
    """Pixels by the ids of items, of the data files below one of these folders that hash as stated.

    Empty where one of them is not found: an id may depend on all of them. ``inside``: no path leads out of its folder.
    AuditError (code 2) where a file that hashes as stated cannot be read.
    """
    roots, files = tuple(roots), dict[Cohort, tuple[str, tuple[Picture, ...]]]()
    for cohort in get_args(Cohort):
        stated: str | None = getattr(data, cohort)
        if stated is None:
            continue
        path = next((p for p in _places(stated, roots, inside) if _hash(p) == sha256.get(cohort)), None)
        if path is None:
            return {}
        columns = data.fields.of(cohort)
        files[cohort] = path.stem, read_pictures(path, Named(columns.answer, columns.id, data.group))
    pixels: dict[str, ndarray] = {}
    for cohort, (stem, pictures) in files.items():
        for n, picture in enumerate(pictures, start=1):
            pixels[identity(picture, n, stem, cohort, pixels)] = picture.pixels
    return pixels


def _places(stated: str, roots: Iterable[Path], inside: bool) -> list[Path]:
    """Where a data file may lie."""
    places = [(root, root / stated) for root in roots]
    near = [path for root, path in places if not inside or path.resolve().is_relative_to(root.resolve())]
    return [path for path in dict.fromkeys(near) if path.exists()]


def _hash(path: Path) -> str:
    try:
        return pictures_sha256(path)
    except OSError:
        return ""
