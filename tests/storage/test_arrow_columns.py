"""Tables without pandas are the bytes that Arrow itself writes."""

import subprocess
import sys
from io import BytesIO

import pyarrow
import pytest
from pyarrow import parquet

from audit.storage import arrow_table

COLUMNS = {
    "texts": {"a": ["", "né", "a\nb", "x" * 300]},
    "numbers": {"a": [1, -2, 2**62, 0], "b": [0.5, float("nan"), -0.0, 1e300]},
    "mixed": {"a": [1, 2.5, 3, 4], "b": [True, False, True, True]}, "empty": {"a": []},
}  # fmt: skip


@pytest.mark.parametrize("columns", COLUMNS.values(), ids=COLUMNS.keys())
def test_columns_are_written_as_arrow_writes_lists(columns: dict[str, list[str | int | float]]) -> None:
    written = [BytesIO(), BytesIO()]
    for table, buffer in zip((arrow_table(columns), pyarrow.table(columns)), written, strict=True):
        table.validate(full=True)
        parquet.write_table(table, buffer)
    assert written[0].getvalue() == written[1].getvalue()


def test_texts_and_numbers_are_written_without_loading_pandas() -> None:
    program = (
        "import sys; from audit.storage import arrow_table;"
        "arrow_table({'a': ['x', 'y'], 'b': [1, 2], 'c': [0.5, 1.5]}); sys.exit('pandas' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", program], check=True)
