"""Tiny models whose sides suit packed codes, and releases of them in each format; each made once a process."""

import shutil
from functools import cache
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, GPT2Config, GptOssConfig, LlamaConfig, PreTrainedConfig, PreTrainedModel

from studies.quantised.releases import MADE
from tests import toy

_SHARED = {
    "vocab_size": toy.VOCAB, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "initializer_range": 0.15,
}  # fmt: skip


def config(family: str = "llama") -> PreTrainedConfig:
    """Sides that are multiples of 64; grouped queries, so that matrices are not all square."""
    if family == "gpt2":
        return GPT2Config(n_positions=toy.MAX_LENGTH, n_embd=64, n_layer=2, n_head=4, **_SHARED)
    rotary = {
        "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4,
        "num_key_value_heads": 2, "max_position_embeddings": toy.MAX_LENGTH, "tie_word_embeddings": False,
    }  # fmt: skip
    if family == "gpt_oss":
        experts = {"num_local_experts": 4, "num_experts_per_tok": 2, "head_dim": 16, "sliding_window": 8}
        return GptOssConfig(**rotary, **experts, **_SHARED)
    return LlamaConfig(**rotary, **_SHARED)


@cache
def folder(family: str = "llama", dtype: torch.dtype = torch.float32) -> Path:
    """The float model that releases are made of, with its tokenizer. To be read, not written."""
    torch.manual_seed(0)
    model: PreTrainedModel = AutoModelForCausalLM.from_config(config(family)).to(dtype).eval()
    out = toy.root() / f"quantised-{family}-{str(dtype).removeprefix('torch.')}"
    model.save_pretrained(out)
    toy.tokenizer().save_pretrained(out)
    return out


def with_tokenizer(out: Path, source: Path) -> Path:
    """The folder with the tokenizer of ``source`` beside its weights."""
    for path in source.glob("*token*"):
        shutil.copy(path, out / path.name)
    return out


@cache
def release(name: str) -> Path:
    """A release of the toy in a format, its tokenizer beside it. To be read, not written."""
    out = toy.root() / f"release-{name.replace(' ', '-')}"
    MADE[name][1](folder(), out)
    return with_tokenizer(out, folder())
