"""Data files of images: every form gives the same images, and what is wrong with one is said with its place."""

import json
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy import ndarray
from PIL import Image
from pyarrow import ipc, parquet

from audit.case.image_rows import channels_of, class_number
from audit.case.pictures import Named, Picture, pictures_sha256, read_pictures
from audit.schema import AuditError

RNG = np.random.default_rng(0)
COLOURED = RNG.integers(0, 256, (4, 5, 6, 3), dtype=np.uint8)
GREY = COLOURED[..., 0]
LABELS = ("cat", "dog", "cat", "10")


def png(pixels: ndarray) -> bytes:
    buffer = BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def as_npz(path: Path, images: ndarray) -> Path:
    np.savez(path / "data.npz", x=images, y=np.array(LABELS))
    return path / "data.npz"


def as_folders(path: Path, images: ndarray) -> Path:
    for n, (label, image) in enumerate(zip(LABELS, images, strict=True)):
        (path / "data" / label).mkdir(parents=True, exist_ok=True)
        (path / "data" / label / f"{n}.png").write_bytes(png(image))
    return path / "data"


def as_metadata(path: Path, images: ndarray) -> Path:
    (path / "data").mkdir()
    lines = ["file_name,label,id"]
    for n, (label, image) in enumerate(zip(LABELS, images, strict=True)):
        (path / "data" / f"{n}.png").write_bytes(png(image))
        lines.append(f"{n}.png,{label},i{n}")
    (path / "data" / "metadata.csv").write_text("\n".join(lines))
    return path / "data"


def table_of(images: ndarray) -> pyarrow.Table:
    """As `datasets` writes it: images as bytes of their files, labels as numbers with names in the schema."""
    names = sorted(set(LABELS))
    about = {"info": {"features": {"label": {"names": names, "_type": "ClassLabel"}, "image": {"_type": "Image"}}}}
    table = pyarrow.table({
        "image": [{"bytes": png(image), "path": None} for image in images], "label": [names.index(x) for x in LABELS],
    })  # fmt: skip
    return table.replace_schema_metadata({"huggingface": json.dumps(about)})


def as_saved(path: Path, images: ndarray) -> Path:
    (path / "data").mkdir()
    table = table_of(images)
    with ipc.new_stream(str(path / "data" / "data-00000-of-00001.arrow"), table.schema) as writer:
        writer.write_table(table)
    state = {"_data_files": [{"filename": "data-00000-of-00001.arrow"}], "_indices_data_files": None}
    (path / "data" / "state.json").write_text(json.dumps(state))
    return path / "data"


def as_parquet(path: Path, images: ndarray) -> Path:
    (path / "data").mkdir()
    parquet.write_table(table_of(images), path / "data" / "train-00000-of-00001.parquet")
    return path / "data"


FORMS = {"npz": as_npz, "folders": as_folders, "metadata": as_metadata, "saved": as_saved, "parquet": as_parquet}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("images", [GREY, COLOURED], ids=["grey", "coloured"])
def test_every_form_of_file_gives_the_same_images_with_the_same_labels(
    form: str, images: ndarray, tmp_path: Path
) -> None:
    read = read_pictures(FORMS[form](tmp_path, images), Named())
    held = sorted((p.label, p.pixels.tobytes(), p.pixels.shape, str(p.pixels.dtype)) for p in read)
    assert held == sorted(
        (label, x.tobytes(), x.shape, "uint8") for label, x in zip(LABELS, np.ascontiguousarray(images), strict=True)
    )


def test_a_data_set_that_the_library_itself_saved_is_read(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=["cat", "dog"])})
    rows = {"image": [Image.fromarray(x) for x in COLOURED], "label": [0, 1, 1, 0]}
    datasets.Dataset.from_dict(rows, features=features).save_to_disk(str(tmp_path / "saved"))
    read = read_pictures(tmp_path / "saved", Named())
    assert [p.label for p in read] == ["cat", "dog", "dog", "cat"]
    assert all((p.pixels == x).all() for p, x in zip(read, COLOURED, strict=True))


