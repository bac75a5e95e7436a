"""A release as it was handed in: the config that its model has and the fingerprint of its files, codes or not."""

from pathlib import Path
from typing import NamedTuple

from pydantic import JsonValue

from audit.checkpoints.folder import Fingerprint, fingerprint_folder, read_config
from audit.checkpoints.gguf_files import gguf_fingerprint, gguf_in, names_gguf
from audit.checkpoints.gguf_release import gguf_config
from audit.checkpoints.location import folder_of, gguf_file_of
from audit.checkpoints.quantisation import dequantiser_of
from audit.schema import Checkpoint


class Released(NamedTuple):
    """The config of a release's model, and what its files hash to."""

    config: dict[str, JsonValue]
    fingerprint: Fingerprint
    in_gguf: bool = False


def released(where: str, folder: Path) -> Released:
    """What lies at ``where`` (``folder``, or a .gguf file in it). AuditError (code 2) for codes in a format that cannot
    be turned into weights here."""
    alone = names_gguf(where)
    file = gguf_in(folder / Path(where).name if alone else folder)
    if file is None:
        dequantiser_of(folder)
        return Released(read_config(folder), fingerprint_folder(folder))
    return Released(
        read_config(folder) if not alone and (folder / "config.json").is_file() else gguf_config(file),
        gguf_fingerprint(file, beside=not alone),
        in_gguf=True,
    )


def released_config(ckpt: Checkpoint) -> dict[str, JsonValue]:
    """The config of the checkpoint's model as it was released; of a .gguf file, what the file says. AuditError: see
    :func:`read_config`."""
    folder, file = folder_of(ckpt), gguf_file_of(ckpt)
    stated = not names_gguf(ckpt.source) and (folder / "config.json").is_file()
    return read_config(folder) if file is None or stated else gguf_config(file)


def parent_fingerprint(ckpt: Checkpoint) -> Fingerprint:
    """The files that hold the weights below all edits and adapters, as they were released and as they are now."""
    file = gguf_file_of(ckpt)
    if file is None:
        return fingerprint_folder(folder_of(ckpt))
    return gguf_fingerprint(file, beside=not names_gguf(ckpt.source))
