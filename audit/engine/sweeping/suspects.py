"""Which audits a sweep is: case files, folders of them, or one case with a pool of checkpoints as its suspects."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from audit.case import CaseFile
from audit.schema import AuditError, Case, Source, canonical_hash

_MARKS = ("config.json", "edit.json", "adapter_config.json")
"""A folder with one of these files is a checkpoint, and so is a .gguf file."""
_GGUF = ".gguf"
_SHORT = 7
"""So much of a commit stands in a name: several commits of one repository are several suspects."""


class Suspect(NamedTuple):
    """One audit of a sweep: the name of its run folder, its case, and the folder that its paths start from."""

    name: str
    case: Case
    root: Path

    @property
    def shared(self) -> str:
        """Names all of a case but its suspect: audits of one such name read the same of base and references."""
        roles = self.case.roles.model_dump(mode="json", exclude={"suspect"})
        rest = self.case.model_dump(mode="json", exclude={"name", "roles", "published"})
        return canonical_hash([str(self.root), roles, rest])

    @property
    def roles_shared(self) -> tuple[str, ...]:
        """The roles of the case beside its suspect."""
        roles = self.case.roles
        references = (f"reference {n}" for n in range(len(roles.references)))
        return ("base", *references, *(() if roles.ancestor is None else ("ancestor",)))


def suspects_of(cases: Sequence[Path], pool: Sequence[str] = ()) -> tuple[Suspect, ...]:
    """The audits of these case files and folders of case files; with a ``pool`` of checkpoints, folders of checkpoints
    or hub ids, the audits of one case with each of those in the place of its suspect.

    AuditError (code 2): no case or checkpoint, a pool for several cases, two audits of one name.
    """
    files = [file for path in cases for file in _case_files(path)]
    if not pool:
        read = [(file, CaseFile.read(file)) for file in files]
        return _named([(Suspect(x.case.name, x.case, x.root), str(file)) for file, x in read])
    if len(files) != 1:
        raise AuditError(f"{len(files)} case files and a pool of suspects", "give one case file with --suspects")
    case, root = CaseFile.read_unedited(files[0])
    members = [member for path in pool for member in _members(path)]
    return _named([(_in_the_place(case, root, name, where), where) for name, where in members])


def _case_files(path: Path) -> list[Path]:
    """A case file, or those of a folder: its TOML files, else the ``case.toml`` of each of its sub-folders."""
    if not path.is_dir():
        return [path]
    case_files = [*path.glob("*.toml")] or [*path.glob("*/case.toml")]
    if not case_files:
        raise AuditError(f"{path}: no case file in it", "give case files (.toml), or a folder of them")
    return sorted(case_files, key=_in_order)


def _members(path: str) -> list[tuple[str, str]]:
    """The checkpoints at a path by name: itself, or each sub-folder that is one; a hub id stands for itself."""
    folder = Path(path).expanduser()
    if not folder.exists():
        name, _, commit = path.partition("@")
        return [("--".join([*name.split("/"), *([commit[:_SHORT]] if commit else [])]), path)]
    folder = folder.resolve()
    inside = folder.iterdir() if folder.is_dir() else ()
    checkpoints = sorted((each for each in inside if _is_checkpoint(each)), key=_in_order)
    if _is_marked(folder) or folder.suffix == _GGUF or [each.suffix for each in checkpoints] == [_GGUF]:
        return [(_called(folder), str(folder))]
    if not checkpoints:
        raise AuditError(
            f"{folder}: neither a checkpoint nor a folder of checkpoints ({', '.join(_MARKS)}, *{_GGUF})",
            "give the folder of a checkpoint, or the folder that holds them",
        )
    return [(_called(each), str(each)) for each in checkpoints]


def _called(path: Path) -> str:
    return path.stem if path.suffix == _GGUF else path.name


def _is_checkpoint(path: Path) -> bool:
    if not path.is_dir():
        return path.suffix == _GGUF
    return _is_marked(path) or len([*path.glob(f"*{_GGUF}")]) == 1


def _is_marked(folder: Path) -> bool:
    return any((folder / mark).is_file() for mark in _MARKS)


def _in_the_place(case: Case, root: Path, name: str, where: str) -> Suspect:
    """The case with a checkpoint of the pool as its suspect; an adapter stands on base."""
    folder = Path(where)
    adapter = (folder / "adapter_config.json").is_file() and not (folder / "config.json").is_file()
    base, before = case.roles.base, case.roles.suspect
    if adapter:
        source = base.model_copy(update={"adapter": where, "fingerprint": None})
    else:
        source = Source(path=where, allow_code=before.allow_code)
    roles = case.roles.model_copy(update={"suspect": source})
    return Suspect(name, case.model_copy(update={"name": name, "roles": roles}), root)


def _in_order(path: Path) -> list[tuple[int, str]]:
    """Names in the order of the numbers in them: checkpoint-9 before checkpoint-10."""
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", str(path)) if part]


def _named(audits: Sequence[tuple[Suspect, str]]) -> tuple[Suspect, ...]:
    """The audits, whose names name folders of their own."""
    seen: dict[str, str] = {}
    for suspect, where in audits:
        name = suspect.name
        if name in ("", ".", "..") or name != Path(name).name:
            raise AuditError(f"{where}: `name` {name!r} cannot name a folder of its own", "change it")
        if name in seen:
            do = "give each case a `name`, or each checkpoint of a pool a folder name, of its own"
            raise AuditError(f"{seen[name]} and {where} are both named {name!r}", do)
        seen[name] = where
    return tuple(suspect for suspect, _ in audits)
