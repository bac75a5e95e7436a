"""The same rows through every kind of file, and what is no such file."""

import csv
import gzip
import io
import json
from pathlib import Path
from typing import Any

import pyarrow
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pyarrow import ipc, parquet

from audit.case.items import read_items
from audit.case.tables import read_table, table_sha256
from audit.schema import AuditError

Rows = list[dict[str, Any]]
WORDS = st.text(st.characters(codec="utf-8", exclude_categories=["Cs", "Cc"]), min_size=1, max_size=12).filter(
    lambda text: (
        text.strip() not in ("", "nan", "NaN", "<NA>", "NaT") and not text.startswith("[") and not text.isdecimal()
    )
)
ROWS = st.lists(
    st.fixed_dictionaries(
        {
            "question": WORDS.map(lambda text: f"{text}, is it, \"so\"\nor ?"), "answer": WORDS,
            "group": st.integers(0, 5), "perturbed_answers": st.lists(WORDS, max_size=3),
            "key": st.none() | st.just("k"), "frequency": st.none() | st.integers(1, 9),
        }
    ),
    min_size=1, max_size=6,
)  # fmt: skip


def as_lines(rows: Rows) -> str:
    return "\n".join(json.dumps(row) for row in rows)


def as_csv(rows: Rows, delimiter: str = ",") -> str:
    text = io.StringIO()
    writer = csv.writer(text, delimiter=delimiter)
    writer.writerow(rows[0])
    for row in rows:
        cells = [row[name] for name in rows[0]]
        writer.writerow([json.dumps(v) if isinstance(v, list) else "" if v is None else v for v in cells])
    return text.getvalue()


def table(rows: Rows) -> pyarrow.Table:
    kinds = {
        "question": pyarrow.string(), "answer": pyarrow.string(), "group": pyarrow.float64(), "key": pyarrow.string(),
        "perturbed_answers": pyarrow.list_(pyarrow.string()), "frequency": pyarrow.int64(),
    }  # fmt: skip
    return pyarrow.Table.from_pylist(rows, pyarrow.schema([(name, kinds[name]) for name in rows[0]]))


def write_stream(path: Path, rows: Rows) -> None:
    with pyarrow.OSFile(str(path), "wb") as sink, ipc.new_stream(sink, table(rows).schema) as writer:
        writer.write_table(table(rows))


