"""The images of a case found again by what its report states: paths as they were given, and the hashes of the data."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import get_args

from numpy import ndarray

from audit.case.data_files import DataFile, layout_of
from audit.case.item_pictures import item_pictures, pictured_sha256, sought
from audit.case.items import read_data
from audit.case.pictures import Named, Picture, identity, pictures_sha256, read_pictures
from audit.schema import AuditError, Case, Cohort, DataFiles


def stored_pictures(
    data: DataFiles, sha256: Mapping[str, str], roots: Iterable[Path], inside: bool = False
) -> dict[str, ndarray]:
    """Pixels by the ids of items, of the data files below one of these folders that hash as stated.

    Empty where one of them is not found: an id may depend on all of them. ``inside``: no path leads out of its folder.
    AuditError (code 2) where a file that hashes as stated cannot be read.
    """
    files = _found(data, sha256, tuple(roots), inside, pictures_sha256)
    read: dict[Cohort, tuple[str, tuple[Picture, ...]]] = {}
    for cohort, path in files.items():
        columns = data.fields.of(cohort)
        read[cohort] = path.stem, read_pictures(path, Named(columns.answer, columns.id, data.group))
    pixels: dict[str, ndarray] = {}
    for cohort, (stem, pictures) in read.items():
        for n, picture in enumerate(pictures, start=1):
            pixels[identity(picture, n, stem, cohort, pixels)] = picture.pixels
    return pixels


def asked_pictures(
    case: Case, sha256: Mapping[str, str], roots: Iterable[Path], inside: bool = False
) -> dict[str, ndarray]:
    """Pixels by the ids of items that ask in words about a picture, as :func:`stored_pictures`."""
    paths = _found(case.data, sha256, tuple(roots), inside, pictured_sha256)
    files = [DataFile(cohort, path, sha256[cohort]) for cohort, path in paths.items()]
    pixels: dict[str, ndarray] = {}
    for file in files:
        data = read_data(file.path, layout_of(file, files, case.data, case.template, images=True))
        pixels |= item_pictures(file.path, sought(data.items, data.places, data.pictures))
    return pixels


def _found(
    data: DataFiles, sha256: Mapping[str, str], roots: Sequence[Path], inside: bool, hashed: Callable[[Path], str]
) -> dict[Cohort, Path]:
    """Where the data file of every cohort lies; none where one of them is not found."""
    files: dict[Cohort, Path] = {}
    for cohort in get_args(Cohort):
        stated: str | None = getattr(data, cohort)
        if stated is None:
            continue
        places = _places(stated, roots, inside)
        path = next((p for p in places if _hash(p, hashed) == sha256.get(cohort)), None)
        if path is None:
            return {}
        files[cohort] = path
    return files


def _places(stated: str, roots: Iterable[Path], inside: bool) -> list[Path]:
    """Where a data file may lie."""
    places = [(root, root / stated) for root in roots]
    near = [path for root, path in places if not inside or path.resolve().is_relative_to(root.resolve())]
    return [path for path in dict.fromkeys(near) if path.exists()]


def _hash(path: Path, hashed: Callable[[Path], str]) -> str:
    try:
        return hashed(path)
    except (OSError, AuditError):
        return ""
