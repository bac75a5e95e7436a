"""What a model reads, by its config.json: text, images, or both. Nothing is loaded.

A config that holds a vision tower of its own beside its text reads both; one that states the channels of an image and
no vocabulary, or an architecture for images alone, reads images; whatever is left reads text.
"""

import re
from collections.abc import Mapping
from typing import cast

from audit.checkpoints.torch_module import TORCH_MODULE
from audit.schema import Modality

_VISION = ("vision_config", "vision_tower_config", "vq_config")
_PIXELS = ("num_channels", "image_size")
_IMAGES_ALONE = re.compile(
    r"For(Image|Video|ImageClassificationWithTeacher|MaskedImage|Universal|Semantic|Instance|Depth|Object)"
    r"(Classification|Modeling|Segmentation|Estimation|Detection)"
)

# opened as language models: their images are not taken, and rows that bring some are refused
_TEXT_ALONE = ("FuyuForCausalLM", "GitForCausalLM", "Phi4MultimodalForCausalLM")


def modality_of(config: Mapping[str, object]) -> Modality:
    """The modality of a model by its config."""
    if config.get("model_type") == TORCH_MODULE:
        return "image"
    stated = config.get("architectures")
    names = [str(name) for name in cast("list[object]", stated)] if isinstance(stated, list) else []
    if names and all(_IMAGES_ALONE.search(name) for name in names):
        return "image"
    if not _sees(config) or (names and all(name.endswith(_TEXT_ALONE) for name in names)):
        return "text"
    return "image+text" if _reads(config) else "image"


def _nested(config: Mapping[str, object]) -> list[tuple[str, Mapping[str, object]]]:
    """The configs inside a config, by their names; a table of labels, numbered, is none."""
    inside = [(name, cast("Mapping[object, object]", v)) for name, v in config.items() if isinstance(v, dict)]
    configs = [(name, table) for name, table in inside if all(isinstance(key, str) for key in table)]
    return cast("list[tuple[str, Mapping[str, object]]]", configs)


def _sees(config: Mapping[str, object]) -> bool:
    """Whether some tower of the model takes pixels."""
    if any(name in config for name in _PIXELS):
        return True
    return any(name in _VISION or _sees(inner) for name, inner in _nested(config))


def _reads(config: Mapping[str, object]) -> bool:
    """Whether some tower of the model, other than one of vision, takes tokens. Old vision configs state a vocabulary
    that nothing reads."""
    if isinstance(config.get("vocab_size"), int) or "text_config" in config:
        return True
    return any(name not in _VISION and _reads(inner) for name, inner in _nested(config))
