"""Hub ids without a commit: which commit is here, or, online, which is the newest; and the small files of it."""

import re
from pathlib import Path
from typing import Final, Literal

from audit.case.releases.release import Place
from audit.schema import ExitCode, as_audit_error

HUB_ID: Final = re.compile(r"[\w-][\w.-]*(?:/[\w-][\w.-]*)+")
_COMMIT = re.compile(r"[0-9a-f]{40}")
_SMALL = ("*.json", "*.md", "*.jinja", "tokenizer.model*", "merges.txt", "vocab.txt")
Kind = Literal["model", "dataset"]


def hub_place(name: str, online: bool, revision: str = "") -> Place | None:
    """A model of the hub (owner/name, or owner/name/sub-folder) at the commit that is meant: the given one, else the
    newest (``online``), else the one that the local cache knows as its main branch. None where there is none, or none
    that may be seen.

    AuditError (code 3) if it cannot be fetched.
    """
    if not HUB_ID.fullmatch(name):
        return None
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id

    owner, model, *below = name.split("/")
    name, inside = f"{owner}/{model}", "/".join(below)
    try:
        validate_repo_id(name)
    except HFValidationError:  # what a card or a config names may be no repository's name
        return None
    if online:
        commit = _newest(name, revision)
        folder = None if commit is None else _fetched(name, commit)
        place = None if commit is None or folder is None else Place(folder, name, commit)
    else:
        place = _cached(name, "model", revision)
    if place is None:
        return None
    folder = place.folder / inside
    if inside.endswith(".gguf"):
        return place._replace(folder=folder.parent, subfolder=inside, file=folder.name)
    return place._replace(folder=folder, subfolder=inside)


def cached_dataset(name: str) -> Path | None:
    """The folder of a data set of the hub in the local cache."""
    place = _cached(name, "dataset", "")
    return None if place is None else place.folder


def fetched_dataset(name: str, patterns: tuple[str, ...]) -> Path:
    """The files of a data set of the hub that match, fetched into the cache. AuditError (code 3) if that fails."""
    from huggingface_hub import snapshot_download

    with as_audit_error(f"{name}: cannot be fetched", "check the network and your access to it", ExitCode.INTEGRITY):
        return Path(snapshot_download(name, repo_type="dataset", allow_patterns=list(patterns)))


def _newest(name: str, revision: str) -> str | None:
    """The commit of a repository's main branch, or that of the given revision; None where there is no such thing."""
    from huggingface_hub import HfApi
    from huggingface_hub.errors import RepositoryNotFoundError, RevisionNotFoundError

    with as_audit_error(
        f"{name}: the hub cannot be asked", "check the network, or try without --online", ExitCode.INTEGRITY
    ):
        try:
            return HfApi().model_info(name, revision=revision or None).sha
        except (RepositoryNotFoundError, RevisionNotFoundError):
            return None


def _fetched(name: str, commit: str) -> Path | None:
    """The snapshot with its small files: settings, card, tokenizer, evaluations; None where its owner lets only some
    people have them.

    Weights are fetched by ``residua run --online``.
    """
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import GatedRepoError

    fault, do = f"{name}@{commit}: cannot be fetched", "check your access to it and the network"
    with as_audit_error(fault, do, ExitCode.INTEGRITY):
        try:
            return Path(snapshot_download(name, revision=commit, allow_patterns=list(_SMALL)))
        except GatedRepoError:
            return None


def _cached(name: str, kind: Kind, revision: str) -> Place | None:
    """What the cache holds, at the given commit or at the one that it knows by a branch's name."""
    from huggingface_hub import constants
    from huggingface_hub.file_download import repo_folder_name

    home = Path(constants.HF_HUB_CACHE) / repo_folder_name(repo_id=name, repo_type=kind)
    branch = home / "refs" / (revision or "main")
    commit = revision if _COMMIT.fullmatch(revision) else branch.read_text().strip() if branch.is_file() else ""
    snapshot = home / "snapshots" / commit
    return Place(snapshot, name, commit) if commit and snapshot.is_dir() else None
