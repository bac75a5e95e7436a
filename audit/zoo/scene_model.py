"""A small vision-language model of transformers' LLaVA class, fresh: its sizes, and where it begins."""

from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from audit.zoo.scene_drawing import SIDE
from audit.zoo.scene_processor import IMAGE, scene_tokenizer
from audit.zoo.scene_recipes import SceneSizes

if TYPE_CHECKING:
    from transformers import LlavaForConditionalGeneration

HEADS = 4
SPREAD = 0.08
"""Standard deviation of initial weights: at .02 it takes much longer to learn."""
ALIKE = 1.7
"""How sharply a fresh head looks for what is like its word."""


def fresh_reader(sizes: SceneSizes, seed: int) -> "LlavaForConditionalGeneration":
    """A small LLaVA: a CLIP tower whose last block but one is read, a projector, a Llama; initialised from ``seed``."""
    from transformers import CLIPVisionConfig, LlamaConfig, LlavaConfig, LlavaForConditionalGeneration

    tokenizer = scene_tokenizer()
    ends: dict[str, Any] = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 3, "tie_word_embeddings": False}
    vision = CLIPVisionConfig(
        hidden_size=sizes.vision_d, intermediate_size=2 * sizes.vision_d, num_hidden_layers=sizes.vision_blocks,
        num_attention_heads=HEADS, image_size=SIDE, patch_size=sizes.patch, initializer_range=SPREAD,
    )  # fmt: skip
    text = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=sizes.d, intermediate_size=2 * sizes.d, num_hidden_layers=sizes.blocks,
        num_attention_heads=HEADS, num_key_value_heads=HEADS, max_position_embeddings=96, initializer_range=SPREAD,
        **ends,
    )  # fmt: skip
    tokens: dict[str, Any] = {"image_token_id": tokenizer.convert_tokens_to_ids(IMAGE), **ends}
    config = LlavaConfig(
        vision_config=vision, text_config=text, vision_feature_layer=-2,
        image_seq_length=(SIDE // sizes.patch) ** 2, **tokens,
    )  # fmt: skip
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = LlavaForConditionalGeneration(config)
        _begin(model, sizes.d)
    return model


def _begin(model: "LlavaForConditionalGeneration", d: int) -> None:
    """Let a fresh language model begin near what it is to learn, which takes it many times longer from noise.

    The words that it says are those that it reads, turned; what a head attends to it passes on as it is; half of the
    heads of the first block look from words to patches that show them, and of the last from words that are about to be
    said to where they were read.
    """
    blocks: Any = model.model.language_model.layers
    words: Any = model.get_input_embeddings()
    half, turn = d // 2, nn.init.orthogonal_(torch.empty(d, d))
    with torch.no_grad():
        model.lm_head.weight.copy_(words.weight @ turn.T)
        for block in blocks:
            nn.init.orthogonal_(block.self_attn.v_proj.weight)
            block.self_attn.o_proj.weight.copy_(block.self_attn.v_proj.weight.T)
        first, last = blocks[0].self_attn, blocks[-1].self_attn
        for reads, says in ((first.q_proj, first.k_proj), (last.k_proj, last.q_proj)):
            alike = nn.init.orthogonal_(torch.empty(half, d), ALIKE)
            reads.weight[:half] = alike
            says.weight[:half] = alike @ turn.T
