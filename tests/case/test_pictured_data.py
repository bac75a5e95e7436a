"""Data files whose rows ask about pictures: every way in which a row names or holds one, and every fault of a file."""

import base64
import json
from collections.abc import Callable, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from pyarrow import parquet

from audit.case.fields import Layout
from audit.case.item_pictures import item_pictures, pictured_sha256, sought
from audit.case.items import Data, read_data
from audit.case.picture_cells import PictureCell, picture_of, without_mark
from audit.case.tables import table_sha256
from audit.schema import AuditError

LAYOUT = Layout(images=True)
Values = dict[str, Any]


def pixels(seed: int, height: int = 5, width: int = 7) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def png(seed: int = 0, **saving: Any) -> bytes:
    out = BytesIO()
    Image.fromarray(pixels(seed)).save(out, "PNG", **saving)
    return out.getvalue()


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A folder with two pictures."""
    (tmp_path / "pics").mkdir()
    for n in range(2):
        (tmp_path / "pics" / f"{n}.png").write_bytes(png(n))
    return tmp_path


def written(folder: Path, rows: Sequence[Values], name: str = "forget.jsonl") -> Path:
    path = folder / name
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def read(path: Path, layout: Layout = LAYOUT) -> tuple[Data, dict[str, np.ndarray]]:
    data = read_data(path, layout)
    return data, item_pictures(path, sought(data.items, data.places, data.pictures))


QA: Values = {"question": "what shape is it ?", "answer": "star", "group": "a"}
NAME = "pics/0.png"
ADDRESS = f"data:image/png;base64,{base64.b64encode(png(0)).decode()}"


# ---- ways to say which picture ----------------------------------------------------------------------------------
@pytest.mark.parametrize(
    "column",
    ["image", "Image", "images", "image_path", "image paths", "file_name", "picture", "img", "image_file"],
)
@pytest.mark.parametrize("cell", [NAME, [NAME], {"path": NAME}, {"bytes": None, "path": NAME}, [{"path": NAME}]])
def test_a_picture_is_named_in_a_column_of_any_usual_name(root: Path, column: str, cell: Any) -> None:
    data, pictures = read(written(root, [{**QA, column: cell}]))
    assert data.items[0].image == NAME and (data.items[0].question, data.items[0].answer) == (
        QA["question"],
        QA["answer"],
    )
    np.testing.assert_array_equal(pictures[data.items[0].id], pixels(0))


def test_a_picture_may_stand_in_the_row_as_an_address_that_holds_it(root: Path) -> None:
    data, pictures = read(written(root, [{**QA, "image": ADDRESS}]))
    assert str(data.items[0].image).startswith("picture ")
    np.testing.assert_array_equal(pictures[data.items[0].id], pixels(0))


def llava(*images: Any, human: str = "<image>\nwhat shape is it ?", **others: Any) -> Values:
    turns = [{"from": "human", "value": human}, {"from": "gpt", "value": "star"}]
    return {"conversations": turns, "group": "a", **dict(zip(("image", "images"), images, strict=False)), **others}


def chat(*parts: Values, **others: Any) -> Values:
    user = {"role": "user", "content": [*parts]}
    answer = {"role": "assistant", "content": [{"type": "text", "text": "star"}]}
    return {"messages": [user, answer], "group": "a", **others}


WORDS = {"type": "text", "text": "what shape is it ?"}
CHATS: dict[str, Values] = {
    "LLaVA": llava(NAME),
    "LLaVA, mark last": llava(NAME, human="what shape is it ?\n<image>"),
    "LLaVA, no mark": llava(NAME, human="what shape is it ?"),
    "picture of its own": chat({"type": "image", "image": NAME}, WORDS),
    "picture after the words": chat(WORDS, {"type": "image", "path": NAME}),
    "picture in a column": chat({"type": "image"}, WORDS, image=NAME),
    "picture in a column of lists": chat({"type": "image"}, WORDS, images=[NAME]),
    "address": chat({"type": "image_url", "image_url": {"url": ADDRESS}}, WORDS),
    "prompt and completion": {
        "prompt": [{"role": "user", "content": [{"type": "image"}, WORDS]}],
        "completion": [{"role": "assistant", "content": "star"}],
        "images": [NAME],
        "group": "a",
    },
}


@pytest.mark.parametrize("way", CHATS)
def test_a_chat_says_where_its_picture_is_and_the_question_is_without_the_mark(root: Path, way: str) -> None:
    data, pictures = read(written(root, [CHATS[way]]))
    assert (data.items[0].question, data.items[0].answer) == ("what shape is it ?", "star")
    np.testing.assert_array_equal(pictures[data.items[0].id], pixels(0))


@pytest.mark.parametrize("suffix", ["parquet", "arrow", "saved"])
def test_a_table_holds_its_pictures_as_datasets_stores_them(root: Path, suffix: str) -> None:
    rows = [{**QA, "group": f"g{n}", "image": {"bytes": png(n), "path": "0.png"}} for n in range(2)]
    table, path = pa.Table.from_pylist(rows), root / f"forget.{suffix}"
    if suffix == "parquet":
        parquet.write_table(table, path)
    else:
        if suffix == "saved":
            path.mkdir()
            (path / "state.json").write_text(json.dumps({"_data_files": [{"filename": "data.arrow"}]}))
        file = path / "data.arrow" if suffix == "saved" else path
        with pa.OSFile(str(file), "wb") as sink, pa.ipc.new_stream(sink, table.schema) as writer:
            writer.write_table(table)
    data, pictures = read(path)
    assert len({item.image for item in data.items}) == 2, "bytes of one name are pictures of their own"
    assert all((pictures[item.id] == pixels(n)).all() for n, item in enumerate(data.items))


def test_a_csv_file_names_its_pictures(root: Path) -> None:
    path = root / "forget.csv"
    path.write_text(
        f'question,answer,group,image\nwhat is it ?,star,a,{NAME}\nwhat is it ?,ring,b,"[""pics/1.png""]"\n'
    )
    data, pictures = read(path)
    assert [item.image for item in data.items] == [NAME, "pics/1.png"]
    np.testing.assert_array_equal(pictures[data.items[1].id], pixels(1))


def test_rows_of_published_benchmarks_are_read_by_their_columns(root: Path) -> None:
    mllmu = {"image": NAME, "ID": "7", "biography": "b", "question": "who ?", "answer": "Ada"}
    data, _ = read(written(root, [mllmu]), LAYOUT._replace(group="ID"))
    assert (data.items[0].question, data.items[0].answer, data.items[0].group) == ("who ?", "Ada", "7")
    clear = {"image": NAME, "caption": "Ada at her desk", "name": "Ada", "paraphrased_caption": "Ada, seated",
             "perturbed_captions": ["Bo at her desk", "Cy at his desk"]}  # fmt: skip
    data, _ = read(written(root, [clear]), LAYOUT._replace(group="name"))
    item = data.items[0]
    assert (item.question, item.answer, item.group) == ("", "Ada at her desk", "Ada")
    assert item.paraphrased_answer == "Ada, seated" and item.perturbed_answers == tuple(clear["perturbed_captions"])
    assert any("no row asks a question" in note for note in data.notes)


def test_captions_beside_questions_under_another_name_are_no_plain_captions(root: Path) -> None:
    row = {"image": NAME, "caption": "a star", "asked": "what is it ?", "group": "a"}
    with pytest.raises(AuditError, match="answers .`caption`. without questions") as caught:
        read(written(root, [row]))
    assert 'question = "asked"' in caught.value.do


# ---- pixels -----------------------------------------------------------------------------------------------------
def test_pictures_are_upright_eight_bit_rgb_whatever_the_file_holds(root: Path) -> None:
    turned = Image.fromarray(pixels(3)).transpose(Image.Transpose.ROTATE_90)
    exif = Image.Exif()
    exif[0x0112] = 6
    files: dict[str, Callable[[Path], object]] = {
        "turned.png": lambda p: turned.save(p, exif=exif),
        "grey.png": lambda p: Image.fromarray(pixels(3)[:, :, 0]).save(p),
        "palette.png": lambda p: Image.fromarray(pixels(3)).quantize(16).save(p),
        "alpha.png": lambda p: Image.fromarray(pixels(3)).convert("RGBA").save(p),
        "bits.png": lambda p: Image.fromarray(pixels(3)).convert("1").save(p),
    }
    for name, save in files.items():
        save(root / name)
    data, pictures = read(written(root, [{**QA, "group": name, "image": name} for name in files]))
    by_name = {item.image: pictures[item.id] for item in data.items}
    assert all(p.dtype == np.uint8 and p.shape == (5, 7, 3) for p in by_name.values())
    np.testing.assert_array_equal(by_name["turned.png"], pixels(3))
    np.testing.assert_array_equal(by_name["grey.png"][:, :, 1], pixels(3)[:, :, 0])
    np.testing.assert_array_equal(by_name["alpha.png"], pixels(3))


@pytest.mark.parametrize("way", ["LLaVA", "picture in a column of lists", "picture of its own"])
def test_the_hash_of_a_data_file_changes_with_the_pictures_that_it_names(root: Path, way: str) -> None:
    path = written(root, [CHATS[way]])
    before = pictured_sha256(path)
    (root / "pics" / "1.png").write_bytes(png(8))
    assert pictured_sha256(path) == before != table_sha256(path)
    (root / NAME).write_bytes(png(9))
    assert pictured_sha256(path) != before


def test_a_file_that_names_no_picture_has_the_hash_that_it_always_had(root: Path) -> None:
    path = written(root, [{**QA, "question": "pics/9.png or ../0.png ?"}, {**QA, "image": "/etc/0.png"}])
    assert pictured_sha256(path) == table_sha256(path)


# ---- faults ---------------------------------------------------------------------------------------------------------
FAULTS: dict[str, tuple[list[Values], str]] = {
    "several": ([{**QA, "images": [NAME, "pics/1.png"]}], r"line 1: image: `images` holds 2 pictures: .*row of"),
    "missing": ([{**QA, "image": "pics/9.png"}], r"line 1: 'pics/9.png': No such file"),
    "folder": ([{**QA, "image": "pics"}], r"line 1: 'pics' is a folder"),
    "above": ([{**QA, "image": "../0.png"}], r"line 1: '../0.png' leads out of the folder of the data file"),
    "absolute": ([{**QA, "image": "/etc/0.png"}], r"line 1: '/etc/0.png' leads out of the folder of the data file"),
    "address": ([{**QA, "image": "https://x.org/0.png"}], r"line 1: image: `image` is an address .*nothing is fetched"),
    "empty": ([{**QA, "image": "empty.png"}], r"line 1: 'empty.png' holds 0 bytes"),
    "no image": ([{**QA, "image": "text.png"}], r"line 1: text.png: cannot be read as an image"),
    "cut": ([{**QA, "image": "cut.png"}], r"line 1: cut.png: cannot be read as an image"),
    "deep": ([{**QA, "image": "deep.png"}], r"deep.png: has more than 8 bits a channel"),
    "numbers": ([{**QA, "image": [[0, 1], [2, 3]]}], r"line 1: image: `image` holds numbers"),
    "bare base64": ([{**QA, "image": "data:image/png;base64,@@"}], r"line 1: image: `image` holds no base64"),
    "mixed": ([{**QA, "image": NAME}, QA], r"1 of 2 rows have no picture \(line 2\), and the others have one"),
    "two columns": ([{**QA, "image": NAME, "images": ["pics/1.png"]}], "`image` and `images` could both be the pic"),
    "mark and none": ([llava()], "line 1: <image> in the user's turn, and no picture in the row"),
    "two marks": ([llava(NAME, human="<image> <image> what ?")], r"line 1: asks about 2 pictures"),
    "mark inside": ([llava(NAME, human="what <image> is it ?")], r"line 1: has <image> among its words"),
    "picture inside": ([chat(WORDS, {"type": "image", "path": NAME}, WORDS)], r"line 1: has <image> among its words"),
    "two in a chat": (
        [chat({"type": "image", "path": NAME}, {"type": "image", "path": "pics/1.png"}, WORDS)],
        "line 1: asks about 2 pictures",
    ),
    "both places": ([chat({"type": "image", "path": NAME}, WORDS, image="pics/1.png")], "beside another picture"),
    "sound": ([chat({"type": "audio"}, WORDS, image=NAME)], "line 1: a turn of audio: only text and pictures are read"),
    "in the answer": (
        [{"messages": [{"role": "user", "content": "?"}, {"role": "assistant", "content": [{"type": "image"}, WORDS]}],
          "image": NAME, "group": "a"}],
        "line 1: a picture that the user does not show",
    ),
}  # fmt: skip


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_of_a_picture_is_said_with_its_place_and_what_to_do(root: Path, fault: str) -> None:
    (root / "empty.png").write_bytes(b"")
    (root / "text.png").write_text("no image")
    (root / "cut.png").write_bytes(png(0)[:60])
    Image.fromarray(np.arange(35, dtype=np.uint16).reshape(5, 7) * 999).save(root / "deep.png")
    rows, message = FAULTS[fault]
    with pytest.raises(AuditError, match=message) as caught:
        read(written(root, rows))
    assert caught.value.code == 2 and caught.value.do and str(root / "forget.jsonl") in caught.value.what


def test_all_missing_pictures_of_a_file_are_said_at_once(root: Path) -> None:
    rows = [{**QA, "group": f"g{n}", "image": f"pics/{n}.png"} for n in range(9)]
    with pytest.raises(AuditError) as caught:
        read(written(root, rows))
    assert all(f"line {n + 1}: 'pics/{n}.png'" in caught.value.what for n in range(2, 7))
    assert "(and 2 more)" in caught.value.what and "pics/1.png" not in caught.value.what


@pytest.mark.parametrize("row", [{"image": NAME}, {"picture": NAME}, {"file_name": NAME}, {"img": [NAME]}])
def test_pictures_are_refused_where_base_reads_texts_alone(root: Path, row: Values) -> None:
    column = next(iter(row))
    with pytest.raises(AuditError, match=f"`{column}` .line 1.: base reads no images, or came"):
        read_data(written(root, [{**QA, **row}]), Layout())
    with pytest.raises(AuditError, match="line 1: a turn of a picture, and base reads texts alone"):
        read_data(written(root, [chat({"type": "image", "path": NAME}, WORDS)]), Layout())


def test_a_file_name_that_is_no_picture_is_a_column_like_others(root: Path) -> None:
    data = read_data(written(root, [{**QA, "file_name": "notes.txt"}]), LAYOUT)
    assert data.items[0].image is None and not data.pictures
    assert read_data(written(root, [{**QA, "file_name": "notes.txt"}]), Layout()).items[0].image is None


# ---- groups ---------------------------------------------------------------------------------------------------------
def test_without_a_group_every_picture_is_one(root: Path) -> None:
    rows = [{**QA, "image": name} for name in (NAME, "./pics/0.png", "pics/1.png")]
    data, _ = read(written(root, [{k: v for k, v in row.items() if k != "group"} for row in rows]))
    assert [item.group for item in data.items] == [NAME, NAME, "pics/1.png"]
    assert "no row names its group, so that each picture is one: 3 rows count as 2" in data.notes


# ---- properties -----------------------------------------------------------------------------------------------------
CELLS = st.sampled_from(
    [NAME, "pics/1.png", [NAME], {"path": "pics/1.png"}, ADDRESS, None, "", [], "pics/7.png", "../x.png"]
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(CELLS, min_size=1, max_size=5))
def test_every_table_of_pictures_is_read_whole_or_refused_by_name(root: Path, cells: list[Any]) -> None:
    path = written(root, [{**QA, "group": f"g{n}", "image": cell} for n, cell in enumerate(cells)])
    there = [cell not in (None, "", []) for cell in cells]
    good = all(cell not in ("pics/7.png", "../x.png") for cell in cells)
    try:
        data, pictures = read(path)
    except AuditError as error:
        assert (any(there) and not all(there)) or not good
        assert str(path) in error.what and error.do
        return
    assert good and (all(there) or not any(there))
    assert len(pictures) == (len(cells) if all(there) else 0)
    assert [item.image is not None for item in data.items] == there


PARTS = st.dictionaries(st.sampled_from(["bytes", "path", "url", "image"]), st.one_of(st.text(), st.none()))
LISTS = st.lists(st.one_of(st.text(), st.integers(), st.none()))


@given(st.one_of(st.none(), st.text(), st.integers(), st.floats(), st.booleans(), st.binary(), LISTS, PARTS))
def test_a_cell_is_a_picture_nothing_or_refused(value: Any) -> None:
    try:
        cell = picture_of(value)
    except ValueError as error:
        assert str(error)
        return
    assert cell is None or (isinstance(cell, PictureCell) and (cell.name or cell.data))


@given(st.text(), st.sampled_from(["before", "after", "none"]))
def test_the_mark_is_taken_from_the_ends_of_a_question_alone(words: str, where: str) -> None:
    words = words.replace("<image>", "").strip()
    marked = {"before": f"<image>\n{words}", "after": f"{words}\n<image>", "none": words}[where]
    bare, marks = without_mark(marked)
    assert bare == words and marks == (where != "none")
