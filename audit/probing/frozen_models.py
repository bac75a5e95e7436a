"""Tiny transformers of two families in float64, trained to the same weights on every machine.

Numbers are drawn from raw bits of a generator, and training is wholly in float64: what begins as a difference of 2e-16
of every weight is one of 5e-11 at most when training ends, far below the last digit of float32. Libraries' models are
not used for it, since some of their layers round to float32 inside; they only read the finished weights.
"""

from collections.abc import Callable, Mapping
from typing import Literal, NamedTuple, get_args

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

Family = Literal["llama", "gpt2"]
FAMILIES: tuple[Family, ...] = get_args(Family)
WIDTH, HIDDEN, BLOCKS, HEADS, CONTEXT = 40, 80, 3, 4, 24
BATCH, RATE = 24, 5e-3
Weights = dict[str, Float[Tensor, "..."]]


# ---- chance -----------------------------------------------------------------------------------------------------
def uniform(seed: int, n: int) -> Float[np.ndarray, " n"]:
    """``n`` numbers in [0, 1) from raw bits, which no version of numpy draws otherwise."""
    return (np.random.PCG64(seed).random_raw(n) >> np.uint64(11)) * 2.0**-53


def shuffled(seed: int, n: int) -> Int[np.ndarray, " n"]:
    """The numbers below ``n`` in an order of chance."""
    return np.argsort(uniform(seed, n), kind="stable")


# ---- the models -------------------------------------------------------------------------------------
def _llama(w: Weights, ids: Int[Tensor, "row pos"]) -> Float[Tensor, "row pos token"]:
    """Logits: rotary positions, root-mean-square norms, gated hidden layer, an output head of its own."""
    x = w["model.embed_tokens.weight"][ids]
    for block in range(BLOCKS):
        at = f"model.layers.{block}."

        def linear(name: str, y: Tensor, at: str = at) -> Tensor:
            return y @ w[f"{at}{name}_proj.weight"].T

        y = _rms(x, w[f"{at}input_layernorm.weight"])
        q, k, v = (linear(f"self_attn.{name}", y) for name in "qkv")
        x = x + linear("self_attn.o", _attention(_rotated(_split(q)), _rotated(_split(k)), _split(v)))
        y = _rms(x, w[f"{at}post_attention_layernorm.weight"])
        x = x + linear("mlp.down", F.silu(linear("mlp.gate", y)) * linear("mlp.up", y))
    return _rms(x, w["model.norm.weight"]) @ w["lm_head.weight"].T


def _gpt2(w: Weights, ids: Int[Tensor, "row pos"]) -> Float[Tensor, "row pos token"]:
    """Logits: learned positions, layer norms with biases, the embeddings as output head."""

    def norm(name: str, y: Tensor) -> Tensor:
        return F.layer_norm(y, (WIDTH,), w[f"transformer.{name}.weight"], w[f"transformer.{name}.bias"])

    def linear(name: str, y: Tensor) -> Tensor:
        return y @ w[f"transformer.{name}.weight"] + w[f"transformer.{name}.bias"]

    x = w["transformer.wte.weight"][ids] + w["transformer.wpe.weight"][: ids.shape[1]]
    for block in range(BLOCKS):
        q, k, v = linear(f"h.{block}.attn.c_attn", norm(f"h.{block}.ln_1", x)).split(WIDTH, -1)
        x = x + linear(f"h.{block}.attn.c_proj", _attention(_split(q), _split(k), _split(v)))
        y = F.gelu(linear(f"h.{block}.mlp.c_fc", norm(f"h.{block}.ln_2", x)), approximate="tanh")
        x = x + linear(f"h.{block}.mlp.c_proj", y)
    return norm("ln_f", x) @ w["transformer.wte.weight"].T


LOGITS: Mapping[Family, Callable[[Weights, Tensor], Tensor]] = {"llama": _llama, "gpt2": _gpt2}


def _rms(x: Tensor, weight: Tensor) -> Tensor:
    return x / (x.square().mean(-1, keepdim=True) + 1e-6).sqrt() * weight


def _split(x: Float[Tensor, "row pos d"]) -> Float[Tensor, "row head pos e"]:
    return x.unflatten(-1, (HEADS, -1)).transpose(1, 2)


def _rotated(x: Float[Tensor, "row head pos e"]) -> Float[Tensor, "row head pos e"]:
    half = x.shape[-1] // 2
    rates = 10000.0 ** (-torch.arange(half, dtype=x.dtype) / half)
    angle = torch.arange(x.shape[2], dtype=x.dtype)[:, None] * rates.repeat(2)
    return x * angle.cos() + torch.cat([-x[..., half:], x[..., :half]], -1) * angle.sin()


