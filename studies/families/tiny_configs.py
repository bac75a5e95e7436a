"""A tiny config for every causal language model of transformers: its class's defaults, with every size made small.

Sizes are known by the names that configs give them; lists with an entry a layer keep every kind of layer that the
default has. What does not follow from a name stands in :data:`SPECIAL`, by model type.
"""

import dataclasses
from typing import Any, Final

import torch
from huggingface_hub.errors import StrictDataclassError
from torch import nn
from transformers import AutoModelForCausalLM, AutoModelForImageTextToText, PreTrainedConfig, PreTrainedModel
from transformers.models.auto.configuration_auto import CONFIG_MAPPING
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

FAMILIES: Final = tuple(MODEL_FOR_CAUSAL_LM_MAPPING_NAMES)
"""Every model type that the library opens as a causal language model."""
LAYERS, WIDTH, HEADS, KV_HEADS, HEAD, INNER, VOCABULARY, CONTEXT = 4, 32, 4, 2, 8, 48, 96, 64
_NAMED: Final[tuple[tuple[int, str], ...]] = (
    (LAYERS, "num_hidden_layers n_layer n_layers num_layers num_blocks depth decoder_layers encoder_layers "
    "num_decoder_layers num_encoder_layers"),
    (WIDTH, "hidden_size n_embd d_model emb_dim embedding_dim embedding_size word_embed_proj_dim input_embedding_size "
    "output_embedding_size attention_hidden_size lru_width out_hidden_size hidden_size_global input_size "
    "linear_hidden_size backbone_hidden_size adapter_out_dim ple_embed_dim q_lora_rank o_lora_rank"),
    (HEADS, "num_attention_heads n_head n_heads attention_heads decoder_attention_heads encoder_attention_heads "
    "num_heads num_decoder_attention_heads num_encoder_attention_heads index_n_heads linear_num_heads "
    "linear_num_value_heads swa_num_attention_heads mamba_num_heads num_query_groups"),
    (KV_HEADS, "num_key_value_heads num_kv_heads linear_num_key_heads swa_num_key_value_heads n_mamba_heads"),
    (HEAD, "head_dim d_head d_kv dim_head kv_channels attention_head_dim attention_head_size swa_head_dim "
    "linear_head_dim linear_key_head_dim linear_value_head_dim qk_nope_head_dim v_head_dim index_head_dim "
    "global_head_dim query_pre_attn_scalar mamba_d_state ssm_state_size state_size adapter_rank laurel_rank "
    "hidden_size_per_layer_input gated_norm_rank hc_lowrank d_rel mamba_d_head mamba_head_dim mamba_headdim "
    "chunk_size mamba_chunk_size sliding_window sliding_window_size local_attention attention_chunk_size "
    "local_attention_window_len attention_window_size keep_window_size index_topk rel_extent "
    "mamba_dt_rank time_step_rank window_size index_block_size router_hidden_size"),
    (HEAD // 2, "rotary_dim qk_rope_head_dim"),
    (INNER, "intermediate_size intermediate_size_mlp moe_intermediate_size ffn_dim decoder_ffn_dim encoder_ffn_dim "
    "ffn_hidden_size n_inner d_inner d_ff dim_ff dff mlp_dim feed_forward_size shared_intermediate_size "
    "shared_expert_intermediate_size shared_experts_intermediate_size expert_ffn_hidden_size "
    "dense_intermediate_size moe_shared_expert_intermediate_size"),
    (2 * WIDTH, "mamba_d_ssm"),
    (16, "kv_lora_rank"),
    (4, "num_experts num_local_experts moe_num_experts n_routed_experts mamba_n_heads zero_expert_num"),
    (2, "num_experts_per_tok num_experts_per_token moe_k moe_topk hc_count hc_mult heads_per_ngram altup_num_inputs "
    "n_group topk_group num_expert_group index_topk_blocks num_layers_per_stack vision_patch_size "
    "attn_layer_period global_attn_every_n_layers sliding_window_pattern _sliding_window_pattern "
    "no_rope_layer_interval layer_group_size n_layers_per_attn_res_block o_groups split_ngram_parts"),
    (1, "first_k_dense_replace num_kv_shared_layers mamba_n_groups n_groups attn_layer_offset"),
    (VOCABULARY, "vocab_size decoder_vocab_size vocab_size_per_layer_input unpadded_vocab_size"),
    (CONTEXT, "max_position_embeddings n_positions n_ctx max_seq_len context_length max_target_positions "
    "max_source_positions model_max_length"),
)  # fmt: skip
_SIZES: Final = {name: size for size, names in _NAMED for name in names.split()}
_TOKENS: Final = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "decoder_start_token_id": 1}
_LISTS: Final = ("layer_types", "mlp_layer_types", "layers_block_type", "indexer_types", "block_types", "attn_layers")
_KEPT: Final = 0.1
"""The spread of the weights: large enough that what a norm or a router does is seen."""
_QWEN4: Final = {
    "indexer_n_heads": 2, "indexer_kv_heads": 1, "indexer_head_dim": HEAD, "indexer_budget": 16,
    "indexer_compress_ratio": 2,
}  # fmt: skip
_ASSISTANT: Final = {
    "text_config.model_type": "gemma4_text", "text_config.hidden_size_per_layer_input": 0,
    "text_config.vocab_size_per_layer_input": 0, "text_config.num_kv_shared_layers": 4, "backbone_hidden_size": WIDTH,
}  # fmt: skip
SPECIAL: Final[dict[str, dict[str, Any]]] = {
    "blt": {"encoder_hash_byte_group_vocab": 64},
    "bamba": {"mamba_n_heads": 8, "mamba_d_head": 8, "mamba_n_groups": 1, "attn_layer_indices": [1, 3]},
    "falcon_h1": {"mamba_n_heads": 8, "mamba_d_head": 8, "mamba_n_groups": 1},
    "granitemoehybrid": {"mamba_n_heads": 8, "mamba_d_head": 8, "mamba_n_groups": 1},
    "mamba2": {"num_heads": 8, "head_dim": 8},
    "zamba": {"attention_hidden_size": 64, "attention_head_dim": 16, "num_key_value_heads": 4},
    "gpt_neo": {"attention_types": [[["global", "local"], 2]]},
    "hunyuan_v1_dense": {"head_dim": HEAD},
    "hunyuan_v1_moe": {"head_dim": HEAD},
    "ministral": {"head_dim": HEAD},
    "lfm2_moe": {"layer_types": ["conv", "full_attention"] * 2},
    "reformer": {"is_decoder": True, "axial_pos_shape": [8, 8], "axial_pos_embds_dim": [16, 16]},
    "longcat_flash": {"head_dim": 4},
    "cohere_compass_text": {"rope_parameters": {"full_attention": {"rope_type": "default", "rope_theta": 10000.0}}},
    "dbrx": {
        "attn_config.rope_theta": 10000.0,
        "attn_config.clip_qkv": 8.0,
        "ffn_config.hidden_size": WIDTH,
        "ffn_config.ffn_hidden_size": 48,
    },
    "dots1": {"n_routed_experts": 4, "num_experts_per_tok": 2, "n_shared_experts": 1},
    "gemma4_assistant": _ASSISTANT,
    "gemma4_unified_assistant": _ASSISTANT | {"text_config.model_type": "gemma4_unified_text"},
    "nemotron": {"num_key_value_heads": 4},
    "deepseek_v2": {"num_experts_per_tok": 2, "n_routed_experts": 4},
    "dots3_note": {
        "vision_config.adapter_in_dim": WIDTH,
        "vision_config.num_local_experts": 4,
        "vision_config.pyramid_num_routed": [-1, -1, 2, 2],
        "audio_config.adapter_input_size": WIDTH,
        "audio_config.downsample_hidden_size": 8,
    },
    "dots3_note_text": {"n_routed_experts": 4},
    "qwen4_exp": {f"text_config.{name}": value for name, value in _QWEN4.items()},
    "qwen4_exp_text": _QWEN4,
    "gemma3": {"vision_config.image_size": 16, "vision_config.patch_size": 4, "mm_tokens_per_image": 4},
    "mllama": {
        "vision_config.image_size": 16,
        "vision_config.patch_size": 8,
        "vision_config.max_num_tiles": 1,
        "vision_config.num_global_layers": 1,
        "vision_config.intermediate_layers_indices": [0, 1],
        "vision_config.vision_output_dim": 3 * WIDTH,
        "vision_config.supported_aspect_ratios": [[1, 1]],
        "text_config.cross_attention_layers": [1],
        "text_config.head_dim": None,
    },
    "xmod": {"default_language": "en_XX"},
}
"""What does not follow from a name, by model type; dotted names reach into configs within a config."""


