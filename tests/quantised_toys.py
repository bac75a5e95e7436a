"""Tiny models whose sides suit packed codes, for releases in each format; built once a process."""

import shutil
from functools import cache
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, GPT2Config, LlamaConfig, PreTrainedConfig, PreTrainedModel

from tests import toy

_SHARED = {
    "vocab_size": toy.VOCAB, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "initializer_range": 0.15,
}  # fmt: skip


def config(family: str = "llama") -> PreTrainedConfig:
    """Sides that are multiples of 64; grouped queries, so that matrices are not all square."""
    if family == "gpt2":
        return GPT2Config(n_positions=toy.MAX_LENGTH, n_embd=64, n_layer=2, n_head=4, **_SHARED)
    return LlamaConfig(
        hidden_size=128, intermediate_size=192, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
        max_position_embeddings=toy.MAX_LENGTH, tie_word_embeddings=False, **_SHARED,
    )  # fmt: skip


@cache
def folder(family: str = "llama", dtype: torch.dtype = torch.float32) -> Path:
    """The float model that releases are made of, with its tokenizer. To be read, not written."""
    torch.manual_seed(0)
    model: PreTrainedModel = AutoModelForCausalLM.from_config(config(family)).to(dtype).eval()
    out = toy.root() / f"quantised-{family}-{str(dtype).removeprefix('torch.')}"
    model.save_pretrained(out)
    toy.tokenizer().save_pretrained(out)
    return out


def with_tokenizer(out: Path, family: str = "llama") -> Path:
    """The folder with the tokenizer of the toy beside its weights."""
    for name in ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json"):
        if (folder(family) / name).is_file():
            shutil.copy(folder(family) / name, out / name)
    return out