def test_groups_ids_and_forms_are_read_where_a_file_has_them(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", images=GREY, labels=[0, 1, 2, 3], groups=["a", "a", "b", "b"], ids=[7, 8, 9, 10])
    read = read_pictures(tmp_path / "a.npz", Named())
    assert [(p.label, p.group, p.id, p.form) for p in read][:2] == [("0", "a", "7", None), ("1", "a", "8", None)]
    np.savez(tmp_path / "b.npz", x=GREY, fine=[0, 1, 2, 3], y=[0, 0, 1, 1], patient=list("aabb"))
    read = read_pictures(tmp_path / "b.npz", Named(label="fine", group="patient"))
    assert [(p.label, p.group) for p in read] == [("0", "a"), ("1", "a"), ("2", "b"), ("3", "b")]


def test_photographs_are_set_upright_and_files_keep_their_names(tmp_path: Path) -> None:
    (tmp_path / "d" / "cat").mkdir(parents=True)
    for n in (1, 2, 10):
        turned = Image.fromarray(COLOURED[0])
        exif = turned.getexif()
        exif[0x0112] = 6
        turned.save(tmp_path / "d" / "cat" / f"{n}.png", exif=exif)
    read = read_pictures(tmp_path / "d", Named())
    assert [p.id for p in read] == ["cat/1.png", "cat/10.png", "cat/2.png"]
    assert all(p.pixels.shape == (6, 5, 3) for p in read) and (read[0].pixels == np.rot90(COLOURED[0], -1)).all()


# ---- faults ---------------------------------------------------------------------------------------------------------
def _npz(path: Path, **arrays: Any) -> Path:
    np.savez(path / "x.npz", **arrays)
    return path / "x.npz"


def _broken_image(path: Path) -> Path:
    folder = as_folders(path, COLOURED)
    (folder / "dog" / "bad.png").write_bytes(png(COLOURED[0])[:40])
    (folder / "dog" / "text.jpg").write_text("no image")
    return folder


def _deep(path: Path) -> Path:
    (path / "d" / "cat").mkdir(parents=True)
    Image.fromarray(np.zeros((4, 4), np.int32)).save(path / "d" / "cat" / "a.tif")
    return path / "d"


def _leads_out(path: Path) -> Path:
    folder = as_metadata(path, COLOURED)
    (folder / "metadata.csv").write_text("file_name,label\n../../secret.png,cat\n")
    return folder


FAULTS = {
    "floats": (lambda p: _npz(p, x=GREY / 255, y=[0] * 4), "images are float64 of shape"),
    "four channels": (lambda p: _npz(p, x=np.zeros((2, 3, 3, 4), np.uint8), y=[0, 1]), "of shape .2, 3, 3, 4."),
    "no labels": (lambda p: _npz(p, x=GREY), "no labels in it .it holds x."),
    "two labels": (lambda p: _npz(p, x=GREY, y=[0] * 4, label=[0] * 4), "several labels"),
    "fewer labels": (lambda p: _npz(p, x=GREY, y=[0] * 3), r"4 images and labels of shape \[3\]"),
    "fractions": (lambda p: _npz(p, x=GREY, y=[0, 1, 0.5, 2]), "image 3: label 0.5 is no class"),
    "pickled": (lambda p: _npz(p, x=GREY, y=np.array([{}, 1, 2, 3], object)), "cannot be read as .npz"),
    "no archive": (lambda p: _written(p / "x.npz", b"PK\x03\x04 and more"), "cannot be read as .npz"),
    "texts": (lambda p: _written(p / "x.jsonl", b"{}"), "no data of images, but a file of texts"),
    "other": (lambda p: _written(p / "x.bin", b"{}"), "x.bin: no data of images"),
    "empty folder": (lambda p: p, "no folder of images in it"),
    "broken files": (_broken_image, "dog/bad.png: cannot be read as an image.*dog/text.jpg"),
    "sixteen bits": (_deep, "cat/a.tif: has more than 8 bits a channel"),
    "outside": (_leads_out, "row 1 .line 2.: '../../secret.png' is no file of the folder"),
}


def _written(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path


@pytest.mark.parametrize("fault", FAULTS)
def test_what_is_wrong_with_a_file_is_said_with_its_place(fault: str, tmp_path: Path) -> None:
    make, words = FAULTS[fault]
    with pytest.raises(AuditError, match=words) as caught:
        read_pictures(make(tmp_path), Named())
    assert caught.value.code == 2 and str(tmp_path) in caught.value.what and caught.value.do


@settings(max_examples=60, deadline=None)
@given(st.binary(max_size=200), st.sampled_from([".npz", ".parquet", ".arrow", ".png"]))
def test_bytes_of_any_kind_are_read_or_refused_but_never_break(data: bytes, suffix: str) -> None:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "cat").mkdir()
        path = Path(folder) / ("cat/x.png" if suffix == ".png" else f"x{suffix}")
        path.write_bytes(data)
        try:
            read = read_pictures(Path(folder) if suffix == ".png" else path, Named())
        except AuditError as error:
            assert error.code == 2
        else:
            assert all(isinstance(picture, Picture) for picture in read)


def test_a_folder_is_named_by_its_files_and_their_places(tmp_path: Path) -> None:
    folder = as_folders(tmp_path, COLOURED)
    first = pictures_sha256(folder)
    (folder / "cat" / "0.png").rename(folder / "dog" / "0.png")
    moved = pictures_sha256(folder)
    (folder / "dog" / "0.png").write_bytes(png(COLOURED[1]))
    assert len({first, moved, pictures_sha256(folder)}) == 3


# ---- channels and classes -------------------------------------------------------------------------------------------
@given(st.integers(1, 9), st.integers(1, 9), st.sampled_from([(), (1,), (3,)]), st.sampled_from([1, 3]))
def test_an_image_gets_the_channels_of_the_model(h: int, w: int, own: tuple[int, ...], wanted: int) -> None:
    pixels = np.random.default_rng(h * 10 + w).integers(0, 256, (h, w, *own), dtype=np.uint8)
    made = channels_of(pixels, wanted)
    assert made.shape == (h, w, wanted) and made.dtype == np.uint8
    if own == (3,) and wanted == 3:
        assert (made == pixels).all()
    elif own != (3,):
        assert (made == pixels.reshape(h, w, 1)).all()


def test_classes_are_told_by_name_then_by_number() -> None:
    classes = ("airplane", "3", "Dog")
    assert [class_number(label, classes) for label in ("airplane", "3", "dog", "Dog", "0", "2")] == [0, 1, 2, 2, 0, 2]
    for label in ("cat", "-1", "17", "1.5"):
        with pytest.raises(ValueError, match="is none of the model's 3 classes .airplane, 3, Dog."):
            class_number(label, classes)