AS_RELEASED: Final = ("mllama",)
"""Families whose checkpoints hold a class that reads images, and whose text class does without half of its blocks."""


def tiny_config(family: str) -> PreTrainedConfig:
    """The tiny config of one model type. Raises whatever the config's class raises."""
    return _shrunk(CONFIG_MAPPING[family], SPECIAL.get(family, {}), family)


def tiny_model(family: str, seed: int = 0) -> PreTrainedModel:
    """The same as a model in eval mode with random weights, those of its norms random too."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        door = AutoModelForImageTextToText if family in AS_RELEASED else AutoModelForCausalLM
        model = door.from_config(tiny_config(family), dtype=torch.float32)
        with torch.no_grad():
            for name, module in model.named_modules():
                weight = getattr(module, "weight", None)
                if isinstance(weight, nn.Parameter) and weight.ndim == 1 and "norm" in name.lower():
                    weight.add_(torch.randn_like(weight), alpha=_KEPT)
            for parameter in model.parameters():
                if not bool(parameter.any()):  # gates and projections that start from nothing
                    parameter.normal_(0, _KEPT)
    return model.eval()


def _shrunk(config_class: Any, special: dict[str, Any], family: str) -> PreTrainedConfig:
    """An instance of a config's class with its sizes made small; a special value of None leaves a name out."""
    default = _defaults(config_class)
    values: dict[str, Any] = {}
    for name, value in default.items():
        if isinstance(value, PreTrainedConfig):
            inner = {key.partition(".")[2]: v for key, v in special.items() if key.startswith(f"{name}.")}
            values[name] = _shrunk(type(value), inner, family)
        elif name in _TOKENS and isinstance(value, int):
            values[name] = _TOKENS[name]
        elif name in _SIZES and isinstance(value, int) and not isinstance(value, bool):
            values[name] = min(_SIZES[name], value) if value > 0 else value
        elif name in _LISTS and isinstance(value, list | tuple) and value:
            values[name] = _kinds(list(value))
        elif name == "initializer_range" and isinstance(value, float):
            values[name] = _KEPT
        elif name.endswith(("_token_id", "_token_index")) and isinstance(value, int):
            values[name] = VOCABULARY - 1 - len(values) % 8
    for name in {key.partition(".")[0] for key in special if "." in key} - values.keys():
        inner = {key.partition(".")[2]: v for key, v in special.items() if key.startswith(f"{name}.")}
        values[name] = _shrunk(CONFIG_MAPPING[inner.pop("model_type")], inner, family)
    if "kv_lora_rank" in values and "num_key_value_heads" in values:
        values["num_key_value_heads"] = values["num_attention_heads"]  # the latent is shared, the heads are not
    values |= {key: value for key, value in special.items() if "." not in key}
    return config_class(**{key: value for key, value in values.items() if value is not None})


def _defaults(config_class: Any) -> dict[str, Any]:
    """What a config's class holds when nothing is said."""
    stated = {
        field.name: field.default for field in dataclasses.fields(config_class)
        if field.default is not dataclasses.MISSING
    }  # fmt: skip
    try:
        config = config_class()
    except (ValueError, TypeError, StrictDataclassError):  # its own validation refuses its defaults
        return stated
    return {name: vars(config).get(name, stated.get(name)) for name in stated}


def _kinds(entries: list[Any]) -> list[Any]:
    """As many entries as there are layers, with every kind that the default has, in the order of the default."""
    kinds = list(dict.fromkeys(entries))
    return [kinds[n % len(kinds)] for n in range(max(LAYERS, len(kinds)))]
