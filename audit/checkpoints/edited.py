"""An edited checkpoint on disk: its parent's source and fingerprint, the edit's record, and the stored delta."""

import json
import os
import shutil
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import ValidationError

from audit.checkpoints.folder import (
    read_json,
    weight_files,
)
from audit.schema import AuditError, Checkpoint, EditRecord, ExitCode, Source
from audit.storage import resolved, safetensors_file

if TYPE_CHECKING:
    from torch import Tensor
from audit.checkpoints.float_copies import weights_folder

EDIT, DELTA = "edit.json", "delta.safetensors"


def check_chain(folder: Path) -> None:
    """Does every edited folder lead on to its parent? AuditError (code 3) where a chain comes back to itself."""
    seen: set[Path] = set()
    while (folder / EDIT).is_file():
        if folder in seen:
            raise AuditError(f"{folder}: its chain of edits comes back to it", "restore the edited folders", 3)
        seen.add(folder)
        folder = resolved(folder / read_edit(folder)[0].path)


def write_edited(
    out: Path,
    parent: Checkpoint,
    name: str,
    settings: Mapping[str, str | int | float | bool],
    plays: str,
    tensors: "Mapping[str, Tensor]",
) -> Checkpoint:
    """Write an edited checkpoint folder at ``out``, whole or not at all, and name it.

    AuditError if the edit changes no byte and sets no hook (code 2), if ``out`` holds something already (code 2), or
    if the disk refuses (code 3).
    """
    from audit.storage import write_atomic, write_tensors

    out = refuse_taken(out)
    _check_bites(parent, name, plays, tensors)
    with whole_folder(out) as temp:
        sha256 = write_tensors(temp / DELTA, tensors, {"edit": name})
        record = EditRecord(name=name, plays=plays, settings=dict(settings), delta_sha256=sha256)
        document = {"parent": _source_of(parent, out).model_dump(mode="json"), "record": record.model_dump(mode="json")}
        write_atomic(temp / EDIT, json.dumps(document, indent=1, sort_keys=True).encode())
    return parent.model_copy(update={"edits": (*parent.edits, record), "edits_from": str(out)})


def refuse_taken(out: Path) -> Path:
    """The folder, resolved. AuditError (code 2) if it holds something already."""
    out = Path(out).resolve()
    if out.is_file() or (out.is_dir() and any(out.iterdir())):
        raise AuditError(f"{out}: is there already", "choose a new folder for the edited checkpoint")
    return out


@contextmanager
def whole_folder(out: Path) -> Generator[Path]:
    """A folder beside ``out`` to write into, which becomes ``out`` at the end of the block, or nothing is left of it.

    AuditError (code 3) if the disk refuses.
    """
    temp = out.with_name(f".{out.name}.{os.getpid()}.tmp")
    try:
        yield temp
        try:
            temp.rename(out)
        except OSError as error:
            raise AuditError(f"{out}: cannot be made ({error.strerror})", "choose another folder", 3) from None
    finally:
        shutil.rmtree(temp, ignore_errors=True)


def _check_bites(parent: Checkpoint, name: str, plays: str, tensors: "Mapping[str, Tensor]") -> None:
    """Does the edit change anything? AuditError if not.

    Whole tensors are held against the parent's bytes; the arrays of a hook are a delta, of which all zero is none.
    """
    if plays == "weights":
        from audit.storage import tensor_sha256

        before = {
            n: t
            for path in weight_files(weights_folder(parent))
            for n, t in safetensors_file.digest(path).tensors.items()
        }
        for folder, record in zip(reversed(edit_folders(parent)), parent.edits, strict=True):
            before |= safetensors_file.digest(folder / record.delta_file).tensors if not record.is_hook else {}
        changed = any(before.get(n) != tensor_sha256(tensor) for n, tensor in tensors.items())
    else:
        changed = any(bool((tensor != 0).any()) for tensor in tensors.values())
    if not changed:
        raise AuditError(f"edit {name!r} changes no byte and sets no hook", "change its settings or its data")


def delta_of(ckpt: Checkpoint, record: EditRecord) -> "dict[str, Tensor]":
    """The arrays of one of the checkpoint's edits, memory-mapped. AuditError (code 3) if they have changed."""
    from audit.storage import read_tensors

    for folder, known in zip(edit_folders(ckpt), reversed(ckpt.edits), strict=True):
        if known == record:
            verify_delta(folder, record)
            return read_tensors(folder / record.delta_file)
    raise AuditError(f"{ckpt.source}: has no edit {record.name!r}", "give the checkpoint that carries the edit")


def edit_folders(ckpt: Checkpoint) -> Sequence[Path]:
    """The folders of the checkpoint's edits, the last edit first."""
    folders: list[Path] = []
    folder = None if ckpt.edits_from is None else Path(ckpt.edits_from)
    while folder is not None and (folder / EDIT).is_file() and len(folders) <= len(ckpt.edits):
        folders.append(folder)
        parent, _ = read_edit(folder)
        below = resolved(folder / parent.path)
        folder = below if below.is_dir() else None
    if len(folders) != len(ckpt.edits):
        raise AuditError(f"{ckpt.edits_from}: the chain of edits is broken", "restore the edited folders", 3)
    return folders


def without_hooks(ckpt: Checkpoint) -> Checkpoint:
    """The checkpoint without the edits that act on states and were put on last: up to its last edit of weights.

    AuditError (code 3) where the chain of its edits is broken.
    """
    folders, edits = list(edit_folders(ckpt)), list(ckpt.edits)
    while edits and edits[-1].is_hook:
        edits.pop()
        folders.pop(0)
    return ckpt.model_copy(update={"edits": tuple(edits), "edits_from": str(folders[0]) if folders else None})


def read_edit(folder: Path) -> tuple[Source, EditRecord]:
    """The parent and the record in an edited folder's edit.json."""
    document = read_json(folder / EDIT)
    try:
        return Source.model_validate(document.get("parent")), EditRecord.model_validate(document.get("record"))
    except ValidationError as error:
        raise AuditError(f"{folder / EDIT}: {error.errors()[0]['msg']}", "write it again", 3) from None


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


def verify_delta(folder: Path, record: EditRecord) -> None:
    """Are the arrays those that the record names? AuditError (code 3) if not."""
    found = safetensors_file.combined(safetensors_file.digest(folder / record.delta_file).tensors)
    if found != record.delta_sha256:
        raise changed(str(folder / record.delta_file), record.delta_sha256, found)


def changed(place: str, expected: str, actual: str) -> AuditError:
    """The error for weights that are not those whose fingerprint was given (code 3)."""
    return AuditError(
        f"{place}: fingerprint {actual[:16]}..., expected {expected[:16]}...: these are not the weights that were "
        "named",
        "restore the files, or state the new fingerprint if the change was meant (`residua fingerprint <folder>`)",
        ExitCode.INTEGRITY,
    )
