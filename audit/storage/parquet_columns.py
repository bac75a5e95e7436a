"""The columns of a Parquet file that lies in a run folder. No torch; pyarrow is imported when a file is read."""

import hashlib
from collections.abc import Collection
from io import BytesIO
from pathlib import Path
from typing import Any

from audit.schema import AuditError, ExitCode, as_audit_error
from audit.storage.file_kinds import file_bytes

_RESTORE = "restore the run folder, or run the audit again"


def parquet_columns(path: Path, data: bytes, needed: Collection[str] = ()) -> dict[str, list[Any]]:
    """The columns by name of what was read from ``path``. AuditError (code 3): no Parquet, or a column is missing."""
    from pyarrow import parquet

    reading = as_audit_error(f"{path}: cannot be read as Parquet", _RESTORE, ExitCode.INTEGRITY)
    # not read_table, which imports data sets, and pandas with them
    with reading, parquet.ParquetFile(BytesIO(data)) as file:
        columns: dict[str, list[Any]] = file.read(use_threads=False).to_pydict()
    if lacking := sorted(set(needed) - columns.keys()):
        raise AuditError(f"{path}: has no column {lacking[0]!r}", _RESTORE, ExitCode.INTEGRITY)
    return columns


def hashed_columns(path: Path, sha256: str, needed: Collection[str] = ()) -> dict[str, list[Any]] | None:
    """The same of the file with this hash; None where there is no file, or another. AuditError (code 3) as there."""
    data = file_bytes(path) if path.is_file() else b""
    return parquet_columns(path, data, needed) if hashlib.sha256(data).hexdigest() == sha256 else None
