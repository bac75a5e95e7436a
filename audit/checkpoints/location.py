"""Where the files of a checkpoint lie on this machine."""

from pathlib import Path

from audit.checkpoints import hub
from audit.checkpoints.folder import SETTINGS_FILES, tokenizer_names
from audit.schema import Checkpoint


def folder_of(ckpt: Checkpoint) -> Path:
    """The folder with the parent's weights (below all edits). AuditError (code 2) if it is not on this machine."""
    return hub.local_folder(ckpt.source)


def adapter_folder_of(ckpt: Checkpoint) -> Path | None:
    """The folder of the checkpoint's adapter, if it has one."""
    return None if ckpt.adapter is None else hub.local_folder(ckpt.adapter)


def tokenizer_folder(ckpt: Checkpoint) -> Path | None:
    """The folder that holds the checkpoint's tokenizer, or None if it came without one: settings and chat templates
    alone are none."""
    folder = folder_of(ckpt)
    brought = [name for name in tokenizer_names(folder) if name not in SETTINGS_FILES and not name.endswith(".jinja")]
    return folder if brought else None
