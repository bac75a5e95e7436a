"""A data file of a case as it is now, and how it is to be read."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from audit.case.fields import Layout
from audit.schema import Cohort, DataFiles, Template


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
