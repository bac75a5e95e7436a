"""Images with their labels from a data file: ``.npz``, a folder of images, or a folder of Parquet or Arrow shards.

Everything is read to 8 bits a channel, as image processors take it: numbers from 0 to 1 a processor would scale once
more, and the image would be black. Turned photographs are set upright.
"""

import hashlib
import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any, Final, NamedTuple, cast

import numpy as np
from jaxtyping import UInt8
from numpy import ndarray

from audit.case import arrow_files
from audit.case.cells import PICTURE_SUFFIXES
from audit.case.confidential import confide_classes, confide_pictures, confide_rows
from audit.case.tables import CHECK, read_table
from audit.schema import AuditError, as_audit_error
from audit.storage import refuse_special, resolved

IMAGES: Final = ("image", "images", "x", "img", "pixels")
LABELS: Final = ("label", "labels", "y", "class", "classes", "target", "targets", "fine_label")
FILES: Final = ("file_name", "file", "path")
_METADATA: Final = ("metadata.jsonl", "metadata.csv", "metadata.parquet")
TEXTS: Final = (".jsonl", ".ndjson", ".json", ".csv", ".tsv")
_MOST_FAULTS = 5
_AS_NPZ = "save it with numpy.savez: x (uint8 images, [n height width] or [n height width channel]) and y (labels)"


class Picture(NamedTuple):
    """One image: where it stands, its pixels ([height width] or [height width channel]), and what the file says."""

    place: str
    pixels: UInt8[ndarray, "height width *channel"]
    label: str
    id: str | None
    group: str | None
    form: str | None


class Named(NamedTuple):
    """Which fields a case names; None: by the names that are usual. ``group`` is looked for and need not be there."""

    label: str | None = None
    id: str | None = None
    group: str = "group"


def pictures_sha256(path: Path) -> str:
    """sha256 (hex) of a data file; of a folder, of the names and hashes of all its files. OSError if one cannot be
    read."""
    if not path.is_dir():
        refuse_special(path)
        return hashlib.sha256(path.read_bytes()).hexdigest()
    files = sorted(file for file in path.rglob("*") if file.is_file())
    listed = [(file.relative_to(path).as_posix(), hashlib.sha256(file.read_bytes()).hexdigest()) for file in files]
    return hashlib.sha256(json.dumps(listed).encode()).hexdigest()


def identity(picture: Picture, n: int, stem: str, cohort: str, taken: Collection[str]) -> str:
    """The id of the nth image of a file called ``stem``: its own, else by its place; the cohort's before it where
    another cohort has it ``taken``."""
    own = picture.id or f"{stem}-{n}"
    return f"{cohort}-{own}" if own in taken else own


def read_pictures(path: Path, asks: Named) -> tuple[Picture, ...]:
    """The images of a data file or folder, in their order. AuditError (code 2) names the file and what is wrong."""
    pictures = _read_of(path, asks)
    confide_pictures(path, ((picture.label, picture.group) for picture in pictures))
    return pictures


def _read_of(path: Path, asks: Named) -> tuple[Picture, ...]:
    if path.is_dir():
        if any((path / name).is_file() for name in _METADATA):
            return _with_metadata(path, asks)
        if any(path.glob("*.arrow")) or any(path.rglob("*.parquet")) or (path / "dataset_dict.json").is_file():
            return _of_table(path, [values for part in arrow_files.parts(path) for values in _shard(part)], asks)
        return _by_folder(path)
    if path.suffix.lower() == ".npz":
        return _of_arrays(path, asks)
    if path.suffix.lower() in (".parquet", ".arrow"):
        return _of_table(path, list(_shard(path)), asks)
    problem = "no data of images" + (", but a file of texts" if path.suffix.lower() in TEXTS else "")
    do = "name an .npz file, a folder with one folder of images a class, or a data set that `datasets` saved"
    raise AuditError(f"{path}: {problem}", do)


