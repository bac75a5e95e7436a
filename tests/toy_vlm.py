"""Tiny random vision-language checkpoints as folders with a processor and a tokenizer, built once a process.

Four classes of transformers: LLaVA with a CLIP tower (class token dropped) and with a SigLIP tower (no class token),
Gemma 3 (every patch read, after the tower's last norm; pooled by the projector) and Llama-3.2-Vision (cross-attention
to tiles). The weights mean nothing: what is tested on them is plumbing. Every parameter is random, gates included.
"""

from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy import ndarray
from tokenizers import AddedToken, Tokenizer, models, pre_tokenizers, processors
from torch import nn
from transformers import (
    CLIPImageProcessorPil,
    CLIPVisionConfig,
    Gemma3Config,
    Gemma3ForConditionalGeneration,
    Gemma3ImageProcessorPil,
    Gemma3Processor,
    Gemma3TextConfig,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaProcessor,
    MllamaConfig,
    MllamaForConditionalGeneration,
    MllamaImageProcessorPil,
    MllamaProcessor,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    SiglipImageProcessorPil,
    SiglipVisionConfig,
)
from transformers.models.mllama.configuration_mllama import MllamaTextConfig, MllamaVisionConfig

from audit.case import Rows
from audit.schema import Checkpoint, Source
from tests.toy import SPECIAL, WORDS, root

KINDS = ("llava_clip", "llava_siglip", "gemma3", "mllama")
MERGED = ("llava_clip", "llava_siglip", "gemma3")
"""Those whose image tokens are replaced by what the projector gives; the other looks at tiles by cross-attention."""
IMAGE, BOI, EOI = "<image>", "<start_of_image>", "<end_of_image>"
EXTRA_TOKENS = (IMAGE, BOI, EOI, "<|python_tag|>")
VOCAB = len(SPECIAL) + len(WORDS) + len(EXTRA_TOKENS)
IMAGE_ID, BOI_ID, EOI_ID = (len(SPECIAL) + len(WORDS) + n for n in range(3))
SIDE, PATCH, WIDTH, VISION_WIDTH, N_BLOCKS, N_VISION = 12, 4, 48, 32, 4, 4
CONTEXT = 96
READ_BLOCK = N_VISION - 2
"""The last block that LLaVA reads, by its layer of -2."""
IMAGE_TOKENS = {"llava_clip": 9, "llava_siglip": 9, "gemma3": 4, "mllama": 1}
"""How many image tokens one picture takes among the ids."""
CROSS_BLOCKS = (1, 3)
TILES = 2
_TEXT: dict[str, Any] = {
    "vocab_size": VOCAB, "hidden_size": WIDTH, "intermediate_size": 80, "num_hidden_layers": N_BLOCKS,
    "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": CONTEXT, "pad_token_id": 0,
    "bos_token_id": 1, "eos_token_id": 2, "initializer_range": 0.15,
}  # fmt: skip
_VISION: dict[str, Any] = {
    "hidden_size": VISION_WIDTH, "intermediate_size": 48, "num_hidden_layers": N_VISION, "num_attention_heads": 4,
    "image_size": SIDE, "patch_size": PATCH, "initializer_range": 0.15,
}  # fmt: skip
_SIZE = {"height": SIDE, "width": SIDE}


def _llava(tower: Any, strategy: str, **settings: Any) -> PreTrainedModel:
    layer = settings.pop("vision_feature_layer", -2)
    config = LlavaConfig(
        text_config=LlamaConfig(tie_word_embeddings=False, **_TEXT), vision_config=tower, image_token_index=IMAGE_ID,
        vision_feature_select_strategy=strategy, image_seq_length=9, vision_feature_layer=layer, **settings,
    )  # fmt: skip
    return LlavaForConditionalGeneration(config)


