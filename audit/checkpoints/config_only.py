"""A checkpoint of which only the config is looked at: for what can be told before any weight is there."""

from pathlib import Path

from audit.checkpoints import hub
from audit.checkpoints.folder import check_folder, file_sha256, joined, read_config
from audit.checkpoints.location import folder_of
from audit.checkpoints.modality import modality_of
from audit.checkpoints.own_code import permitted_code
from audit.schema import AuditError, Checkpoint, Source


def resolve_config(source: Source, root: Path, online: bool = False) -> Checkpoint:
    """Name what ``source`` describes by its config.json alone; no weights need be there, and none are read.

    What stands for the fingerprint is that of the config: nothing may be audited or kept under it. AuditError (code 2):
    no folder, no config.json, no model_type in it.
    """
    where, folder = hub.locate(source, root, online, weights=False)
    check_folder(folder)
    config = read_config(folder)
    family = config.get("model_type")
    if not isinstance(family, str):
        raise AuditError(f"{folder / 'config.json'}: no model_type in it", "save the model with its whole config")
    return Checkpoint(
        source=where, family=family, fingerprint=_name(folder),
        modality=modality_of(config), code=permitted_code(folder, source),
    )  # fmt: skip


def of_config_alone(ckpt: Checkpoint) -> bool:
    """Whether a checkpoint is known by its config alone."""
    folder = folder_of(ckpt)
    stated = ckpt.adapter is None and not ckpt.edits and (folder / "config.json").is_file()
    return stated and ckpt.fingerprint == _name(folder)


def _name(folder: Path) -> str:
    return joined("config alone", file_sha256(folder / "config.json"))
