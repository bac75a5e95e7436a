"""What a vision-language model makes of a picture, as its config says: the size that its tower takes, and how many
states of it stand in a row. Nothing is loaded.

A processor counts by settings of its own (patch size, class token, which of them are kept): where the two differ, a
model is refused by its library or, over a batch in which the wrong counts add up, silently reads other places.
"""

from typing import Any, Final, NamedTuple

from audit.checkpoints.location import folder_of
from audit.checkpoints.staging import library_config
from audit.schema import Checkpoint

_CLASS_TOKENS: Final = {"clip_vision_model": 1, "siglip_vision_model": 0}
"""How many states of a tower stand before those of its patches."""
_DROPS_FIRST: Final = "default"


class PictureSettings(NamedTuple):
    """``token``: the id that stands for a picture's states in a row; None where the config names none.

    ``states``: how many of them a picture has; None where the config does not fix it. ``size``: height and width that
    the tower takes. ``counted``: what the states are, in words. ``drops_patch``: the first patch of every picture is
    dropped, for it stands where other towers have a class token.
    """

    token: int | None
    states: int | None
    size: tuple[int, int] | None
    counted: str
    drops_patch: bool = False


def picture_settings(ckpt: Checkpoint) -> PictureSettings:
    """The settings of a vision-language checkpoint. AuditError (code 2) for a config that cannot be read."""
    config = library_config(folder_of(ckpt))
    vision: Any = getattr(config, "vision_config", None)
    token = getattr(config, "image_token_id", None)
    token = getattr(config, "image_token_index", None) if token is None else token
    size = _pair(getattr(vision, "image_size", None))
    kind = str(config.model_type)
    if kind == "gemma3":
        states = int(config.mm_tokens_per_image)
        return PictureSettings(token, states, size, f"mm_tokens_per_image {states}")
    if kind == "mllama":
        return PictureSettings(token, 1, size, "one token, from which on the text looks at the picture")
    patch = _pair(getattr(vision, "patch_size", None))
    leading = _CLASS_TOKENS.get(str(getattr(vision, "model_type", "")))
    if kind != "llava" or size is None or patch is None or leading is None:
        return PictureSettings(token, None, size, "not fixed by its config")
    patches = (size[0] // patch[0]) * (size[1] // patch[1])
    strategy = str(config.vision_feature_select_strategy)
    dropped = 1 if strategy == _DROPS_FIRST else 0
    counted = f"{patches} patches, {leading} class tokens, vision_feature_select_strategy {strategy!r}"
    return PictureSettings(token, patches + leading - dropped, size, counted, dropped > leading)


def _pair(size: object) -> tuple[int, int] | None:
    if isinstance(size, int):
        return size, size
    if isinstance(size, list | tuple) and len(size) == 2:
        height, width = size
        return int(height), int(width)
    return None
