"""A tiny LLaVA in float64: a tower of two blocks of which the first is read, a projector, a decoder of two blocks.

As transformers' own class computes it, so that it reads the finished weights (see :mod:`audit.probing.frozen_models`).
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

from audit.probing.frozen_models import Weights

SIDE, PATCH, HEADS = 8, 4, 4
SEES, READS, BLOCKS = 24, 32, 2
"""Widths of the tower and of the decoder, and the blocks of each."""
WORDS_MAX = 24


def logits_of(
    w: Weights, ids: Int[Tensor, "row pos"], pixels: Float[Tensor, "row 3 y x"]
) -> Float[Tensor, "row pos token"]:
    """Logits of rows whose tokens 1 to 4 stand for the patches of a picture."""
    seen = _projected(w, _seen(w, pixels))
    embedded = w["language_model.model.embed_tokens.weight"][ids]
    x = torch.cat([embedded[:, :1], seen, embedded[:, 1 + seen.shape[1] :]], 1)
    for at in (f"language_model.model.layers.{block}." for block in range(BLOCKS)):
        y = _rms(x, w[f"{at}input_layernorm.weight"])
        q, k, v = (_split(y @ w[f"{at}self_attn.{name}_proj.weight"].T) for name in "qkv")
        mixed = _attention(_rotated(q), _rotated(k), v, causal=True)
        x = x + mixed @ w[f"{at}self_attn.o_proj.weight"].T
        y = _rms(x, w[f"{at}post_attention_layernorm.weight"])
        gate, up = (y @ w[f"{at}mlp.{name}_proj.weight"].T for name in ("gate", "up"))
        x = x + (F.silu(gate) * up) @ w[f"{at}mlp.down_proj.weight"].T
    return _rms(x, w["language_model.model.norm.weight"]) @ w["language_model.lm_head.weight"].T


def _seen(w: Weights, pixels: Tensor) -> Float[Tensor, "row patch d"]:
    """What the first block of the tower leaves at the patches."""
    at = "vision_tower.embeddings."
    patches = pixels.unfold(2, PATCH, PATCH).unfold(3, PATCH, PATCH).permute(0, 2, 3, 1, 4, 5).flatten(3).flatten(1, 2)
    patches = patches @ w[f"{at}patch_embedding.weight"].flatten(1).T
    first = w[f"{at}class_embedding"].expand(len(pixels), 1, -1)
    x = torch.cat([first, patches], 1) + w[f"{at}position_embedding.weight"]
    x, at = _norm(w, "vision_tower.pre_layrnorm", x), "vision_tower.encoder.layers.0."
    y = _norm(w, f"{at}layer_norm1", x)
    q, k, v = (_split(_linear(w, f"{at}self_attn.{name}_proj", y)) for name in "qkv")
    x = x + _linear(w, f"{at}self_attn.out_proj", _attention(q, k, v, causal=False))
    y = _linear(w, f"{at}mlp.fc1", _norm(w, f"{at}layer_norm2", x))
    return (x + _linear(w, f"{at}mlp.fc2", y * torch.sigmoid(1.702 * y)))[:, 1:]


def _projected(w: Weights, seen: Tensor) -> Float[Tensor, "row patch d"]:
    return _linear(w, "multi_modal_projector.linear_2", F.gelu(_linear(w, "multi_modal_projector.linear_1", seen)))


def _linear(w: Weights, name: str, y: Tensor) -> Tensor:
    return y @ w[f"{name}.weight"].T + w[f"{name}.bias"]


def _norm(w: Weights, name: str, y: Tensor) -> Tensor:
    return F.layer_norm(y, y.shape[-1:], w[f"{name}.weight"], w[f"{name}.bias"], 1e-5)


def _rms(x: Tensor, weight: Tensor) -> Tensor:
    return x / (x.square().mean(-1, keepdim=True) + 1e-6).sqrt() * weight


def _split(x: Float[Tensor, "row pos d"]) -> Float[Tensor, "row head pos e"]:
    return x.unflatten(-1, (HEADS, -1)).transpose(1, 2)


def _rotated(x: Float[Tensor, "row head pos e"]) -> Float[Tensor, "row head pos e"]:
    half = x.shape[-1] // 2
    rates = 10000.0 ** (-torch.arange(half, dtype=x.dtype) / half)
    angle = torch.arange(x.shape[2], dtype=x.dtype)[:, None] * rates.repeat(2)
    return x * angle.cos() + torch.cat([-x[..., half:], x[..., :half]], -1) * angle.sin()


def _attention(q: Tensor, k: Tensor, v: Tensor, causal: bool) -> Float[Tensor, "row pos d"]:
    scores = q @ k.mT / q.shape[-1] ** 0.5
    if causal:
        scores = scores.masked_fill(torch.ones(scores.shape[-2:], dtype=torch.bool).triu(1), -torch.inf)
    return (scores.softmax(-1) @ v).transpose(1, 2).flatten(-2)


def shapes_of(vocabulary: int) -> dict[str, tuple[int, ...]]:
    """Every tensor of the model, by its name in the file."""
    d, hidden, at = SEES, 2 * SEES, "vision_tower.embeddings."
    shapes: dict[str, tuple[int, ...]] = {
        f"{at}class_embedding": (d,), f"{at}patch_embedding.weight": (d, 3, PATCH, PATCH),
        f"{at}position_embedding.weight": (1 + (SIDE // PATCH) ** 2, d),
    }  # fmt: skip
    norms = ["vision_tower.pre_layrnorm", "vision_tower.post_layernorm"]
    matrices: dict[str, tuple[int, int]] = {}
    for at in (f"vision_tower.encoder.layers.{block}." for block in range(BLOCKS)):
        matrices |= {f"{at}self_attn.{name}": (d, d) for name in ("q_proj", "k_proj", "v_proj", "out_proj")}
        matrices |= {f"{at}mlp.fc1": (hidden, d), f"{at}mlp.fc2": (d, hidden)}
        norms += [f"{at}layer_norm1", f"{at}layer_norm2"]
    matrices |= {"multi_modal_projector.linear_1": (READS, d), "multi_modal_projector.linear_2": (READS, READS)}
    for name, shape in matrices.items():
        shapes |= {f"{name}.weight": shape, f"{name}.bias": shape[:1]}
    shapes |= {f"{name}.{part}": (d,) for name in norms for part in ("weight", "bias")}
    d, hidden = READS, 2 * READS
    shapes["language_model.model.embed_tokens.weight"] = (vocabulary, d)
    for at in (f"language_model.model.layers.{block}." for block in range(BLOCKS)):
        shapes |= {f"{at}self_attn.{name}_proj.weight": (d, d) for name in "qkvo"}
        shapes |= {f"{at}mlp.{name}_proj.weight": (hidden, d) for name in ("gate", "up")}
        shapes |= {f"{at}mlp.down_proj.weight": (d, hidden)}
        shapes |= {f"{at}{name}_layernorm.weight": (d,) for name in ("input", "post_attention")}
    return shapes | {"language_model.model.norm.weight": (d,), "language_model.lm_head.weight": (vocabulary, d)}


def config_of(vocabulary: int, image: int) -> dict[str, object]:
    """What ``config.json`` says; ``image`` is the token of a patch."""
    vision: dict[str, object] = {
        "model_type": "clip_vision_model", "hidden_size": SEES, "intermediate_size": 2 * SEES, "patch_size": PATCH,
        "image_size": SIDE, "num_hidden_layers": BLOCKS, "num_attention_heads": HEADS, "hidden_act": "quick_gelu",
        "layer_norm_eps": 1e-5,
    }  # fmt: skip
    text: dict[str, object] = {
        "model_type": "llama", "vocab_size": vocabulary, "hidden_size": READS, "intermediate_size": 2 * READS,
        "num_hidden_layers": BLOCKS, "num_attention_heads": HEADS, "num_key_value_heads": HEADS,
        "max_position_embeddings": WORDS_MAX, "rms_norm_eps": 1e-6, "tie_word_embeddings": False,
        "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0}, "pad_token_id": 0, "bos_token_id": 1,
        "eos_token_id": None,
    }  # fmt: skip
    return {
        "model_type": "llava", "architectures": ["LlavaForConditionalGeneration"], "vision_config": vision,
        "text_config": text, "image_token_index": image, "vision_feature_layer": -2, "image_seq_length": 4,
        "vision_feature_select_strategy": "default", "projector_hidden_act": "gelu", "tie_word_embeddings": False,
    }  # fmt: skip
