"""Columns of Python values as an Arrow table, without pandas.

Arrow's own conversion of a list looks whether it is something of pandas, and loads it for that: a third of a second and
70 MB in every run. Texts and numbers need no more than their bytes.
"""

from collections.abc import Mapping, Sequence
from itertools import accumulate
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from pyarrow import Table as ArrowTable

_MOST_BYTES = 2**31 - 1


def arrow_table(columns: Mapping[str, Sequence[str | int | float | bool]]) -> "ArrowTable":
    """The columns as a table: the one that ``pyarrow.table`` makes of lists."""
    import pyarrow

    return pyarrow.Table.from_arrays([_array(list(values)) for values in columns.values()], names=list(columns))


def _array(values: list[str | int | float | bool]) -> Any:
    """One column. What is not of one kind, or is truth values, is left to Arrow."""
    import pyarrow

    kinds = set(map(type, values))
    if kinds == {str}:
        texts = [str(value).encode() for value in values]
        ends = np.fromiter(accumulate(map(len, texts), initial=0), np.int64, len(texts) + 1)
        if ends[-1] <= _MOST_BYTES:
            buffers = [None, pyarrow.py_buffer(ends.astype(np.int32)), pyarrow.py_buffer(b"".join(texts))]
            return pyarrow.Array.from_buffers(pyarrow.string(), len(texts), buffers)
    if kinds in ({int}, {float}):
        numbers = np.array(values, np.int64 if kinds == {int} else np.float64)
        return pyarrow.Array.from_buffers(
            pyarrow.from_numpy_dtype(numbers.dtype), len(numbers), [None, pyarrow.py_buffer(numbers)]
        )
    return pyarrow.array(values)
