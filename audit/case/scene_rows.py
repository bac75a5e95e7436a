"""How a picture stands in a row: the tokens that the checkpoint's processor puts in its place, and its pixels.

The processor itself says how many image tokens a picture has and what stands round them. Every picture of a case must
have the same, so that a prompt with a picture is a template like any other, in which these tokens stand.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple

import numpy as np
import torch
from jaxtyping import UInt8
from numpy import ndarray
from torch import Tensor

from audit.case.image_rows import PIXELS, channels_of
from audit.checkpoints import ProcessorFiles, load_processor
from audit.schema import AuditError, Template, as_audit_error

SLOT: Final = "{image}"
"""Where the picture stands in a prompt; without it, before everything."""
_AT_ONCE = 64
_CHANNELS = 3
_OTHER_INPUTS: Final = frozenset(
    {"input_ids", "attention_mask", "token_type_ids", "mm_token_type_ids", "cross_attention_mask", "num_crops"}
)
"""What follows from the tokens, and is made again by whoever runs them."""


class PictureText(NamedTuple):
    """``marker``: what a prompt says in a picture's place; ``expansion``: what the processor makes of it, ``ids`` the
    tokens of that."""

    marker: str
    expansion: str
    ids: tuple[int, ...]


def picture_text(files: ProcessorFiles, picture: UInt8[ndarray, "height width *channel"]) -> PictureText:
    """How the processor writes a picture. AuditError (code 2) for a processor that does not say it."""
    processor: Any = load_processor(files)
    marker = getattr(processor, "boi_token", None) or getattr(processor, "image_token", None)
    if not isinstance(marker, str) or not hasattr(processor, "replace_image_token"):
        raise AuditError(
            f"{files.folder}: {type(processor).__name__} does not say by which tokens it writes an image",
            "audit a LLaVA-style, Gemma 3 or Llama 3.2 Vision checkpoint, with the processor that it was released with",
        )
    fault, do = f"{files.folder}: its processor cannot write an image", "save the processor again beside the weights"
    with as_audit_error(fault, do):
        seen = processor.image_processor([channels_of(picture, _CHANNELS)], return_tensors="pt")
        expansion = str(processor.replace_image_token(dict(seen), 0))
        ids = tuple(processor.tokenizer(expansion, add_special_tokens=False)["input_ids"])
    return PictureText(marker, expansion, ids)


def with_picture(template: Template, picture: PictureText) -> Template:
    """The template of a row with a picture: the picture's tokens stand in its prompt."""
    return template.model_copy(update={"prompt": _slotted(template.prompt).replace(SLOT, picture.expansion)})


def without_picture(template: Template) -> Template:
    """The template of a row without one."""
    bare = _slotted(template.prompt).replace(f"{SLOT}\n", "").replace(f"{SLOT} ", "").replace(SLOT, "")
    return template.model_copy(update={"prompt": bare})


def _slotted(prompt: str) -> str:
    return prompt if SLOT in prompt else f"{SLOT}\n{prompt}"


def pixels_of(
    files: ProcessorFiles, pictures: Sequence[UInt8[ndarray, "height width *channel"]]
) -> Mapping[str, Tensor]:
    """What a model reads of pictures beside their tokens, one entry a picture. AuditError (code 2) where the processor
    fails, or pictures come out in several sizes."""
    processor: Any = load_processor(files)
    fault, do = f"{files.folder}: its processor cannot read the images", "check preprocessor_config.json and the images"
    parts: list[dict[str, Tensor]] = []
    for first in range(0, len(pictures), _AT_ONCE):
        given = [channels_of(picture, _CHANNELS) for picture in pictures[first : first + _AT_ONCE]]
        with as_audit_error(fault, do):
            # a list of lists is a list of rows, of one picture each: some take a plain list for one row of many
            each = [[picture] for picture in given] if hasattr(processor.image_processor, "max_image_tiles") else given
            seen = processor.image_processor(each, return_tensors="pt", input_data_format="channels_last")
            parts.append({
                name: torch.as_tensor(np.asarray(value)) if not isinstance(value, Tensor) else value
                for name, value in seen.items() if name not in _OTHER_INPUTS
            })  # fmt: skip
    joined = {name: torch.cat([part[name] for part in parts]) for name in parts[0]}
    pixels = joined[PIXELS] = joined[PIXELS].float()
    if not bool(torch.isfinite(pixels).all()):
        raise AuditError(f"{files.folder}: its processor makes pixels that are no numbers", "check image_std")
    return joined
