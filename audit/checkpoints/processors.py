"""Processors of vision-language checkpoints: what makes pixels of images and image tokens of words, by content.

Without torchvision the library runs its classes for Pillow: which class ran is said by who uses them.
"""

from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from audit.checkpoints.folder import file_sha256, tokenizer_names
from audit.checkpoints.location import folder_of
from audit.checkpoints.staging import opening, staged_links
from audit.schema import Checkpoint

if TYPE_CHECKING:
    from audit.checkpoints.image_settings import ImageProcessorFiles

_FILES: Final = ("processor_config.json", "preprocessor_config.json", "chat_template.json", "chat_template.jinja")


class ProcessorFiles(NamedTuple):
    """A processor named by content: its folder, and the sha256 of each of its files, the tokenizer's among them."""

    folder: Path
    hashes: tuple[tuple[str, str], ...]


def processor_files(ckpt: Checkpoint) -> ProcessorFiles | None:
    """The files of a checkpoint's processor; None where it came without one."""
    folder = folder_of(ckpt)
    if not any((folder / name).is_file() for name in _FILES[:2]):
        return None
    names = dict.fromkeys((*(name for name in _FILES if (folder / name).is_file()), *tokenizer_names(folder)))
    return ProcessorFiles(folder, tuple((name, file_sha256(folder / name)) for name in names))


@lru_cache(maxsize=8)
def load_processor(files: ProcessorFiles) -> Any:
    """The processor in a folder; never fetched, never remote code. AuditError (code 2) if it cannot be loaded."""
    from transformers import AutoProcessor

    return from_files(AutoProcessor, "processor", files)


def from_files(library_class: Any, called: str, files: "ProcessorFiles | ImageProcessorFiles") -> Any:
    """What a class of the library makes of the named files of a folder and its config alone, without its messages.

    AuditError (code 2) if it cannot be loaded.
    """
    from transformers.utils import logging as hf_logging

    folder, names = files.folder, tuple(name for name, _ in files.hashes)
    fault, do = f"{folder}: its {called} cannot be loaded", "save it again beside the weights"
    level = hf_logging.get_verbosity()
    hf_logging.set_verbosity_error()
    try:
        with staged_links(folder, ("config.json", *names)) as stage, opening(folder, stage, fault, do):
            return library_class.from_pretrained(stage, local_files_only=True, trust_remote_code=False)
    finally:
        hf_logging.set_verbosity(level)
