"""Mutations of data files as tables: other formats, odd cells, odd columns."""

import csv
import json
from collections.abc import Callable
from io import StringIO
from pathlib import Path
from typing import Any, Final

from studies.fuzz.mutations import Kind, Rng
from studies.fuzz.world import items

_CELLS: Final = (
    "", " ", "\0", '"', "'", "\n", "\r", ",", ";", "\t", '"""', "=1+1", "nan", "<NA>", "\ufeff", "\x1b[2J", "\u202e",
    "[1, 2", "['a', 'b']", '{"a": 1}', "x" * 200_000, "\ud83d\ude00".encode("utf-16", "surrogatepass").decode("utf-16"),
    "{answer}", "<bos>", "\u0000\u0001", "?" * 500,
)  # fmt: skip


def _named(root: Path, cohort: str, name: str) -> Path:
    """The case names another file for a cohort."""
    case = root / "case.toml"
    text = case.read_text(encoding="utf-8").replace(f'"{cohort}.jsonl"', f'"{name}"')
    case.write_text(text, encoding="utf-8")
    return root / name


def _flat(row: dict[str, Any]) -> dict[str, str]:
    return {name: value if isinstance(value, str) else json.dumps(value) for name, value in row.items()}


def _as_csv(rng: Rng, root: Path) -> None:
    """A CSV file with odd cells, delimiters and quotes."""
    rows = [_flat(row) for row in items("forget")]
    rng.choice(rows)[rng.choice(list(rows[0]))] = rng.choice(_CELLS)
    text = StringIO()
    delimiter = rng.choice((",", ";", "\t", "|"))
    quoting = rng.choice((csv.QUOTE_MINIMAL, csv.QUOTE_ALL))
    writer = csv.DictWriter(text, list(rows[0]), delimiter=delimiter, quoting=quoting)
    writer.writeheader()
    writer.writerows(rows)
    lines = text.getvalue()
    at = rng.randrange(len(lines))
    broken = rng.choice((lines, lines, lines[:at], lines[:at] + rng.choice(_CELLS) + lines[at:], lines.upper()))
    _named(root, "forget", rng.choice(("forget.csv", "forget.tsv", "FORGET.CSV"))).write_text(
        broken, encoding="utf-8", errors="surrogatepass"
    )


def _columns(rng: Rng) -> dict[str, list[Any]]:
    rows = items("forget")
    columns: dict[str, list[Any]] = {name: [row[name] for row in rows] for name in rows[0]}
    n = len(rows)
    odd: list[list[Any]] = [
        [None] * n, list(range(n)), [0.5] * n, [b"\xff\0"] * n, [True] * n, [{"a": 1}] * n, [[1, 2]] * n, [[]] * n,
        ["\0"] * n, ["\x1b[31m"] * n, [""] * n, [float("nan")] * n, ["x" * 50_000] * n, [10**15] * n,
    ]  # fmt: skip
    columns[rng.choice([*columns, "form", "of", "subject", "frequency", "image", "messages", "text"])] = rng.choice(odd)
    return columns


def _as_parquet(rng: Rng, root: Path) -> None:
    """A Parquet or Arrow file with a column of an odd type, and now and then damaged."""
    import pyarrow
    from pyarrow import ipc, parquet

    table, kind = pyarrow.table(_columns(rng)), rng.choice(("parquet", "parquet", "arrow"))
    if rng.random() < 0.2:
        names = table.column_names
        table = table.rename_columns([names[0], names[0], *names[2:]])
    path = _named(root, "forget", f"forget.{kind}")
    if kind == "parquet":
        parquet.write_table(table, path)
    else:
        with ipc.new_file(str(path), table.schema) as file:
            file.write_table(table)
    data = path.read_bytes()
    at = rng.randrange(len(data))
    path.write_bytes(rng.choice((data, data, data[:at], data[:at] + b"\xff" * 8 + data[at + 8 :], data[:4])))


def _as_document(rng: Rng, root: Path) -> None:
    """One JSON document in the place of lines: rows under names, columns, rows of other kinds."""
    rows = items("forget")
    columns = {name: [row[name] for row in rows] for name in rows[0]}
    odd: list[Any] = [
        rows, {"data": rows}, {"data": rows, "other": rows}, columns, {**columns, "id": []}, [rows], [1, 2], "text", 5,
        None, {}, [], {"a": {"b": rows}}, [[]], {str(n): row for n, row in enumerate(rows)}, [*rows, None], [*rows, []],
        [{**row, "answer": [row["answer"]]} for row in rows], [{**row, "question": {"text": "?"}} for row in rows],
        [{"messages": [{"role": "user", "content": row["question"]}]} for row in rows], [{} for _ in rows],
        [{"messages": [{"from": "human", "value": 1}, {"from": "gpt", "value": row["answer"]}]} for row in rows],
    ]  # fmt: skip
    _named(root, "forget", rng.choice(("forget.json", "forget.jsonl", "forget"))).write_text(
        json.dumps(rng.choice(odd)), encoding="utf-8"
    )


def _rows_again(rng: Rng, root: Path) -> None:
    """Rows twice, rows of another cohort, one row alone, or very many."""
    path = root / "forget.jsonl"
    lines = path.read_text(encoding="utf-8").splitlines()
    other = (root / "retain.jsonl").read_text(encoding="utf-8").splitlines()
    drawn = ([*lines, lines[0]], [*lines, other[0]], other, lines[:1], lines[:2], lines[::-1], lines * 3, [*lines, ""])
    path.write_text("\n".join(rng.choice(drawn)), encoding="utf-8")


def _folder(rng: Rng, root: Path) -> None:
    """A folder of shards, some of them missing, of two kinds, or no files at all."""
    place = _named(root, "forget", "shards")
    place.mkdir()
    text = (root / "forget.jsonl").read_bytes()
    drawn = (
        ("a.jsonl",), ("a.jsonl", "b.jsonl"), ("a-00000-of-00002.jsonl",), ("a-00000-of-99999.jsonl",), (), ("a.bin",),
        ("a-00000-of-00001.jsonl", "state.json"), ("dataset_dict.json",), ("state.json",), ("a.csv",), ("a.parquet",),
    )  # fmt: skip
    for name in rng.choice(drawn):
        (place / name).write_bytes(text)


_SOUND: Final = "sound rows in another format or order, or an odd cell of a field that is not read"
TABLES: Final[tuple[tuple[str, Callable[[Rng, Path], None]], ...]] = (
    ("CSV", _as_csv), ("Parquet and Arrow", _as_parquet), ("one document", _as_document), ("rows", _rows_again),
    ("folder of shards", _folder),
)  # fmt: skip
TABLE_KINDS: Final = tuple(Kind("data", name, act, _SOUND) for name, act in TABLES)
