"""What a plan was made from, by content: checkpoints, data files, published numbers. Free of torch."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from audit.runs import Received, name_of
from audit.schema import Case, Cohort, Missing, Published

if TYPE_CHECKING:
    from audit.case import CaseCheckpoints, OpenCase


def received(case: "CaseCheckpoints | OpenCase") -> tuple[Received, ...]:
    """The checkpoints of a case by role; references are numbered from 0."""
    checkpoints = [Received("base", case.base), Received("suspect", case.suspect)]
    checkpoints += [Received(f"reference {index}", checkpoint) for index, checkpoint in enumerate(case.references)]
    if case.ancestor is not None:
        checkpoints.append(Received("ancestor", case.ancestor))
    return tuple(checkpoints)


def fingerprints(case: "CaseCheckpoints | OpenCase") -> dict[str, str]:
    """The hash that names each checkpoint, by role."""
    return {role: name_of(checkpoint) for role, checkpoint in received(case)}


def published(case: Case, root: Path) -> Published | Missing:
    """The published numbers that the case names. AuditError (code 2) if the file is none of that kind."""
    if case.published is None:
        return Missing(missing="none were given")
    from audit.render import read_published

    return read_published(root / case.published, case.published)


def hashes_of_data(case: Case, root: Path, data_sha256: Mapping[Cohort, str]) -> dict[str, str]:
    """The hashes of the data files (by cohort, given), and of the published numbers where the case names some."""
    numbers = published(case, root)
    return {str(cohort): sha256 for cohort, sha256 in data_sha256.items()} | (
        {} if isinstance(numbers, Missing) else {"published": numbers.sha256}
    )