# ---- arrays -----------------------------------------------------------------------------------------------------
def _of_arrays(path: Path, asks: Named) -> tuple[Picture, ...]:
    with as_audit_error(f"{path}: cannot be read as .npz", _AS_NPZ), np.load(path, allow_pickle=False) as file:
        arrays: dict[str, ndarray] = {name: file[name] for name in file.files}
    images = arrays[_only(path, "images", None, IMAGES, arrays)]
    labels = arrays[_only(path, "labels", asks.label, LABELS, arrays)]
    if images.dtype != np.uint8 or images.ndim not in (3, 4) or (images.ndim == 4 and images.shape[3] not in (1, 3)):
        raise AuditError(
            f"{path}: the images are {images.dtype} of shape {list(images.shape)}",
            "give them as uint8 from 0 to 255, [n height width] or [n height width channel] with 1 or 3 channels",
        )
    others = {role: arrays.get(name) for role, name in _beside(asks, arrays).items()}
    columns = {"labels": labels} | {role: values for role, values in others.items() if values is not None}
    confide_classes(path, (str(cell) for role, values in columns.items() if role != "id" for cell in values.flat))
    for role, values in columns.items():
        if values.shape != (len(images),):
            raise AuditError(f"{path}: {len(images)} images and {role} of shape {list(values.shape)}", _AS_NPZ)

    def cell(role: str, n: int) -> str | None:
        return str(columns[role][n]) if role in columns else None

    return tuple(
        Picture(f"image {n + 1}", image, _label(path, f"image {n + 1}", labels[n].item(), ()), cell("id", n),
                cell("group", n), cell("form", n))
        for n, image in enumerate(images)
    )  # fmt: skip


def _beside(asks: Named, columns: Mapping[str, object]) -> dict[str, str]:
    """The columns of id, group and form, as far as there are any."""
    usual = {"id": (asks.id or "id", "ids"), "group": (asks.group, f"{asks.group}s"), "form": ("form", "forms")}
    if asks.id is not None and asks.id not in columns:
        raise AuditError(f"[data.fields] id = {asks.id!r}: there is no such column", f"have {', '.join(columns)}")
    present = {role: next((name for name in names if name in columns), None) for role, names in usual.items()}
    return {role: name for role, name in present.items() if name is not None}


def _only(path: Path, role: str, stated: str | None, usual: Sequence[str], columns: Mapping[str, object]) -> str:
    """The one column of a role. AuditError (code 2) if there is none or there are several."""
    if stated is not None:
        if stated not in columns:
            raise AuditError(f"{path}: there is no column {stated!r}", f"name one of {', '.join(columns)}")
        return stated
    fits = [name for name in columns if name.lower() in usual]
    if len(fits) != 1:
        have = ", ".join(columns) or "nothing"
        raise AuditError(
            f"{path}: {'no' if not fits else 'several'} {role} in it (it holds {have})",
            f"call them {usual[0]!r}" if not fits else f"keep one of {', '.join(fits)}",
        )
    return fits[0]


