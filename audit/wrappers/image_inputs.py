"""Made-up images of the size that a classifier takes, and the architectures whose blocks have no plain states."""

from collections.abc import Sequence
from math import prod
from typing import Any, Final, cast

import torch
from jaxtyping import Float
from torch import Tensor
from transformers import PreTrainedModel

from audit.checkpoints import TORCH_MODULE
from audit.schema import AuditError
from audit.wrappers.interface import Batch

PIXELS: Final = "pixel_values"
"""The input of a row of images, [channel height width], as the checkpoint's own image processor leaves it."""
_SIDE: Final = 32
"""Height and width where a config states none: a convolutional network takes any size."""
WINDOWED: Final = ("swin", "swinv2", "donut-swin", "maskformer-swin", "dinat", "hiera", "focalnet")
"""Model types whose attention sees a window of the image, and whose maps shrink from stage to stage."""
STAGED: Final = ("resnet",)
"""Model types whose blocks are convolutions, stage by stage, and whose head reads the mean of the last map."""


def refuse_windows(model: PreTrainedModel) -> None:
    """AuditError (code 2) by name for a model whose blocks attend within windows."""
    if model.config.model_type in WINDOWED:
        raise AuditError(
            f"{type(model).__name__}: its blocks attend within windows and change the map from stage to stage: "
            "no class token and no patch keeps its place",
            "audit a plain ViT or DeiT classifier, or a ResNet",
        )


def has_stages(model: PreTrainedModel) -> bool:
    """Is it a residual network, whose blocks stand in stages?"""
    return model.config.model_type in STAGED


def is_torch_module(model: PreTrainedModel) -> bool:
    """Is it a module of torch that the library does not know, whose config names its blocks?"""
    return model.config.model_type == TORCH_MODULE


def image_shape(config: Any) -> tuple[int, int, int]:
    """Channels, height and width of the images that a model takes, by its config."""
    size = getattr(config, "image_size", None) or _SIDE
    height, width = cast("Sequence[int]", size) if isinstance(size, list | tuple) else (size, size)
    return int(getattr(config, "num_channels", 3)), int(height), int(width)


def image_config(model: PreTrainedModel) -> Any:
    """The config of what reads the images: of a vision-language model that of its tower."""
    return getattr(model.config, "vision_config", None) or model.config


def made_up_images(model: PreTrainedModel, n: int) -> Float[Tensor, "row channel height width"]:
    """``n`` different images in [-1, 1], the same every time."""
    channels, height, width = image_shape(image_config(model))
    count = torch.arange(n * channels * height * width, device=model.device, dtype=torch.float32)
    return torch.sin(count * 12.9898 + 0.5).view(n, channels, height, width).to(model.dtype)


def patch_shape(config: Any) -> tuple[int, int]:
    """Height and width of a patch; 1 and 1 where there are none."""
    side = getattr(config, "patch_size", None) or 1
    height, width = cast("Sequence[int]", side) if isinstance(side, list | tuple) else (side, side)
    return int(height), int(width)


def patches(model: PreTrainedModel) -> int:
    """How many patches an image is cut into."""
    config = image_config(model)
    (_, *sides), shape = image_shape(config), patch_shape(config)
    return prod(length // side for length, side in zip(sides, shape, strict=True))


def check_size(model: PreTrainedModel, pixels: Tensor) -> None:
    """AuditError (code 2) for images of another size than the model's vision tower takes: towers cut what is left over
    of a patch, and take another shape that has as many patches."""
    channels, height, width = image_shape(image_config(model))
    if tuple(pixels.shape[-3:]) != (channels, height, width):
        given = " x ".join(str(n) for n in pixels.shape[-3:])
        raise AuditError(
            f"{type(model).__name__}: images of {given}, and its vision tower takes {channels} x {height} x {width}",
            "prepare the rows with the image processor that the checkpoint came with",
        )


def differing_images(model: PreTrainedModel) -> Float[Tensor, "row channel height width"]:
    """Two images that differ in one pixel of the last patch alone."""
    first = made_up_images(model, 1)
    shape = patch_shape(image_config(model))
    row, column = (length // side * side - 1 for length, side in zip(first.shape[2:], shape, strict=True))
    other = first.clone()
    other[:, :, row, column] += 2
    return torch.cat([first, other])


def trial_images(model: PreTrainedModel, n: int) -> Batch:
    """A batch of made-up images, each asked for the first class."""
    ids = torch.zeros((n, 2), dtype=torch.int64, device=model.device)
    return Batch(ids, torch.ones_like(ids, dtype=torch.bool), None, {PIXELS: made_up_images(model, n)})
