"""Where the files of a checkpoint lie on this machine."""

from pathlib import Path

from audit.checkpoints import hub
from audit.checkpoints.gguf_files import gguf_in, names_gguf
from audit.schema import Checkpoint


def folder_of(ckpt: Checkpoint) -> Path:
    """The folder with the parent's weights (below all edits). AuditError (code 2) if it is not on this machine."""
    return hub.local_folder(ckpt.source)


def gguf_file_of(ckpt: Checkpoint) -> Path | None:
    """The .gguf file that holds the parent's weights; None where they lie in safetensors."""
    folder = folder_of(ckpt)
    return gguf_in(folder / Path(ckpt.source).name if names_gguf(ckpt.source) else folder)


def adapter_folder_of(ckpt: Checkpoint) -> Path | None:
    """The folder of the checkpoint's adapter, if it has one."""
    return None if ckpt.adapter is None else hub.local_folder(ckpt.adapter)
