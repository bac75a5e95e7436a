"""Which vision-language models are opened, and why others are not: by their model type, before anything is loaded.

What is opened is what was held against the library's own forward pass, image by image and block by block. A model that
merges its images in another way would run behind these hooks too, and its numbers would mean something else.
"""

import re
from collections.abc import Sequence
from typing import Any, Final, NamedTuple, cast

from audit.schema import AuditError

MERGING: Final = ("llava", "gemma3")
"""Model types whose image tokens are replaced by what the projector gives, one image a row."""
CROSSING: Final = ("mllama",)
"""Model types whose text tower looks at the image through cross-attention blocks of its own."""
OPENED: Final = (*MERGING, *CROSSING)
NO_BRIDGE: Final = (
    "the transformer_lens backend opens no vision-language model: its bridges compute other logits of images than the "
    "model itself (version 3.9.0: norms of SigLIP towers scaled by weight + 1, LLaVA 2.8e-5 off)"
)


class Reason(NamedTuple):
    """Model types by a pattern, and what keeps them from being opened."""

    types: str
    cause: str


_REASONS: Final = (
    Reason(
        r"qwen\d.*(vl|omni)|qwen3_5.*|qwen4_exp|glm4v.*|glm46v|glmga|glm_ocr|glm_image|ernie4_5_vl.*|paddleocr_vl"
        r"|hunyuan_vl|exaone4_5|minicpmv4_7|cohere_compass|cosmos3_.*",
        "its positions are counted in three directions, and a model remembers those of its last image (rope_deltas): a "
        "row's numbers would depend on the rows before it",
    ),
    Reason(
        r"llava_(next|onevision).*|idefics[23]|smolvlm|minicpmv.*|aya_vision|cohere2_vision|internvl|aria|lfm2_vl"
        r"|qianfan_ocr|perception_lm|llama4|mistral3|lighton_ocr",
        "how many states an image has, by its tiles or its own size, differs from image to image",
    ),
    Reason(
        r"paligemma|t5gemma2|pi0|git",
        "tokens of its text see tokens that come after them, and padding would reach them",
    ),
    Reason(
        r"blip-2|instructblip.*|idefics|kosmos-2.*",
        "its images reach the text tower through attention modules that are no block of either tower",
    ),
    Reason(r"chameleon|emu3|janus", "it reads its images as tokens of a codebook"),
    Reason(r"fuyu|gemma4_unified", "its patches enter the text tower and pass no vision tower"),
    Reason(
        r"blip|florence2|pix2struct|udop|pp_formulanet|vision-encoder-decoder",
        "its text is read by an encoder and a decoder, and hooks are made for decoders alone",
    ),
    Reason(
        r"clip|siglip2?|align|altclip|chinese_clip|clipseg|flava|x-clip|owlvit|owlv2|metaclip_2|vilt|visual_bert"
        r"|bridgetower|lxmert|grounding-dino|groupvit|layoutlm.*|vision-text-dual-encoder|colpali|colqwen2",
        "it predicts no tokens",
    ),
)
_OTHERS: Final = "how its images reach the tokens was not held against the library's own forward pass"


def refuse_kind(model_type: str) -> None:
    """AuditError (code 2) by name, with the reason, for a vision-language model that is not opened."""
    if model_type in OPENED:
        return
    cause = next((reason.cause for reason in _REASONS if re.fullmatch(reason.types, model_type)), _OTHERS)
    raise AuditError(
        f"models of type {model_type} are not opened: {cause}",
        f"audit a vision-language model of one of these types: {', '.join(OPENED)}",
    )


def read_layers(config: Any, blocks: int) -> tuple[int, ...]:
    """The vision blocks whose outputs a LLaVA model reads, in their order.

    ``vision_feature_layer`` counts states: k > 0 is the output of block k - 1, k < 0 that of block ``blocks`` + k.
    AuditError (code 2) for 0, for which transformers raises TypeError, and for a layer that is no block.
    """
    stated: object = config.vision_feature_layer
    layers = [stated] if isinstance(stated, int) else list(cast("Sequence[int]", stated))
    if 0 in layers:
        raise AuditError(
            f"vision_feature_layer is {stated}: 0 is what enters the tower, and transformers raises TypeError for it",
            "name a layer from 1, or from -1 downwards",
        )
    read = sorted({layer - 1 if layer > 0 else blocks + layer for layer in layers})
    if not layers or read[0] < 0 or read[-1] >= blocks:
        raise AuditError(
            f"vision_feature_layer is {stated}, and the vision tower has {blocks} blocks",
            f"name layers from 1 to {blocks}, or from -{blocks} to -1",
        )
    return tuple(read)
