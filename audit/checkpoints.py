"""Checkpoints named by content: folders of safetensors, hub ids with a commit, adapters, edited folders.

Never pickle, never remote code, never a branch name. What is wrong with a folder is said before any model is built:
code 2 for what was given wrongly, code 3 for bytes that are not what they should be. No torch import here unless a
delta is written or read.

An edited checkpoint is a folder with ``edit.json`` ({parent: Source, record: EditRecord}) and ``delta.safetensors``;
its parent may be edited too. ``Source.fingerprint`` of an edited folder is the :attr:`Checkpoint.key`.
"""

import json
import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from pydantic import ValidationError

from audit import hub, tensorfile
from audit.model_folder import (
    ADAPTER_WEIGHTS,
    TOKENIZER_FILES,
    Fingerprint,
    architecture_differences,
    check_folder,
    file_sha256,
    fingerprint_folder,
    is_adapter,
    joined,
    read_config,
    read_json,
    weight_files,
)
from audit.nouns import AuditError, Checkpoint, EditRecord, ExitCode, Source

if TYPE_CHECKING:
    from torch import Tensor

_EDIT, _DELTA = "edit.json", "delta.safetensors"

EditPlays = Literal["weights", "logit_bias", "low_rank"]


def fingerprint(folder: Path) -> Fingerprint:
    """What does this folder hold? Independent of how tensors are spread over files and of the order in a header.

    An edited folder's total is its :attr:`Checkpoint.key`, an adapter folder's that of the adapter alone. AuditError:
    2 for a missing folder, pickle or remote code; 3 for a truncated file or a shard that is missing.
    """
    folder = Path(folder)
    if (folder / _EDIT).is_file():
        ckpt = resolve(Source(path=str(folder)), Path())
        return fingerprint_of(ckpt).model_copy(update={"total": ckpt.key})
    return fingerprint_folder(folder)


def fingerprint_of(ckpt: Checkpoint) -> Fingerprint:
    """The files behind a checkpoint as they are now: weights, adapter and deltas. ``total`` excludes the deltas."""
    parent = fingerprint_folder(folder_of(ckpt))
    total, files, size = parent.total, dict(parent.files), parent.size_bytes
    if ckpt.adapter is not None:
        extra = fingerprint_folder(hub.local_folder(ckpt.adapter))
        total = joined(total, extra.total)
        files |= {f"adapter/{name}": sha for name, sha in extra.files.items()}
        size += extra.size_bytes
    for depth, folder in enumerate(reversed(edit_folders(ckpt))):
        digest = tensorfile.digest(folder / _DELTA)
        files[f"edit{depth}/{_DELTA}"] = digest.sha256
        files[f"edit{depth}/{_EDIT}"] = file_sha256(folder / _EDIT)
        size += digest.size_bytes
    return Fingerprint(total=total, files=files, size_bytes=size)


def resolve(source: Source, root: Path, online: bool = False) -> Checkpoint:
    """Name the checkpoint at ``source`` (paths relative to ``root``) by its content.

    Without ``online`` nothing is fetched: a hub id must already be in the local cache. AuditError 2: missing folder,
    pickle, remote code, a branch name for a commit; 3: truncated files, or another fingerprint than the source states.
    """
    where, folder = hub.locate(source, root, online)
    check_folder(folder)
    if (folder / _EDIT).is_file():
        ckpt = _resolve_edited(folder, source, online)
        found = ckpt.key
    else:
        ckpt = _resolve_plain(where, folder, source, root, online)
        found = ckpt.fingerprint
    if source.fingerprint is not None and source.fingerprint != found:
        raise _changed(where, source.fingerprint, found)
    return ckpt


def _resolve_plain(where: str, folder: Path, source: Source, root: Path, online: bool) -> Checkpoint:
    """The checkpoint of a folder of weights, with the adapter that the source names."""
    if is_adapter(folder):
        do = "give the base model's folder as `path` and this one as `adapter`"
        raise AuditError(f"{folder}: an adapter without its base model", do)
    total, adapter = fingerprint_folder(folder).total, None
    if source.adapter is not None:
        adapter, extra = hub.locate(Source(path=source.adapter), root, online)
        if extra.is_dir() and not is_adapter(extra):
            raise AuditError(f"{extra}: no adapter (adapter_config.json) in it", "give the folder that PEFT wrote")
        total = joined(total, fingerprint_folder(extra).total)
    family = read_config(folder).get("model_type")
    if not isinstance(family, str):
        raise AuditError(f"{folder / 'config.json'}: no model_type in it", "save the model with its whole config")
    return Checkpoint(source=where, family=family, fingerprint=total, adapter=adapter)