def _label(path: Path, place: str, value: object, names: Sequence[str]) -> str:
    """A label as a name or a number in words."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int | str) or value == "":
        raise AuditError(f"{path}: {place}: label {value!r} is no class", "give the number or the name of a class")
    if names and isinstance(value, int) and 0 <= value < len(names):
        return names[value]
    return str(value)


# ---- folders ----------------------------------------------------------------------------------------------------
def _by_folder(path: Path) -> tuple[Picture, ...]:
    """One folder a class, which is called as the folder is."""
    classes = sorted(folder for folder in path.iterdir() if folder.is_dir() and not folder.name.startswith("."))
    confide_classes(path, (folder.name for folder in classes))
    files = [f for folder in classes for f in sorted(folder.rglob("*")) if f.suffix.lower() in PICTURE_SUFFIXES]
    if not files:
        do = "put the images of each class into a folder of its name, or add metadata.csv with file_name and label"
        raise AuditError(f"{path}: no folder of images in it", do)
    return _read(path, [(file, file.relative_to(path).parts[0], {}) for file in files])


def _with_metadata(path: Path, asks: Named) -> tuple[Picture, ...]:
    """A folder of images and a table that says what each of them is."""
    table = next(path / name for name in _METADATA if (path / name).is_file())
    rows = read_table(table)
    confide_rows(path, [row.values for row in rows])
    if faults := [f"{row.place}: {row.fault}" for row in rows if row.fault]:
        raise AuditError(f"{table}: {'; '.join(faults[:_MOST_FAULTS])}", "correct these lines")
    columns = dict.fromkeys(column for row in rows for column in row.values)
    file = _only(table, "file names", None, FILES, columns)
    label = _only(table, "labels", asks.label, LABELS, columns)
    beside = _beside(asks, columns)
    listed: list[tuple[Path, str, dict[str, str]]] = []
    for row in rows:
        name = str(row.values.get(file) or "")
        place = path / name
        if not name or not resolved(place).is_relative_to(resolved(path)):
            raise AuditError(f"{table}: {row.place}: {name!r} is no file of the folder", "correct the table")
        cells = ((role, row.values.get(column)) for role, column in beside.items())
        stated = {role: str(cell) for role, cell in cells if cell is not None}
        listed.append((place, _label(table, row.place, row.values.get(label), ()), stated))
    return _read(path, listed)


def _read(path: Path, files: Sequence[tuple[Path, str, Mapping[str, str]]]) -> tuple[Picture, ...]:
    """The images of these files. AuditError (code 2) names those that cannot be read."""
    read: list[Picture] = []
    faults: list[str] = []
    for file, label, stated in files:
        name = file.relative_to(path).as_posix()
        try:
            refuse_special(file)
            pixels = decoded(name, file.read_bytes())
        except OSError as error:
            faults.append(f"{name}: {error.strerror or error}")
            continue
        except AuditError as error:
            faults.append(error.what)
            continue
        read.append(Picture(name, pixels, label, stated.get("id", name), stated.get("group"), stated.get("form")))
    if faults:
        more = f" (and {len(faults) - _MOST_FAULTS} more)" if len(faults) > _MOST_FAULTS else ""
        raise AuditError(f"{path}: {'; '.join(faults[:_MOST_FAULTS])}{more}", "correct these files or take them out")
    return tuple(read)


def decoded(name: str, data: bytes) -> UInt8[ndarray, "height width *channel"]:
    """An image file as 8-bit grey or RGB. AuditError (code 2) if it is none."""
    from PIL import Image, ImageOps

    with as_audit_error(f"{name}: cannot be read as an image", "save it again"):
        image = ImageOps.exif_transpose(Image.open(BytesIO(data)))
        image.load()
    if image.mode.startswith(("I", "F")):
        raise AuditError(f"{name}: has more than 8 bits a channel ({image.mode})", "save it with 8 bits a channel")
    return np.array(image if image.mode == "L" else image.convert("RGB"))


# ---- tables of images -------------------------------------------------------------------------------------------
def _shard(path: Path) -> Iterator[dict[str, Any]]:
    """The rows of a shard, labels by the names that its schema has for them."""
    names = _class_names(path)
    for values in arrow_files.rows(path):
        for column, labels in names.items():
            if isinstance(n := values.get(column), int) and 0 <= n < len(labels):
                values[column] = labels[n]
        yield values


def _class_names(path: Path) -> dict[str, tuple[str, ...]]:
    """The names of classes that `datasets` keeps in the schema of its files, by column."""
    import pyarrow
    from pyarrow import ipc, parquet

    with as_audit_error(f"{path}: cannot be read as Parquet or Arrow", CHECK):
        if path.suffix.lower() == ".parquet":
            schema = parquet.read_schema(path)
        else:
            source = pyarrow.OSFile(str(path))
            schema = ipc.open_file(source).schema if _is_file(path) else ipc.open_stream(source).schema
    about: Any = json.loads((schema.metadata or {}).get(b"huggingface", b"{}"))
    features = cast("dict[str, Any]", about.get("info", {}).get("features", {}))
    return {
        column: tuple(map(str, feature["names"]))
        for column, feature in features.items()
        if isinstance(feature, dict) and "names" in feature
    }


def _is_file(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(6) == b"ARROW1"


def _of_table(path: Path, rows: Sequence[Mapping[str, Any]], asks: Named) -> tuple[Picture, ...]:
    """Rows of `datasets`: an image as the bytes of its file, and a label."""
    confide_rows(path, rows)
    columns = dict.fromkeys(column for row in rows for column in row)
    image = _only(path, "images", None, IMAGES, columns)
    label, beside = _only(path, "labels", asks.label, LABELS, columns), _beside(asks, columns)
    read: list[Picture] = []
    for n, row in enumerate(rows, start=1):
        held = row[image]
        data = held.get("bytes") if isinstance(held, dict) else held
        if not isinstance(data, bytes):
            do = "save the data set with the images in it (save_to_disk), not with the paths of their files"
            raise AuditError(f"{path}: row {n}: `{image}` holds no bytes of an image file", do)
        stated = {role: str(row[column]) for role, column in beside.items() if row.get(column) is not None}
        try:
            pixels = decoded(f"row {n}", data)
        except AuditError as error:
            raise AuditError(f"{path}: {error.what}", error.do) from None
        called = _label(path, f"row {n}", row[label], ())
        read.append(Picture(f"row {n}", pixels, called, stated.get("id"), stated.get("group"), stated.get("form")))
    return tuple(read)
