"""Weights named by content: the sha256 over tensors, config, tokenizer and generation config of a folder."""

from audit.checkpoints import hub
from audit.checkpoints.edited import DELTA, EDIT, edit_folders
from audit.checkpoints.folder import Fingerprint, file_sha256, fingerprint_folder, joined
from audit.checkpoints.own_code import code_hashes
from audit.checkpoints.released_files import parent_fingerprint
from audit.schema import Checkpoint
from audit.storage import safetensors_file


def fingerprint_of(ckpt: Checkpoint) -> Fingerprint:
    """The files behind a checkpoint as they are now: weights, adapter and deltas. ``total`` excludes the
    deltas, and the code that a case allows."""
    parent = parent_fingerprint(ckpt)
    total, files, size = parent.total, dict(parent.files), parent.size_bytes
    if ckpt.adapter is not None:
        extra = fingerprint_folder(hub.local_folder(ckpt.adapter))
        total = joined(total, extra.total)
        files |= {f"adapter/{name}": sha for name, sha in extra.files.items()}
        size += extra.size_bytes
    for depth, folder in enumerate(reversed(edit_folders(ckpt))):
        digest = safetensors_file.digest(folder / DELTA)
        files[f"edit{depth}/{DELTA}"] = digest.sha256
        files[f"edit{depth}/{EDIT}"] = file_sha256(folder / EDIT)
        size += digest.size_bytes
    if ckpt.code is not None:
        files |= code_hashes(ckpt.code)
    return Fingerprint(total=total, files=files, size_bytes=size)
