"""Where weights come from: a local folder, or a hub id with a commit, offline unless asked; a sub-folder of either.

A branch name is refused: it names other weights tomorrow. Only the files that are hashed and opened are fetched
(:mod:`audit.checkpoints.hub_files`).
"""

import os
import re
from collections.abc import Sequence
from glob import escape
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from audit.checkpoints.hub_files import OWN_MARKS, folders_with_models, settings_among, weights_among
from audit.schema import AuditError, ExitCode, Source, as_audit_error
from audit.storage import resolved

COMMIT = re.compile(r"[0-9a-f]{40}")
_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")
_BELOW_ID = re.compile(r"([\w.-]+/[\w.-]+)/(.+)")


class Located(NamedTuple):
    """``where`` names it in a Checkpoint: an absolute path, or owner/name@commit with /sub-folder behind it where one
    was named. ``folder`` is where it lies; of a .gguf file that was named, the folder that holds it."""

    where: str
    folder: Path


def locate(source: Source, root: Path, online: bool = False, weights: bool = True) -> Located:
    """Find the folder that a source names. Paths are relative to ``root``; a hub id is owner/name and a commit, of
    which the files of ``weights`` need not be here, and are not fetched, where they are not asked for.

    AuditError (code 2): neither folder nor hub id, a hub id without its 40-digit commit, or no such sub-folder; code 3
    if fetching fails.
    """
    below = _inside(source)
    name, _, revision = source.path.partition("@")
    local = resolved((root / os.path.expanduser(source.path)).absolute())
    if local.exists():
        return _local(local, below)
    commit, _, place = (source.commit or revision).partition("/")
    if not commit:
        raise AuditError(
            f"{source.path}: no such folder ({local})",
            "give an existing folder; a hub id needs its commit as well (commit = 40 hexadecimal digits)"
            + _now_at(name, "main", online),
        )
    if not COMMIT.fullmatch(commit):
        raise AuditError(
            f"{source.path}: {commit!r} is not a commit; a branch or tag name can name other weights tomorrow",
            "give the 40 hexadecimal digits of the commit" + _now_at(name, commit, online),
        )
    if not _HUB_ID.fullmatch(name):
        parts = _BELOW_ID.fullmatch(name)
        do = f'say path = "{parts[1]}" and subfolder = "{parts[2]}"' if parts else "correct the path"
        raise AuditError(f"{source.path}: neither a folder nor a hub id (owner/name)", do)
    place = "/".join(part for part in (place, below) if part)
    folder = _snapshot(f"{name}@{commit}", place, online, weights)
    return Located(f"{name}@{commit}/{place}" if place else f"{name}@{commit}", _holding(folder / place))


def local_folder(where: str) -> Path:
    """The folder of something already located (``Checkpoint.source``). AuditError (code 2) if it is gone."""
    return locate(Source(path=where), Path("/"), weights=False).folder


def _inside(source: Source) -> str:
    """The sub-folder that a source names, without needless parts. AuditError (code 2) where it leads elsewhere."""
    if source.subfolder is None:
        return ""
    path = PurePosixPath(source.subfolder)
    if path.is_absolute() or ".." in path.parts or not path.parts:
        raise AuditError(
            f"{source.path}: subfolder = {source.subfolder!r} is no folder below it", "name a folder within, as a/b"
        )
    return path.as_posix()


def _local(folder: Path, below: str) -> Located:
    """A folder on this machine, or one below it. AuditError (code 2) for a sub-folder that is not there."""
    at = resolved(folder / below)
    if not at.exists():
        known = _models_below(folder)
        do = f"name one of: {', '.join(known[:8])}" if known else "correct the sub-folder"
        raise AuditError(f"{folder}: has no sub-folder {below!r}", do)
    return Located(str(at), _holding(at))


def _holding(path: Path) -> Path:
    """The folder of a .gguf file, or the path itself."""
    return path.parent if path.suffix == ".gguf" and path.is_file() else path


def check_level(folder: Path) -> None:
    """AuditError (code 2) for a folder without a model of its own whose sub-folders hold some (a trainer's steps)."""
    if any((folder / name).is_file() for name in OWN_MARKS) or any(folder.glob("*.gguf")) or not folder.is_dir():
        return
    if models := _models_below(folder):
        problem = f"{folder}: no model in it, but in sub-folders ({', '.join(models[:6])})"
        raise AuditError(problem, f'say which: subfolder = "{models[-1]}"')


def _models_below(folder: Path) -> list[str]:
    """The folders one or two levels below that hold a model or an adapter."""
    marks = [path for pattern in ("*/*.json", "*/*/*.json") for path in folder.glob(pattern)]
    return folders_with_models([path.relative_to(folder).as_posix() for path in marks])


def _now_at(name: str, branch: str, online: bool) -> str:
    """Which commit a branch is at now, as the end of an advice; nothing where that cannot be found out."""
    if not online or not _HUB_ID.fullmatch(name):
        return ""
    from huggingface_hub import HfApi

    try:
        with as_audit_error(f"{name}: the hub cannot be asked", "check the network"):
            commit = HfApi().model_info(name, revision=branch).sha
    except AuditError:  # the advice is worth less without it, the error stays the same
        return ""
    return f"; {branch} is at commit {commit} now" if commit else ""


def _snapshot(where: str, place: str, online: bool, weights: bool) -> Path:
    """The local copy of what is needed of a hub commit (owner/name@commit); fetched only if ``online``."""
    from huggingface_hub import HfApi, snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    name, _, commit = where.partition("@")
    fault, do = f"{where}: cannot be fetched", "check the name, the commit, your access to it and the network"

    def copied(names: Sequence[str]) -> Path:
        chosen = [escape(n) for n in names]
        return Path(snapshot_download(name, revision=commit, allow_patterns=chosen, local_files_only=not online))

    with as_audit_error(fault, do, ExitCode.INTEGRITY):
        try:
            if not online:
                return _cached(copied(()), where, place) if weights else copied(())
            files = HfApi().list_repo_files(name, revision=commit)
            settings = settings_among(files, place)
            folder = copied(settings)
            return copied([*settings, *weights_among(files, place, folder)]) if weights else folder
        except LocalEntryNotFoundError as error:
            if online:
                raise AuditError(f"{fault}: {error}", "try again later", ExitCode.INTEGRITY) from None
            raise _not_cached(where) from None


def _cached(folder: Path, where: str, place: str) -> Path:
    """A commit's folder in the local cache. AuditError (code 2) where files of the weights are not there yet."""
    files = [path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()]
    weights = weights_among(files, place, folder)
    if not weights or any(name not in files for name in weights):
        raise _not_cached(f"{where}/{place}" if place else where)
    return folder


def _not_cached(where: str) -> AuditError:
    do = "run again with --online to fetch it, or give a local folder"
    return AuditError(f"{where}: not in the local cache, and nothing is fetched unasked", do)