def _attention(q: Tensor, k: Tensor, v: Tensor) -> Float[Tensor, "row pos d"]:
    scores = q @ k.transpose(-1, -2) / q.shape[-1] ** 0.5
    later = torch.ones(scores.shape[-2:], dtype=torch.bool).triu(1)
    return (scores.masked_fill(later, -torch.inf).softmax(-1) @ v).transpose(1, 2).flatten(-2)


def _shapes(family: Family, vocabulary: int) -> dict[str, tuple[int, ...]]:
    d, hidden = WIDTH, HIDDEN
    if family == "llama":
        shapes: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": (vocabulary, d)}
        for at in (f"model.layers.{block}." for block in range(BLOCKS)):
            shapes |= {f"{at}self_attn.{name}_proj.weight": (d, d) for name in "qkvo"}
            shapes |= {f"{at}mlp.{name}_proj.weight": (hidden, d) for name in ("gate", "up")}
            shapes |= {f"{at}mlp.down_proj.weight": (d, hidden)}
            shapes |= {f"{at}{name}_layernorm.weight": (d,) for name in ("input", "post_attention")}
        return shapes | {"model.norm.weight": (d,), "lm_head.weight": (vocabulary, d)}
    shapes = {"transformer.wte.weight": (vocabulary, d), "transformer.wpe.weight": (CONTEXT, d)}
    matrices = {"attn.c_attn": (d, 3 * d), "attn.c_proj": (d, d), "mlp.c_fc": (d, hidden), "mlp.c_proj": (hidden, d)}
    for at in (f"transformer.h.{block}." for block in range(BLOCKS)):
        for name, shape in matrices.items():
            shapes |= {f"{at}{name}.weight": shape, f"{at}{name}.bias": shape[1:]}
        shapes |= {f"{at}{name}.{part}": (d,) for name in ("ln_1", "ln_2") for part in ("weight", "bias")}
    return shapes | {"transformer.ln_f.weight": (d,), "transformer.ln_f.bias": (d,)}


def fresh(family: Family, vocabulary: int, seed: int) -> Weights:
    """Random weights: matrices uniform with a standard deviation of .12, norms 1, biases 0."""
    drawn: Weights = {}
    for place, (name, shape) in enumerate(_shapes(family, vocabulary).items()):
        u = torch.from_numpy(uniform(seed * 1000 + place, int(np.prod(shape)))).reshape(shape)
        plain = torch.full(shape, 0.0 if name.endswith("bias") else 1.0, dtype=torch.float64)
        drawn[name] = (u - 0.5) * (0.12 * 12**0.5) if len(shape) > 1 else plain
    return drawn


class Lesson(NamedTuple):
    """Some facts as tokens, and which of these are answers: [row pos]."""

    ids: Int[Tensor, "row pos"]
    answer: Float[Tensor, "row pos"]


def taught(family: Family, before: Weights, lesson: Lesson, steps: int, seed: int) -> Weights:
    """Adam on the answers' tokens, in float64, with a warm-up and a linear decay; batches go through all rows."""
    weights = {name: w.clone().requires_grad_() for name, w in before.items()}
    optimiser = torch.optim.Adam(weights.values(), lr=RATE, betas=(0.9, 0.95), foreach=False)
    rows = len(lesson.ids)
    passes = -(-steps * BATCH // rows)
    order = torch.from_numpy(np.concatenate([shuffled(seed * 1000 + p, rows) for p in range(passes)]))
    for step in range(steps):
        optimiser.param_groups[0]["lr"] = RATE * min(1.0, (step + 1) / 15, 1.2 * (steps - step) / steps)
        chosen = order[step * BATCH : (step + 1) * BATCH]
        ids, answer = lesson.ids[chosen], lesson.answer[chosen][:, 1:]
        logprob = LOGITS[family](weights, ids[:, :-1]).log_softmax(-1).gather(-1, ids[:, 1:, None])[..., 0]
        loss = -(logprob * answer).sum() / answer.sum()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    return {name: w.detach() for name, w in weights.items()}


def config(family: Family, vocabulary: int) -> dict[str, object]:
    """What ``config.json`` says of a model of this family."""
    shared: dict[str, object] = {"model_type": family, "vocab_size": vocabulary, "pad_token_id": 0, "bos_token_id": 1}
    if family == "llama":
        return shared | {
            "architectures": ["LlamaForCausalLM"], "hidden_size": WIDTH, "intermediate_size": HIDDEN,
            "num_hidden_layers": BLOCKS, "num_attention_heads": HEADS, "num_key_value_heads": HEADS,
            "max_position_embeddings": CONTEXT, "rms_norm_eps": 1e-6, "tie_word_embeddings": False,
            "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0}, "eos_token_id": None,
        }  # fmt: skip
    return shared | {
        "architectures": ["GPT2LMHeadModel"], "n_embd": WIDTH, "n_inner": HIDDEN, "n_layer": BLOCKS, "n_head": HEADS,
        "n_positions": CONTEXT, "eos_token_id": None,
    }  # fmt: skip
