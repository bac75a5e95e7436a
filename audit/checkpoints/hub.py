"""Where weights come from: a local folder, or a hub id with a commit, offline unless asked.

A branch name is refused: it names other weights tomorrow. Only safetensors, JSON and tokenizer files are fetched.
"""

import re
from pathlib import Path
from typing import NamedTuple

from audit.schema import AuditError, ExitCode, Source, as_audit_error

COMMIT = re.compile(r"[0-9a-f]{40}")
_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")
_FETCHED = (
    "*.safetensors", "*.json", "*.jinja", "tokenizer.model*", "spiece.model", "vocab.txt", "merges.txt", "*.tiktoken",
    "tiktoken.model", "*.bpe.model", "*.spm",
)  # fmt: skip


class Located(NamedTuple):
    """``where`` names it in a Checkpoint: an absolute path, of a .gguf file too, or owner/name@commit. ``folder`` is
    where it lies."""

    where: str
    folder: Path


def locate(source: Source, root: Path, online: bool = False) -> Located:
    """Find the folder that a source names. Paths are relative to ``root``; a hub id is owner/name and a commit.

    AuditError (code 2): neither folder nor hub id, or a hub id without its 40-digit commit; code 3 if fetching fails.
    """
    name, _, revision = source.path.partition("@")
    local = (root / Path(source.path).expanduser()).absolute().resolve()
    if local.exists():
        return Located(str(local), local.parent if local.is_file() and local.suffix == ".gguf" else local)
    if source.commit is None and not revision:
        raise AuditError(
            f"{source.path}: no such folder ({local})",
            "give an existing folder; a hub id needs its commit as well (commit = 40 hexadecimal digits)",
        )
    commit = source.commit or revision
    if not COMMIT.fullmatch(commit):
        raise AuditError(
            f"{source.path}: {commit!r} is not a commit; a branch or tag name can name other weights tomorrow",
            "give the 40 hexadecimal digits of the commit",
        )
    if not _HUB_ID.fullmatch(name):
        raise AuditError(f"{source.path}: neither a folder nor a hub id (owner/name)", "correct the path")
    return Located(f"{name}@{commit}", _snapshot(name, commit, online))


def local_folder(where: str) -> Path:
    """The folder of something already located (``Checkpoint.source``). AuditError (code 2) if it is gone."""
    return locate(Source(path=where), Path("/")).folder


def _snapshot(name: str, commit: str, online: bool) -> Path:
    """The local copy of a hub commit; fetched only if ``online``."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    fault, do = f"{name}@{commit}: cannot be fetched", "check the name, the commit, your access to it and the network"
    with as_audit_error(fault, do, ExitCode.INTEGRITY):
        try:
            folder = snapshot_download(
                name, revision=commit, allow_patterns=list(_FETCHED), local_files_only=not online
            )
        except LocalEntryNotFoundError as error:
            if online:
                raise AuditError(f"{fault}: {error}", "try again later", ExitCode.INTEGRITY) from None
            do = "run again with --online to fetch it, or give a local folder"
            raise AuditError(f"{name}@{commit}: not in the local cache, and nothing is fetched unasked", do) from None
    return Path(folder)
