"""What `residua sae show` left of dictionaries below the root: listed, and read as records or refused with a reason."""

from typing import Final, NamedTuple

from pydantic import ValidationError

from audit.schema import AuditError, ExitCode
from audit.wording import CELL, visible
from dashboards.vault import MB, Stamp, Vault, shown
from saes import VIEW, DictionaryView

CAP: Final = 64 * MB


class Folder(NamedTuple):
    """A dictionary's folder by its path below the root, and what tells that its file is still the one that was read."""

    name: str
    stamp: Stamp | None


def folders(vault: Vault) -> tuple[Folder, ...]:
    """Every dictionary below the root that something is known of, by path."""
    return tuple(Folder(name, vault.stamp(f"{name}/{VIEW}")) for name in vault.folders_with((VIEW,)))


def read(vault: Vault, name: str) -> DictionaryView:
    """What is seen of a dictionary. AuditError (code 3) for a file that is too big or no such record."""
    path = f"{name}/{VIEW}"
    try:
        return DictionaryView.model_validate_json(vault.read(path, CAP))
    except ValidationError as error:
        first = error.errors()[0]
        where = visible(".".join(map(str, first["loc"])), CELL)
        problem = f"{shown(path)} cannot be read: {where}: {visible(first['msg'], CELL)}"
        raise AuditError(problem, "write it anew with `residua sae show`", ExitCode.INTEGRITY) from None
