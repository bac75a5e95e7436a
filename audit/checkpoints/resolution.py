"""Checkpoints named by content: folders of safetensors, hub ids with a commit, adapters, edited folders.

Never pickle, never remote code, never a branch name. Code that lies beside a model of a built-in architecture is left
alone, and said to be (:mod:`audit.checkpoints.code_beside`). What is wrong with a folder is said before any model is
built: code 2 for what was given wrongly, code 3 for bytes that are not what they should be. No torch import here unless
a delta is written or read, or code lies beside a model.

An edited checkpoint is a folder with ``edit.json`` ({parent: Source, record: EditRecord}) and ``delta.safetensors``;
its parent may be edited too. ``Source.fingerprint`` of an edited folder is the :attr:`Checkpoint.key`.
"""

import logging
from pathlib import Path

from audit.checkpoints import hub
from audit.checkpoints.adapters import adapter_settings
from audit.checkpoints.architecture import architecture_differences
from audit.checkpoints.code_beside import code_not_run
from audit.checkpoints.edited import DELTA, EDIT, changed, check_chain, edit_folders, read_edit, verify_delta
from audit.checkpoints.fingerprints import fingerprint_of
from audit.checkpoints.float_copies import verify_copy, weights_folder
from audit.checkpoints.folder import (
    ADAPTER_WEIGHTS,
    Fingerprint,
    check_folder,
    fingerprint_folder,
    is_adapter,
    joined,
    unopened_files,
    weight_files,
)
from audit.checkpoints.gguf_files import gguf_fingerprint, gguf_in
from audit.checkpoints.location import adapter_folder_of
from audit.checkpoints.modality import modality_of
from audit.checkpoints.own_code import check_unchanged, permitted_code
from audit.checkpoints.released_files import released
from audit.schema import AuditError, Checkpoint, ExitCode, Source
from audit.storage import safetensors_file

log = logging.getLogger(__name__)
_MASKED = r"(^|\.)(attn|attention)\.masked_bias$"


def resolve(source: Source, root: Path, online: bool = False) -> Checkpoint:
    """Name the checkpoint at ``source`` (paths relative to ``root``) by its content.

    Without ``online`` nothing is fetched: a hub id must already be in the local cache. AuditError 2: missing folder,
    pickle, an architecture that only its own code would open, a branch name for a commit; 3: truncated files, or
    another fingerprint than the source states.
    """
    where, folder = hub.locate(source, root, online)
    check_folder(folder)
    hub.check_level(folder)
    if (folder / EDIT).is_file():
        ckpt = _resolve_edited(folder, source, online)
        found = ckpt.key
    else:
        ckpt = _resolve_plain(where, folder, source, root, online)
        found = ckpt.fingerprint
    if source.fingerprint is not None and source.fingerprint != found:
        raise changed(where, source.fingerprint, found)
    return ckpt


def _resolve_plain(where: str, folder: Path, source: Source, root: Path, online: bool) -> Checkpoint:
    """The checkpoint of a folder of weights, with the adapter that the source names."""
    if is_adapter(folder):
        do = "give the base model's folder as `path` and this one as `adapter`"
        raise AuditError(f"{folder}: an adapter without its base model", do)
    for remark in code_not_run(folder):
        log.warning("%s: %s", folder, remark)
    if beside := unopened_files(folder):
        log.warning("%s: opened as its weights say; not opened, though beside them: %s", folder, ", ".join(beside))
    release = released(where, folder)
    total, adapter = release.fingerprint.total, None
    if source.adapter is not None:
        adapter, extra = hub.locate(Source(path=source.adapter), root, online)
        check_folder(extra)
        adapter_settings(extra)
        total = joined(total, fingerprint_folder(extra).total)
    config = release.config
    family = config.get("model_type")
    if not isinstance(family, str):
        raise AuditError(f"{folder / 'config.json'}: no model_type in it", "save the model with its whole config")
    return Checkpoint(
        source=where, family=family, fingerprint=total, adapter=adapter, modality=modality_of(config),
        code=None if release.in_gguf else permitted_code(folder, source),
    )  # fmt: skip


def _resolve_edited(folder: Path, source: Source, online: bool) -> Checkpoint:
    """The checkpoint of an edited folder."""
    check_chain(folder)
    if source.adapter is not None:
        raise AuditError(f"{folder}: an edited checkpoint takes no adapter", "edit the model with its adapter instead")
    parent_source, record = read_edit(folder)
    # what may run is said by the case: a folder that was received does not allow itself anything
    parent = resolve(parent_source.model_copy(update={"allow_code": source.allow_code}), folder, online)
    verify_delta(folder, record)
    return parent.model_copy(update={"edits": (*parent.edits, record), "edits_from": str(folder)})


def fingerprint(folder: Path) -> Fingerprint:
    """What does this folder hold? Independent of how tensors are spread over files and of the order in a header.

    An edited folder's total is its :attr:`Checkpoint.key`, an adapter folder's that of the adapter alone. AuditError:
    2 for a missing folder or pickle; 3 for a truncated file or a shard that is missing.
    """
    folder = Path(folder)
    if (folder / EDIT).is_file():
        ckpt = resolve(Source(path=str(folder)), Path())
        return fingerprint_of(ckpt).model_copy(update={"total": ckpt.key})
    file = gguf_in(folder)
    return fingerprint_folder(folder) if file is None else gguf_fingerprint(file, beside=file != folder)


def verify(ckpt: Checkpoint) -> None:
    """Are the files still those that the checkpoint names? AuditError (code 3) if not."""
    now = fingerprint_of(ckpt)
    if now.total != ckpt.fingerprint:
        raise changed(ckpt.source, ckpt.fingerprint, now.total)
    verify_copy(ckpt)
    if ckpt.code is not None:
        check_unchanged(ckpt.code)
    for folder, record in zip(edit_folders(ckpt), reversed(ckpt.edits), strict=True):
        verify_delta(folder, record)


def check_finite(ckpt: Checkpoint) -> None:
    """Is every weight a number? AuditError (code 3) names the first tensor with a NaN or an infinity.

    What older files put in the place of a masked score (-1e9, in half precision an infinity) is no weight.
    """
    files = list(weight_files(weights_folder(ckpt)))
    if (adapter := adapter_folder_of(ckpt)) is not None:
        files.append(adapter / ADAPTER_WEIGHTS)
    files += [folder / DELTA for folder in edit_folders(ckpt)]
    for path in files:
        name = safetensors_file.first_not_finite(path, _MASKED)
        if name is not None:
            raise AuditError(
                f"{path}: tensor {name!r} holds NaN or infinite values",
                "fetch the checkpoint again; if it was saved like this, it diverged in training and cannot be audited",
                ExitCode.INTEGRITY,
            )


def check_compatible(base: Checkpoint, other: Checkpoint) -> None:
    """Can ``base``'s blocks read ``other``'s states? AuditError (code 2) lists where configs or tensor shapes differ.

    Configs are held against one another by what they mean, with the defaults of their architecture filled in. Tied and
    untied heads may meet, and so may vocabularies of other sizes (:func:`shared_vocabulary`).
    """
    differ = architecture_differences(weights_folder(base), weights_folder(other))
    if not differ.listed or differ.vocabulary_only:
        return
    shown = "; ".join(differ.listed[:4]) + ("; ..." if len(differ.listed) > 4 else "")
    raise AuditError(
        f"{other.source}: another architecture than {base.source}: {shown}",
        "audit a suspect and references of the same architecture as base",
    )
