"""Tables of a run folder that were damaged are an integrity fault, however pyarrow calls what it met."""

import hashlib
from io import BytesIO
from pathlib import Path

import pyarrow
import pytest
from pyarrow import parquet

from audit.schema import AuditError, ExitCode
from audit.storage import hashed_columns, parquet_columns


def table_bytes() -> bytes:
    out = BytesIO()
    parquet.write_table(pyarrow.table({"item": ["a", "b"], "score": [0.5, 1.0]}), out)
    return out.getvalue()


def test_a_table_is_read_by_column() -> None:
    assert parquet_columns(Path("a.parquet"), table_bytes(), ("item",)) == {"item": ["a", "b"], "score": [0.5, 1.0]}


FOOTER = table_bytes()[:-40] + b"\xff" * 24 + table_bytes()[-16:]


@pytest.mark.parametrize("data", [b"", b"noise", table_bytes()[:-1], FOOTER], ids=["empty", "noise", "cut", "footer"])
def test_a_damaged_table_is_named_with_code_3(data: bytes) -> None:
    with pytest.raises(AuditError, match=r"a\.parquet: cannot be read as Parquet") as caught:
        parquet_columns(Path("a.parquet"), data)
    assert caught.value.code == ExitCode.INTEGRITY


def test_a_table_without_a_column_that_is_needed_is_named_with_code_3() -> None:
    with pytest.raises(AuditError, match=r"a\.parquet: has no column 'role'") as caught:
        parquet_columns(Path("a.parquet"), table_bytes(), ("item", "role"))
    assert caught.value.code == ExitCode.INTEGRITY


def test_a_table_is_read_only_where_it_is_the_one_with_the_hash(tmp_path: Path) -> None:
    path, sha256 = tmp_path / "a.parquet", hashlib.sha256(table_bytes()).hexdigest()
    assert hashed_columns(path, sha256) is None
    path.write_bytes(table_bytes())
    assert hashed_columns(path, sha256, ("item",)) == {"item": ["a", "b"], "score": [0.5, 1.0]}
    assert hashed_columns(path, "0" * 64) is None
