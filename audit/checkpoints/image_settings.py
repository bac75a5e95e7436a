"""What a classifier of images takes and tells, as its files say: channels, size, class names, and its image processor.

The processor's settings (preprocessor_config.json) are part of the checkpoint's fingerprint. Without torchvision the
library runs its classes for Pillow: which class ran is said.
"""

from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, Final, NamedTuple, cast

from audit.checkpoints.folder import file_sha256, read_config
from audit.checkpoints.location import folder_of
from audit.checkpoints.processors import from_files
from audit.schema import AuditError, Checkpoint

_PROCESSOR: Final = ("preprocessor_config.json", "processor_config.json")
_STEM: Final = 4
"""By how much the first layers of a residual network shrink an image: a convolution and a pooling of stride 2."""


class ImageSettings(NamedTuple):
    """Channels and, where the config fixes it, height and width; the names of the classes in their order."""

    channels: int
    size: tuple[int, int] | None
    classes: tuple[str, ...]


def image_settings_of(ckpt: Checkpoint) -> ImageSettings:
    """The settings of a classifier by its config.json. A class without a name is called by its number.

    AuditError (code 2) if the config does not say which classes there are.
    """
    config = read_config(folder_of(ckpt))
    size, id2label, count = config.get("image_size"), config.get("id2label"), config.get("num_labels")
    if isinstance(id2label, Mapping):
        labels = {int(n): str(name) for n, name in cast("Mapping[str, object]", id2label).items()}
    else:
        # the library writes no names where there are two classes without any, and no number where there are names
        labels = {n: f"LABEL_{n}" for n in range(count if isinstance(count, int) else 2)}
    if not labels or sorted(labels) != list(range(len(labels))):
        raise AuditError(f"{ckpt.source}: config.json does not number its classes 0, 1, ...", "correct id2label")
    channels = config.get("num_channels")
    return ImageSettings(
        channels if isinstance(channels, int) else 3,
        _pair(size),
        tuple(str(n) if labels[n] == f"LABEL_{n}" else labels[n] for n in range(len(labels))),
    )


def states_per_image(ckpt: Checkpoint, height: int, width: int) -> int:
    """How many states a classifier's tower has of an image of this size, by its config.json: its patches and what
    stands before them, or the places of a residual network's largest map. 1 where the config does not say."""
    config = read_config(folder_of(ckpt))
    patch = _pair(config.get("patch_size"))
    if patch is not None:
        before = 2 if "deit" in str(config.get("model_type")) else 1
        return max(height // patch[0], 1) * max(width // patch[1], 1) + before
    if "depths" in config:
        shrinks = 8 if config.get("downsample_in_first_stage") else _STEM
        return max(-(-height // shrinks), 1) * max(-(-width // shrinks), 1)
    return 1


def _pair(size: object) -> tuple[int, int] | None:
    if isinstance(size, int):
        return size, size
    if isinstance(size, Sequence) and not isinstance(size, str) and len(cast("Sequence[object]", size)) == 2:
        height, width = cast("Sequence[int]", size)
        return int(height), int(width)
    return None


class ImageProcessorFiles(NamedTuple):
    """An image processor named by content: its folder, and the sha256 of each of its files."""

    folder: Path
    hashes: tuple[tuple[str, str], ...]


def image_processor_files(ckpt: Checkpoint) -> ImageProcessorFiles | None:
    """The files of a checkpoint's image processor; None where it came without one."""
    folder = folder_of(ckpt)
    present = [name for name in _PROCESSOR if (folder / name).is_file()]
    hashes = tuple((name, file_sha256(folder / name)) for name in present)
    return ImageProcessorFiles(folder, hashes) if hashes else None


@lru_cache(maxsize=16)
def load_image_processor(files: ImageProcessorFiles) -> Any:
    """The image processor in a folder; never fetched, never remote code. AuditError (code 2) if it cannot be loaded."""
    from transformers import AutoImageProcessor

    return from_files(AutoImageProcessor, "image processor", files)
