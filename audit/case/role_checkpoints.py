"""Who plays what in a case, found and named by content. Free of torch: whether a run is finished is asked by this."""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from audit.checkpoints import resolve
from audit.schema import AuditError, Case, Checkpoint, Source


class CaseCheckpoints(NamedTuple):
    """Who plays what, named by content."""

    base: Checkpoint
    suspect: Checkpoint
    references: tuple[Checkpoint, ...]
    ancestor: Checkpoint | None


def resolved_roles(
    case: Case, root: Path, online: bool, by: Callable[[Source, Path, bool], Checkpoint] = resolve
) -> CaseCheckpoints:
    """The checkpoints behind the roles; an error says which role it is about."""

    def of_role(role: str, source: Source) -> Checkpoint:
        try:
            return by(source, Path(root), online)
        except AuditError as error:
            raise AuditError(f"{role}: {error.what}", error.do, error.code) from None

    roles = case.roles
    return CaseCheckpoints(
        base=of_role("base", roles.base),
        suspect=of_role("suspect", roles.suspect),
        references=tuple(of_role(f"reference {n}", source) for n, source in enumerate(roles.references)),
        ancestor=None if roles.ancestor is None else of_role("ancestor", roles.ancestor),
    )