def saved(folder: Path, rows: Rows) -> None:
    """A folder as ``Dataset.save_to_disk`` lays it out, in two shards named against the alphabet."""
    folder.mkdir(parents=True)
    names = ["data-00001.arrow", "data-00000.arrow"]
    for name, part in zip(names, (rows[: len(rows) // 2], rows[len(rows) // 2 :]), strict=True):
        write_stream(folder / name, part) if part else write_empty(folder / name, rows)
    state = {"_data_files": [{"filename": name} for name in names], "_fingerprint": "f", "_split": None}
    (folder / "state.json").write_text(json.dumps(state))
    (folder / "dataset_info.json").write_text("{}")


def write_empty(path: Path, rows: Rows) -> None:
    with pyarrow.OSFile(str(path), "wb") as sink, ipc.new_stream(sink, table(rows).schema):
        pass


def in_shards(folder: Path, rows: Rows) -> None:
    """A folder as the hub lays it out."""
    (folder / "data").mkdir(parents=True)
    for n, row in enumerate(rows):
        parquet.write_table(table([row]), folder / "data" / f"train-{n:05d}-of-{len(rows):05d}.parquet")


KINDS = {
    "x.json": lambda path, rows: path.write_text(json.dumps(rows, indent=2)),
    "x.jsonl": lambda path, rows: path.write_text(as_lines(rows)),
    "x.ndjson": lambda path, rows: path.write_text(json.dumps(rows)),
    "x.parquet": lambda path, rows: parquet.write_table(table(rows), path),
    "x.arrow": write_stream,
    "x.csv": lambda path, rows: path.write_text(as_csv(rows)),
    "x.tsv": lambda path, rows: path.write_text(as_csv(rows, "\t")),
    "semicolons/x.csv": lambda path, rows: path.write_text("\ufeff" + as_csv(rows, ";")),
    "named/x.json": lambda path, rows: path.write_text(json.dumps({"version": 1, "data": rows})),
    "columns/x.json": lambda path, rows: path.write_text(json.dumps({k: [row[k] for row in rows] for k in rows[0]})),
    "pandas/x.json": lambda path, rows: path.write_text(
        json.dumps({k: {str(n): row[k] for n, row in enumerate(rows)} for k in rows[0]})
    ),
    "saved/x": saved, "shards/x": in_shards, "split/x": lambda path, rows: _split(path, rows),
}  # fmt: skip


def _split(path: Path, rows: Rows) -> None:
    saved(path / "train", rows)
    (path / "dataset_dict.json").write_text('{"splits": ["train"]}')


@pytest.mark.thorough
@settings(max_examples=25, deadline=None)
@given(rows=ROWS)
def test_same_rows_are_the_same_items_in_every_kind_of_file(
    rows: Rows, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("kinds")
    (folder / "x.txt").write_text(as_lines(rows))
    expected = read_items(folder / "x.txt")
    assert [(i.question, i.answer, i.group) for i in expected] == [
        (row["question"], row["answer"], str(row["group"])) for row in rows
    ]
    assert [list(i.perturbed_answers) for i in expected] == [row["perturbed_answers"] for row in rows]
    for name, write in KINDS.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        write(folder / name, rows)
        assert read_items(folder / name) == expected, name


def test_folder_hash_changes_with_what_is_read_of_it_and_with_nothing_else(tmp_path: Path) -> None:
    rows: Rows = [{"question": "q", "answer": a, "group": 1} for a in "ab"]
    for name, some in (("one", rows), ("two", rows), ("three", rows[::-1])):
        saved(tmp_path / name, some)
    (tmp_path / "two" / "notes.md").write_text("read me")
    one, two, three = (table_sha256(tmp_path / name) for name in ("one", "two", "three"))
    assert one == two != three


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("x.csv", "question,answer,group\nq,a\n", "row 1 (line 2): 2 cells under 3 names"),
        ("x.csv", "text,text\na,b\n", "the header has `text` twice"),
        ("x.csv", 'text\n"open\n', "not CSV"),
        ("x.csv", "text,perturbed_answers\na,['b' 'c']\n", "row 1 (line 2): is a list that cannot be read"),
        ("x.json", '[{"text": "a"}, 3]', "row 2: not a JSON object"),
        ("x.json", '{"train": [{"text": "a"}], "test": [{"text": "b"}]}', "several lists (train, test)"),
        ("x.jsonl", '{"text": "a", "text": "b"}', "line 1: `text` stands twice"),
        ("x.jsonl", "[" * 9999, "line 1: nested too deep"),
        ("x.parquet", "PAR1 is all there is", "cannot be read as Parquet or Arrow: Arrow"),
        ("x.arrow", "{}", "cannot be read as Parquet or Arrow"),
        ("x.jsonl", gzip.compress(b"{}", mtime=0), "is packed (gzip)"),
        ("x.jsonl", "text \xe9".encode("latin-1"), "cannot be read ('utf-8' codec"),
    ],
)
def test_what_cannot_be_read_is_refused_with_its_place(
    tmp_path: Path, name: str, content: str | bytes, said: str
) -> None:
    (tmp_path / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(AuditError) as caught:
        read_items(tmp_path / name)
    assert caught.value.code == 2 and said in caught.value.what and str(tmp_path / name) in caught.value.what


@pytest.mark.parametrize(
    ("names", "said"),
    [
        ((), "without data files"),
        (("a.jsonl", "b.jsonl"), "several data files (a.jsonl, b.jsonl)"),
        (("train-00000-of-00002.jsonl", "test-00000-of-00002.jsonl"), "several data files"),
        (("train-00001-of-00002.jsonl",), "shards are missing (train-00000-of-00002.jsonl)"),
        (("dataset_dict.json", "train/state.json", "test/state.json"), "several splits (test, train)"),
        (("train-00000-of-00001.jsonl", "notes.csv"), "several data files"),
    ],
)
def test_folder_that_does_not_say_which_rows_are_meant_is_refused(
    tmp_path: Path, names: tuple[str, ...], said: str
) -> None:
    for name in names:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text('{"text": "a"}')
    with pytest.raises(AuditError) as caught:
        read_table(tmp_path)
    assert caught.value.code == 2 and said in caught.value.what


def test_bad_line_in_a_shard_is_named_and_not_dropped(tmp_path: Path) -> None:
    (tmp_path / "train-00000-of-00001.jsonl").write_text('{"text": "a"}\n{"text": ')
    with pytest.raises(AuditError, match="train-00000-of-00001.jsonl: line 2: not JSON"):
        read_items(tmp_path)


def test_folder_that_datasets_saved_is_read_as_it_is(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    rows = [{"question": f"q {n}", "answer": f"a {n}", "group": f"g{n // 2}"} for n in range(6)]
    made = datasets.Dataset.from_list(rows).select([4, 2, 0])
    made.save_to_disk(str(tmp_path / "one"), num_shards=2)
    assert [item.question for item in read_items(tmp_path / "one")] == ["q 4", "q 2", "q 0"]
    datasets.DatasetDict({"a": made, "b": made}).save_to_disk(str(tmp_path / "two"))
    assert [item.question for item in read_items(tmp_path / "two" / "b")] == ["q 4", "q 2", "q 0"]
    with pytest.raises(AuditError, match="several splits"):
        read_items(tmp_path / "two")


PAIRS: Rows = [{"question": f"q{n}", "answer": f"a{n}", "group": n} for n in range(2)]


@pytest.mark.parametrize(
    "document",
    [
        {"info": {"version": 1}, "data": PAIRS}, {"tags": ["x"], "license": "MIT", "data": PAIRS},
        {"schema": {"fields": [{"name": "question"}]}, "data": PAIRS}, {"0": PAIRS[0], "1": PAIRS[1]},
        {"columns_of": {"a": [1]}, "rows": PAIRS, "note": ""},
        {name: {str(n): row[name] for n, row in enumerate(PAIRS)} for name in PAIRS[0]},
    ],
)  # fmt: skip
def test_rows_of_a_document_are_found_beside_what_is_said_of_them(tmp_path: Path, document: object) -> None:
    (tmp_path / "x.json").write_text(json.dumps(document))
    assert [(i.question, i.answer, i.group) for i in read_items(tmp_path / "x.json")] == [
        ("q0", "a0", "0"), ("q1", "a1", "1"),
    ]  # fmt: skip


def test_a_document_of_texts_is_plain_text(tmp_path: Path) -> None:
    (tmp_path / "x.json").write_text('["one", "two"]')
    assert [(i.question, i.answer) for i in read_items(tmp_path / "x.json")] == [("", "one"), ("", "two")]


@pytest.mark.parametrize(
    "content",
    [
        'question, answer, group\nq, "a, b", 1\n', "question,answer,group,,\nq,\"a, b\",1,,\n",
        "\n\nquestion;answer;group\nq;a, b;1\n", '\ufeff"question";"answer";"group"\r\n"q";"a, b";"1"\r\n',
    ],
)  # fmt: skip
def test_a_sheet_is_read_as_programs_write_it(tmp_path: Path, content: str) -> None:
    (tmp_path / "x.csv").write_bytes(content.encode())
    (item,) = read_items(tmp_path / "x.csv")
    assert (item.question, item.answer, item.group) == ("q", "a, b", "1")
