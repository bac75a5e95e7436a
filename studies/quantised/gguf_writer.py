"""A Llama written as a .gguf file by gguf's own writer, in the layout that llama.cpp's converter gives."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import gguf
import numpy as np
import torch
from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast

_TOP = {
    "model.embed_tokens.weight": "token_embd.weight", "model.norm.weight": "output_norm.weight",
    "lm_head.weight": "output.weight",
}  # fmt: skip
_BLOCK = {
    "self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output", "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down", "input_layernorm": "attn_norm", "post_attention_layernorm": "ffn_norm",
}  # fmt: skip


def permuted(weight: np.ndarray, heads: int) -> np.ndarray:
    """Rows of queries and keys in the order of the file: rotary pairs side by side, not half a head apart."""
    rows, columns = weight.shape
    return weight.reshape(heads, 2, rows // heads // 2, columns).swapaxes(1, 2).reshape(rows, columns)


def write(
    source: Path, out: Path, kind: str = "Q8_0", tokenizer: PreTrainedTokenizerFast | None = None,
    extra: Mapping[str, np.ndarray] | None = None, entries: Mapping[str, Sequence[float] | str | float] | None = None,
) -> Path:  # fmt: skip
    """The Llama in ``source`` at ``out``: matrices in ``kind`` (those whose rows suit it), the rest in F32.

    ``extra`` and ``entries``: more tensors, and more of the header.
    """
    model = AutoModelForCausalLM.from_pretrained(source, dtype=torch.float32)
    config = model.config
    writer = gguf.GGUFWriter(out, "llama")
    writer.add_name(source.name)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_rope_dimension_count(config.hidden_size // config.num_attention_heads)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
    writer.add_vocab_size(config.vocab_size)
    for key, value in (entries or {}).items():
        add = {str: writer.add_string, int: writer.add_uint32}.get(type(value), writer.add_float32)
        add(key, value)
    if tokenizer is not None:
        _add_tokenizer(writer, tokenizer)
    wanted = gguf.GGMLQuantizationType[kind]
    for name, values in _renamed(model).items():
        _add(writer, name, values, wanted)
    for name, values in (extra or {}).items():
        writer.add_tensor(name, values)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return out


def _renamed(model: torch.nn.Module) -> dict[str, np.ndarray]:
    config, renamed = model.config, {}
    for name, tensor in model.state_dict().items():
        values = tensor.float().numpy()
        if name in _TOP:
            renamed[_TOP[name]] = values
            continue
        _, _, block, rest = name.split(".", 3)
        part = rest.removesuffix(".weight")
        if part.endswith(("q_proj", "k_proj")):
            keys = part.endswith("k_proj")
            values = permuted(values, config.num_key_value_heads if keys else config.num_attention_heads)
        renamed[f"blk.{block}.{_BLOCK[part]}.weight"] = values
    return renamed


def _add(writer: gguf.GGUFWriter, name: str, values: np.ndarray, kind: gguf.GGMLQuantizationType) -> None:
    block, _ = gguf.GGML_QUANT_SIZES[kind]
    if values.ndim < 2 or values.shape[-1] % block:
        kind = gguf.GGMLQuantizationType.F32
    writer.add_tensor(name, gguf.quantize(np.ascontiguousarray(values), kind), raw_dtype=kind)


def _add_tokenizer(writer: gguf.GGUFWriter, tokenizer: PreTrainedTokenizerFast) -> None:
    """A byte-level BPE as llama.cpp stores it."""
    import json

    document = json.loads(tokenizer.backend_tokenizer.to_str())["model"]
    vocabulary = sorted(tokenizer.get_vocab().items(), key=lambda pair: pair[1])
    special = set(tokenizer.all_special_tokens)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("default")
    writer.add_token_list([token for token, _ in vocabulary])
    writer.add_token_types([3 if token in special else 1 for token, _ in vocabulary])
    writer.add_token_merges([" ".join(m) if isinstance(m, list) else m for m in document["merges"]])
    writer.add_bos_token_id(tokenizer.bos_token_id)
    writer.add_eos_token_id(tokenizer.eos_token_id)
