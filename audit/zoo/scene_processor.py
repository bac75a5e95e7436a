"""What turns a scene and a question into a model's input: words as tokens, pixels in [-1, 1], as files of a checkpoint.

The processor's class needs no torchvision: a checkpoint with it is opened everywhere.
"""

from functools import cache
from typing import TYPE_CHECKING, Any

from audit.zoo.scene_drawing import SIDE
from audit.zoo.scene_words import vocabulary
from audit.zoo.tokenizer import make_tokenizer

if TYPE_CHECKING:
    from transformers import LlavaProcessor, PreTrainedTokenizerFast

IMAGE = "<image>"


@cache
def scene_tokenizer() -> "PreTrainedTokenizerFast":
    """One token a word, and one that stands for a patch of a picture: the last."""
    tokenizer = make_tokenizer(vocabulary())
    tokenizer.add_special_tokens({"additional_special_tokens": [IMAGE]})
    return tokenizer


def scene_processor(patch: int) -> "LlavaProcessor":
    """Pictures of 32 x 32 in so wide patches; a class token is counted and left out, as the model does."""
    from transformers import CLIPImageProcessorPil, LlavaProcessor

    settings: dict[str, Any] = {"size": {"shortest_edge": SIDE}, "crop_size": {"height": SIDE, "width": SIDE}}
    half = [0.5, 0.5, 0.5]
    images = CLIPImageProcessorPil(image_mean=half, image_std=half, **settings)
    return LlavaProcessor(
        images, scene_tokenizer(), patch_size=patch, vision_feature_select_strategy="default", image_token=IMAGE,
        num_additional_image_tokens=1,
    )  # fmt: skip
