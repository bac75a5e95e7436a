"""Tiny random checkpoints of families with experts, as folders with a tokenizer, built once a process."""

from functools import cache
from pathlib import Path

import torch
from transformers import (
    AutoModelForCausalLM,
    DeepseekV3Config,
    GptOssConfig,
    MixtralConfig,
    PreTrainedConfig,
    PreTrainedModel,
    Qwen2MoeConfig,
)

from audit import checkpoints
from audit.schema import Checkpoint, Source
from tests import toy

SMALL = {
    "vocab_size": toy.VOCAB, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2,
    "num_attention_heads": 4, "num_key_value_heads": 2, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2,
    "num_experts_per_tok": 2, "initializer_range": 0.15, "max_position_embeddings": toy.MAX_LENGTH,
}  # fmt: skip
FAMILIES = ("mixtral", "qwen2_moe", "deepseek_v3", "gpt_oss")
SPLIT = ("mixtral", "qwen2_moe", "deepseek_v3")
"""Families whose files hold one tensor an expert, and whose modules hold all of them in one."""


def config(family: str) -> PreTrainedConfig:
    """The configuration of one family: four experts, two a token; beside shared ones, or after a dense block."""
    if family == "mixtral":
        return MixtralConfig(num_local_experts=4, **SMALL)
    if family == "qwen2_moe":
        return Qwen2MoeConfig(num_experts=4, moe_intermediate_size=24, shared_expert_intermediate_size=24, **SMALL)
    if family == "deepseek_v3":
        return DeepseekV3Config(
            n_routed_experts=4, n_group=2, topk_group=1, q_lora_rank=8, kv_lora_rank=8, qk_rope_head_dim=4,
            qk_nope_head_dim=4, v_head_dim=8, first_k_dense_replace=1, moe_intermediate_size=24, **SMALL,
        )  # fmt: skip
    if family == "gpt_oss":
        rope = {"rope_type": "default", "rope_theta": 10000.0}
        return GptOssConfig(num_local_experts=4, head_dim=8, sliding_window=32, rope_parameters=rope, **SMALL)
    raise ValueError(f"no toy of family {family!r}")


def model(family: str, seed: int = 0) -> PreTrainedModel:
    """A fresh random model in eval mode; every parameter random, norms, biases and sinks included."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        fresh = AutoModelForCausalLM.from_config(config(family))
        with torch.no_grad():
            for name, parameter in sorted(fresh.named_parameters()):
                if parameter.ndim == 1 or name.endswith("bias"):
                    parameter.add_(torch.randn_like(parameter), alpha=0.3)
    return fresh.eval()


@cache
def folder(family: str, seed: int = 0) -> Path:
    """A checkpoint folder. Shared by all tests: never write into it, copy it."""
    out = toy.root() / f"experts-{family}-{seed}"
    model(family, seed).save_pretrained(out)
    toy.tokenizer().save_pretrained(out)
    return out


@cache
def checkpoint(family: str, seed: int = 0) -> Checkpoint:
    """The same as a Checkpoint, named by its content."""
    return checkpoints.resolve(Source(path=str(folder(family, seed))), toy.root())