def _resolve_edited(folder: Path, source: Source, online: bool) -> Checkpoint:
    """The checkpoint of an edited folder."""
    _check_chain(folder)
    if source.adapter is not None:
        raise AuditError(f"{folder}: an edited checkpoint takes no adapter", "edit the model with its adapter instead")
    parent_source, record = read_edit(folder)
    parent = resolve(parent_source, folder, online)
    _verify_delta(folder, record)
    return parent.model_copy(update={"edits": (*parent.edits, record), "edits_from": str(folder)})


def _check_chain(folder: Path) -> None:
    """Does every edited folder lead on to its parent? AuditError (code 3) where a chain comes back to itself."""
    seen: set[Path] = set()
    while (folder / _EDIT).is_file():
        if folder in seen:
            raise AuditError(f"{folder}: its chain of edits comes back to it", "restore the edited folders", 3)
        seen.add(folder)
        folder = (folder / read_edit(folder)[0].path).resolve()


def verify(ckpt: Checkpoint) -> None:
    """Are the files still those that the checkpoint names? AuditError (code 3) if not."""
    now = fingerprint_of(ckpt)
    if now.total != ckpt.fingerprint:
        raise _changed(ckpt.source, ckpt.fingerprint, now.total)
    for folder, record in zip(edit_folders(ckpt), reversed(ckpt.edits), strict=True):
        _verify_delta(folder, record)


def folder_of(ckpt: Checkpoint) -> Path:
    """The folder with the parent's weights (below all edits). AuditError (code 2) if it is not on this machine."""
    return hub.local_folder(ckpt.source)


def adapter_folder_of(ckpt: Checkpoint) -> Path | None:
    """The folder of the checkpoint's adapter, if it has one."""
    return None if ckpt.adapter is None else hub.local_folder(ckpt.adapter)


def tokenizer_folder(ckpt: Checkpoint) -> Path | None:
    """The folder that holds the checkpoint's tokenizer, or None if it came without one."""
    folder = folder_of(ckpt)
    return folder if any((folder / name).is_file() for name in TOKENIZER_FILES) else None


def check_finite(ckpt: Checkpoint) -> None:
    """Is every weight a number? AuditError (code 3) names the first tensor with a NaN or an infinity."""
    files = list(weight_files(folder_of(ckpt)))
    if (adapter := adapter_folder_of(ckpt)) is not None:
        files.append(adapter / ADAPTER_WEIGHTS)
    files += [folder / _DELTA for folder in edit_folders(ckpt)]
    for path in files:
        name = tensorfile.first_not_finite(path)
        if name is not None:
            raise AuditError(
                f"{path}: tensor {name!r} holds NaN or infinite values",
                "fetch the checkpoint again; if it was saved like this, it diverged in training and cannot be audited",
                ExitCode.INTEGRITY,
            )


def check_compatible(base: Checkpoint, other: Checkpoint) -> None:
    """Can ``base``'s blocks read ``other``'s states? AuditError (code 2) lists where configs or tensor shapes differ.

    Settings that only one of the two states are left to the shapes. Tied and untied heads may meet.
    """
    differ = architecture_differences(folder_of(base), folder_of(other))
    if differ:
        shown = "; ".join(differ[:4]) + ("; ..." if len(differ) > 4 else "")
        raise AuditError(
            f"{other.source}: another architecture than {base.source}: {shown}",
            "audit a suspect and references of the same architecture as base",
        )


def write_edited(
    out: Path,
    parent: Checkpoint,
    name: str,
    settings: Mapping[str, str | int | float | bool],
    plays: EditPlays,
    tensors: "Mapping[str, Tensor]",
) -> Checkpoint:
    """Write an edited checkpoint folder at ``out``, whole or not at all, and name it.

    AuditError if the edit changes no byte and sets no hook (code 2), if ``out`` holds something already (code 2), or
    if the disk refuses (code 3).
    """
    from audit.store import write_atomic, write_tensors

    out = Path(out).resolve()
    if out.is_file() or (out.is_dir() and any(out.iterdir())):
        raise AuditError(f"{out}: is there already", "choose a new folder for the edited checkpoint")
    _check_bites(parent, name, plays, tensors)
    temp = out.with_name(f".{out.name}.{os.getpid()}.tmp")
    try:
        sha256 = write_tensors(temp / _DELTA, tensors, {"edit": name})
        record = EditRecord(name=name, plays=plays, settings=dict(settings), delta_sha256=sha256)
        document = {"parent": _source_of(parent, out).model_dump(mode="json"), "record": record.model_dump(mode="json")}
        write_atomic(temp / _EDIT, json.dumps(document, indent=1, sort_keys=True).encode())
        try:
            temp.rename(out)
        except OSError as error:
            raise AuditError(f"{out}: cannot be made ({error.strerror})", "choose another folder", 3) from None
    finally:
        shutil.rmtree(temp, ignore_errors=True)
    return parent.model_copy(update={"edits": (*parent.edits, record), "edits_from": str(out)})


