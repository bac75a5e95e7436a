"""A data file of a case as it is now, and how it is to be read."""

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple, get_args

from audit.case.fields import Layout
from audit.case.tables import table_sha256
from audit.checkpoints import processor_files
from audit.schema import AuditError, Checkpoint, Cohort, DataFiles, Template
from audit.storage import resolved


class DataFile(NamedTuple):
    """One data file as it is now."""

    cohort: Cohort
    path: Path
    sha256: str


def layout_of(
    file: DataFile, files: Sequence[DataFile], data: DataFiles, template: Template, images: bool = False
) -> Layout:
    """How one of the data files of a case is to be read; ``images``: base reads pictures too."""
    path = file.path
    twins = [other for other in files if other.path.stem == path.stem and other.cohort != file.cohort]
    return Layout(
        group=data.group, group_rows=data.group_rows, columns=data.fields.of(file.cohort),
        own_groups=file.cohort in ("general", "forms"), restating=file.cohort == "forms",
        system=template.system if template.chat else "",
        prefix=f"{file.cohort}-{path.stem}" if twins else "", images=images,
    )  # fmt: skip


def data_files(data: DataFiles, root: Path, sha256: Callable[[Path], str] = table_sha256) -> tuple[DataFile, ...]:
    """The data files (or folders) that a case names, hashed as they are read. AuditError (code 2) if one cannot be."""
    files: list[DataFile] = []
    for cohort in get_args(Cohort):
        name: str | None = getattr(data, cohort)
        if name is None:
            continue
        path = resolved(root / os.path.expanduser(name))
        try:
            files.append(DataFile(cohort, path, sha256(path)))
        except OSError as error:
            raise AuditError(f"{path}: cannot be read ({error.strerror})", f"correct `{cohort}` in [data]") from None
    return tuple(files)


def sha256_as_read_by(base: Checkpoint) -> Callable[[Path], str]:
    """How a data file is hashed where ``base`` reads it: together with its pictures, if it reads those."""
    if base.modality == "image":
        from audit.case.pictures import pictures_sha256

        return pictures_sha256
    if base.modality == "image+text" and processor_files(base) is not None:
        from audit.case.item_pictures import pictured_sha256

        return pictured_sha256
    return table_sha256
