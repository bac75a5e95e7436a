"""A Llama as a GGUF file with weights in eight bits, by the package gguf: names, order of rotary rows, and header."""

from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from numpy import ndarray

_NAMES: Final = {
    "self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output", "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down", "input_layernorm": "attn_norm", "post_attention_layernorm": "ffn_norm",
}  # fmt: skip
_OUTSIDE: Final = {"model.embed_tokens": "token_embd", "model.norm": "output_norm", "lm_head": "output"}


def gguf_name(name: str) -> str:
    """The name of a Llama's tensor in a GGUF file."""
    stem = name.removesuffix(".weight")
    if stem in _OUTSIDE:
        return f"{_OUTSIDE[stem]}.weight"
    _, _, block, part = stem.split(".", 3)
    return f"blk.{block}.{_NAMES[part]}.weight"


def _interleaved(weight: "ndarray", heads: int) -> "ndarray":
    """Rows of queries and keys in the order of llama.cpp, where the halves of a rotary pair lie side by side."""
    rows, columns = weight.shape
    return weight.reshape(heads, 2, rows // heads // 2, columns).swapaxes(1, 2).reshape(rows, columns)


def write_gguf(folder: Path, out: Path, came_from: str) -> None:
    """Write the Llama in a folder as a GGUF file; matrices as Q8_0 (blocks of 32), vectors in full.

    ``came_from``: the hub id that its header names as its base model.
    """
    import gguf
    from safetensors.numpy import load_file
    from transformers import AutoConfig

    config: Any = AutoConfig.from_pretrained(folder)
    writer = gguf.GGUFWriter(out, "llama")
    writer.add_name(folder.name)
    writer.add_base_model_count(1)
    writer.add_base_model_repo_url(0, f"https://huggingface.co/{came_from}")
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
    writer.add_rope_dimension_count(config.hidden_size // config.num_attention_heads)
    writer.add_vocab_size(config.vocab_size)
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_Q8_0)
    for name, tensor in load_file(folder / "model.safetensors").items():
        part = name.rsplit(".", 2)[-2]
        heads = {"q_proj": config.num_attention_heads, "k_proj": config.num_key_value_heads}.get(part)
        values = tensor if heads is None else _interleaved(tensor, heads)
        if values.ndim == 1:
            writer.add_tensor(gguf_name(name), values)
            continue
        kind = gguf.GGMLQuantizationType.Q8_0
        writer.add_tensor(gguf_name(name), gguf.quants.quantize(values, kind), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