def _gemma3() -> PreTrainedModel:
    text = Gemma3TextConfig(
        head_dim=12, query_pre_attn_scalar=12, sliding_window=9, tie_word_embeddings=True,
        layer_types=["sliding_attention", "full_attention"] * (N_BLOCKS // 2), **_TEXT,
    )  # fmt: skip
    vision = SiglipVisionConfig(**{**_VISION, "image_size": 16, "vision_use_head": False})
    config = Gemma3Config(
        text_config=text, vision_config=vision, mm_tokens_per_image=4, image_token_index=IMAGE_ID,
        boi_token_index=BOI_ID, eoi_token_index=EOI_ID,
    )  # fmt: skip
    return Gemma3ForConditionalGeneration(config)


def _mllama() -> PreTrainedModel:
    # as in the released checkpoints, the head says no token of a picture
    text = MllamaTextConfig(cross_attention_layers=list(CROSS_BLOCKS), **{**_TEXT, "vocab_size": IMAGE_ID})
    shared = {name: value for name, value in _VISION.items() if name != "num_attention_heads"}
    vision = MllamaVisionConfig(
        attention_heads=4, num_global_layers=2, vision_output_dim=3 * VISION_WIDTH, max_num_tiles=TILES,
        intermediate_layers_indices=[0, 2], supported_aspect_ratios=[[1, 1], [1, 2], [2, 1]], **shared,
    )  # fmt: skip
    return MllamaForConditionalGeneration(
        MllamaConfig(text_config=text, vision_config=vision, image_token_index=IMAGE_ID)
    )


def model(kind: str, seed: int = 0, **settings: Any) -> PreTrainedModel:
    """A fresh random model in eval mode; every parameter random, norms, gates and biases included. ``settings``: of the
    LLaVA config."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        if kind == "llava_clip":
            fresh = _llava(CLIPVisionConfig(**_VISION), "default", **settings)
        elif kind == "llava_siglip":
            fresh = _llava(SiglipVisionConfig(**_VISION, vision_use_head=False), "full", **settings)
        else:
            fresh = {"gemma3": _gemma3, "mllama": _mllama}[kind]()
        with torch.no_grad():
            for _, parameter in sorted(fresh.named_parameters()):
                parameter.add_(torch.randn_like(parameter), alpha=0.3 if parameter.ndim == 1 else 0.1)
            for module in fresh.modules():
                if isinstance(module, nn.Embedding) and module.padding_idx is not None:
                    module.weight[module.padding_idx].normal_(0, 0.15)
    return fresh.eval()


def tokenizer() -> PreTrainedTokenizerFast:
    """The words of the language models' toys, and the tokens of pictures; ``<bos>`` first."""
    raw = Tokenizer(
        models.WordLevel({w: i for i, w in enumerate((*SPECIAL, *WORDS, *EXTRA_TOKENS))}, unk_token="<unk>")
    )
    raw.pre_tokenizer = pre_tokenizers.Whitespace()
    raw.post_processor = processors.TemplateProcessing(single="<bos> $A", special_tokens=[("<bos>", 1)])
    raw.add_special_tokens([AddedToken(word, special=True, normalized=False) for word in EXTRA_TOKENS])
    return PreTrainedTokenizerFast(
        tokenizer_object=raw, pad_token="<pad>", bos_token="<bos>", eos_token="<eos>", unk_token="<unk>",
        model_max_length=CONTEXT, padding_side="right",
        extra_special_tokens={"image_token": IMAGE, "boi_token": BOI, "eoi_token": EOI},
    )  # fmt: skip


def processor(kind: str) -> Any:
    """The processor of one kind, by its Pillow classes."""
    mean = {"image_mean": [0.5] * 3, "image_std": [0.5] * 3}
    if kind == "llava_clip":
        images = CLIPImageProcessorPil(size=_SIZE, crop_size=_SIZE, do_center_crop=False, **mean)
        return LlavaProcessor(images, tokenizer(), PATCH, "default", num_additional_image_tokens=1)
    if kind == "llava_siglip":
        return LlavaProcessor(SiglipImageProcessorPil(size=_SIZE, **mean), tokenizer(), PATCH, "full")
    if kind == "gemma3":
        images = Gemma3ImageProcessorPil(size={"height": 16, "width": 16}, **mean)
        return Gemma3Processor(images, tokenizer(), image_seq_length=4)
    return MllamaProcessor(MllamaImageProcessorPil(size=_SIZE, max_image_tiles=TILES, **mean), tokenizer())


@cache
def folder(kind: str, seed: int = 0) -> Path:
    """A checkpoint folder (safetensors, config, processor, tokenizer). Shared by all tests: never write into it."""
    out = root() / f"vlm-{kind}-{seed}"
    model(kind, seed).save_pretrained(out)
    processor(kind).save_pretrained(out)
    return out


@cache
def checkpoint(kind: str, seed: int = 0) -> Checkpoint:
    """The same as a Checkpoint, named by its content."""
    from audit import checkpoints

    return checkpoints.resolve(Source(path=str(folder(kind, seed))), root())


def picture(number: int, height: int = 20, width: int = 20) -> ndarray:
    """A made-up RGB picture [height width 3] of uint8, another for every number."""
    return np.random.default_rng(number).integers(0, 256, (height, width, 3), dtype=np.uint8)


def marker(kind: str) -> str:
    """What stands for the picture in a text that a processor expands."""
    return BOI if kind == "gemma3" else IMAGE


def rows(kind: str, n: int = 5, seed: int = 0, images: bool = True) -> Rows:
    """``n`` random questions and answers of different lengths as a case makes them: ids expanded by the processor, what
    the model reads beside them in ``extra``. ``images=False``: the same texts without their pictures."""
    rng = np.random.default_rng(seed)
    said = [[str(w) for w in rng.choice(WORDS[:40], int(rng.integers(2, 6)))] for _ in range(n)]
    texts = [" ".join([said_[0], *([marker(kind)] if images else []), *said_[1:]]) for said_ in said]
    pictures = [[picture(100 * seed + i, *_SHAPES[i % len(_SHAPES)])] for i in range(n)]
    made = processor(kind)(
        images=pictures if images else None, text=texts, return_tensors="pt", padding=True, add_special_tokens=True
    )
    answer = rng.integers(len(SPECIAL), len(SPECIAL) + 40, (n, 2))
    lengths = made["attention_mask"].sum(1)
    ids = torch.cat([made["input_ids"], torch.zeros(n, 2, dtype=torch.int64)], 1)
    for row, length in enumerate(lengths.tolist()):
        ids[row, length : length + 2] = torch.from_numpy(answer[row])
    spans = torch.stack([lengths, lengths + 2], 1)
    pos = torch.arange(ids.shape[1])
    return Rows(
        ids=ids, mask=pos < spans[:, 1:], answer_spans=spans, key=(pos >= spans[:, :1]) & (pos < spans[:, 1:]),
        item_ids=tuple(f"item{i}" for i in range(n)), group_ids=tuple(f"picture{i // 2}" for i in range(n)),
        template_hash="toy", extra={name: made[name] for name in INPUTS[kind]} if images else {},
    )  # fmt: skip


_SHAPES = ((20, 20), (16, 36), (40, 18))
"""Heights and widths of pictures; of Llama-3.2-Vision one, two and two tiles."""
INPUTS: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(MERGED, ("pixel_values",)),
    "mllama": ("pixel_values", "aspect_ratio_ids", "aspect_ratio_mask"),
}


def own_inputs(kind: str, rows_: Rows) -> dict[str, Any]:
    """What the library's own model is called with for these rows: written here afresh, from the processors' rules."""
    inputs: dict[str, Any] = {"input_ids": rows_.ids, "attention_mask": rows_.mask.long(), **rows_.extra}
    if kind == "gemma3" and rows_.extra:
        inputs["token_type_ids"] = (rows_.ids == IMAGE_ID).long()
    if kind == "mllama" and rows_.extra:
        seen = (rows_.ids == IMAGE_ID).long().cumsum(1).clamp_max(1)
        inputs["cross_attention_mask"] = seen[:, :, None, None] * rows_.extra["aspect_ratio_mask"][:, None]
    return inputs
