"""Items that are images: pixels as the checkpoint's own image processor leaves them, the class as an answer of one
target.

A row has two positions, of which the second holds the number of its class: what is scored there is read from the state
that the model's head reads, as the next token is read from the state before it.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple

import numpy as np
import torch
from jaxtyping import Float, UInt8
from numpy import ndarray
from torch import Tensor

from audit.case.rows import Rows
from audit.checkpoints import ImageProcessorFiles, ImageSettings, load_image_processor
from audit.schema import AuditError, Item, as_audit_error

PIXELS: Final = "pixel_values"
IMAGE_TOKENS: Final = 2
"""So many tokens the row of an image has: the one that its state is read at, and its class."""
_AT_ONCE = 256


class Seen(NamedTuple):
    """How the images of a case are made into pixels: the processor's files, and what the model takes."""

    processor: ImageProcessorFiles
    settings: ImageSettings


def channels_of(pixels: UInt8[ndarray, "height width *channel"], channels: int) -> UInt8[ndarray, "height width c"]:
    """An image with as many channels as the model takes: grey ones repeated, coloured ones made grey."""
    flat = pixels[..., 0] if pixels.ndim == 3 and pixels.shape[2] == 1 else pixels
    if channels == 1 and flat.ndim == 3:
        from PIL import Image

        flat = np.array(Image.fromarray(flat).convert("L"))
    if flat.ndim == 2:
        flat = np.repeat(flat[:, :, None], channels, 2)
    if flat.shape[2] != channels:
        raise AuditError(
            f"images of {flat.shape[2]} channels, and the model takes {channels}", "audit a model of grey or RGB images"
        )
    return np.ascontiguousarray(flat)


def preprocessed(images: Sequence[UInt8[ndarray, "_ _ ..."]], seen: Seen) -> Float[Tensor, "row channel height width"]:
    """Pixels as the model reads them. AuditError (code 2) where the processor fails or makes another size than the
    model's."""
    processor: Any = load_image_processor(seen.processor)
    folder, channels = seen.processor.folder, seen.settings.channels
    fault, do = f"{folder}: its image processor cannot read the images", "check preprocessor_config.json and the images"
    parts: list[Tensor] = []
    for first in range(0, len(images), _AT_ONCE):
        given = [channels_of(image, channels) for image in images[first : first + _AT_ONCE]]
        with as_audit_error(fault, do):
            parts.append(processor(images=given, return_tensors="pt", input_data_format="channels_last")[PIXELS])
    pixels = torch.cat(parts).float()
    size = seen.settings.size or tuple(pixels.shape[2:])
    if tuple(pixels.shape[1:]) != (channels, *size):
        raise AuditError(
            f"{folder}: its image processor makes images of {tuple(pixels.shape[1:])}, and the model takes "
            f"{(channels, *size)}",
            "set `size` (and `crop_size`) in preprocessor_config.json to the model's image_size",
        )
    if not bool(torch.isfinite(pixels).all()):
        raise AuditError(f"{folder}: its image processor makes pixels that are no numbers", "check image_std")
    return pixels


def class_number(label: str, classes: Sequence[str]) -> int:
    """The number of a class by its name, or by its number where no class has that name. ValueError if there is none."""
    if label in classes:
        return classes.index(label)
    alike = [n for n, name in enumerate(classes) if name.casefold() == label.casefold()]
    if len(alike) == 1:
        return alike[0]
    if label.isdecimal() and int(label) < len(classes):
        return int(label)
    shown = ", ".join(classes[:4]) + (", ..." if len(classes) > 4 else "")
    raise ValueError(f"{label!r} is none of the model's {len(classes)} classes ({shown})")


def image_rows(items: Sequence[Item], answers: Sequence[str], pixels: Mapping[str, Tensor], seen: Seen) -> Rows:
    """Rows of these items with these classes as their answers, in their order; ``pixels`` by item."""
    labels = torch.tensor([class_number(answer, seen.settings.classes) for answer in answers], dtype=torch.int64)
    ids = torch.stack([torch.zeros_like(labels), labels], 1)
    target = torch.tensor([False, True]).expand(len(items), 2)
    processor = seen.processor.hashes
    return Rows(
        ids=ids, mask=torch.ones_like(ids, dtype=torch.bool), key=target.contiguous(),
        answer_spans=torch.tensor([[1, 2]]).expand(len(items), 2).contiguous(),
        item_ids=tuple(item.id for item in items), group_ids=tuple(item.group for item in items),
        template_hash=str(processor), extra={PIXELS: torch.stack([pixels[item.id] for item in items])},
    )  # fmt: skip