def _check_bites(parent: Checkpoint, name: str, plays: EditPlays, tensors: "Mapping[str, Tensor]") -> None:
    """Does the edit change anything? AuditError if not. Whole tensors are held against the parent's bytes."""
    if plays == "weights":
        from audit.store import tensor_sha256

        before = {n: t for path in weight_files(folder_of(parent)) for n, t in tensorfile.digest(path).tensors.items()}
        for folder, record in zip(reversed(edit_folders(parent)), parent.edits, strict=True):
            before |= tensorfile.digest(folder / record.delta_file).tensors if record.plays == "weights" else {}
        changed = any(before.get(n) != tensor_sha256(tensor) for n, tensor in tensors.items())
    else:
        changed = any(bool((tensor != 0).any()) for tensor in tensors.values())
    if not changed:
        raise AuditError(f"edit {name!r} changes no byte and sets no hook", "change its settings or its data")


def delta_of(ckpt: Checkpoint, record: EditRecord) -> "dict[str, Tensor]":
    """The arrays of one of the checkpoint's edits, memory-mapped. AuditError (code 3) if they have changed."""
    from audit.store import read_tensors

    for folder, known in zip(edit_folders(ckpt), reversed(ckpt.edits), strict=True):
        if known == record:
            _verify_delta(folder, record)
            return read_tensors(folder / record.delta_file)
    raise AuditError(f"{ckpt.source}: has no edit {record.name!r}", "give the checkpoint that carries the edit")


def edit_folders(ckpt: Checkpoint) -> Sequence[Path]:
    """The folders of the checkpoint's edits, the last edit first."""
    folders: list[Path] = []
    folder = None if ckpt.edits_from is None else Path(ckpt.edits_from)
    while folder is not None and (folder / _EDIT).is_file() and len(folders) <= len(ckpt.edits):
        folders.append(folder)
        parent, _ = read_edit(folder)
        below = (folder / parent.path).resolve()
        folder = below if below.is_dir() else None
    if len(folders) != len(ckpt.edits):
        raise AuditError(f"{ckpt.edits_from}: the chain of edits is broken", "restore the edited folders", 3)
    return folders


def read_edit(folder: Path) -> tuple[Source, EditRecord]:
    """The parent and the record in an edited folder's edit.json."""
    document = read_json(folder / _EDIT)
    try:
        return Source.model_validate(document.get("parent")), EditRecord.model_validate(document.get("record"))
    except ValidationError as error:
        raise AuditError(f"{folder / _EDIT}: {error.errors()[0]['msg']}", "write it again", 3) from None


def _source_of(ckpt: Checkpoint, out: Path) -> Source:
    """Where the folder ``out`` finds its parent: local paths relative to it, so that both can be moved together."""
    if ckpt.edits_from is not None:
        return Source(path=os.path.relpath(ckpt.edits_from, out), fingerprint=ckpt.key)
    at, adapter = ckpt.source, ckpt.adapter
    if Path(at).is_absolute():
        at = os.path.relpath(at, out)
    if adapter is not None and Path(adapter).is_absolute():
        adapter = os.path.relpath(adapter, out)
    return Source(path=at, adapter=adapter, fingerprint=ckpt.fingerprint)


def _verify_delta(folder: Path, record: EditRecord) -> None:
    """Are the arrays those that the record names? AuditError (code 3) if not."""
    found = tensorfile.combined(tensorfile.digest(folder / record.delta_file).tensors)
    if found != record.delta_sha256:
        raise _changed(str(folder / record.delta_file), record.delta_sha256, found)


def _changed(what: str, expected: str, found: str) -> AuditError:
    return AuditError(
        f"{what}: fingerprint {found[:16]}..., expected {expected[:16]}...: these are not the weights that were named",
        "restore the files, or state the new fingerprint if the change was meant (`residua fingerprint <folder>`)",
        ExitCode.INTEGRITY,
    )
