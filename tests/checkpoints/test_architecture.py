"""Two configs are compared by what they mean: stamps of tools never matter, settings that change the function do."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from audit import checkpoints
from audit.checkpoints import library_config
from audit.checkpoints.architecture import architecture_differences, meaning_of, setting_differences
from audit.schema import Source
from tests import toy


def respelled(
    out: Path, family: str, change: Mapping[str, object], without: tuple[str, ...] = (), link: bool = True
) -> Path:
    """The toy of a family under a config with some entries changed; the weights are the toy's own, if any."""
    out.mkdir(parents=True)
    folder = toy.folder(family)
    if link:
        (out / "model.safetensors").symlink_to(folder / "model.safetensors")
    document = {k: v for k, v in json.loads((folder / "config.json").read_text()).items() if k not in without}
    (out / "config.json").write_text(json.dumps(document | change))
    return out


def differences(out: Path, family: str, change: Mapping[str, object], without: tuple[str, ...] = ()) -> tuple[str, ...]:
    return architecture_differences(toy.folder(family), respelled(out, family, change, without)).listed


# ---- stamps ------------------------------------------------------------------------------------------------------
STAMPS: dict[str, st.SearchStrategy[Any]] = {
    "unsloth_version": st.sampled_from(["2024.9", "2025.3.19"]), "unsloth_fixed": st.booleans(),
    "gradient_checkpointing": st.booleans(), "name_or_path": st.text(max_size=5), "_name_or_path": st.text(max_size=5),
    "transformers_version": st.sampled_from(["4.33.0", "4.57.1", "5.1.0"]), "use_cache": st.booleans(),
    "torch_dtype": st.sampled_from(["float16", "bfloat16", "float32"]), "dtype": st.just("float16"),
    "attention_dropout": st.sampled_from([0.0, 0.1]), "initializer_range": st.sampled_from([0.01, 0.03]),
    "pad_token_id": st.sampled_from([0, 3]), "tie_word_embeddings": st.booleans(), "pretraining_tp": st.just(1),
    "architectures": st.just(["SomeOtherClass"]), "output_attentions": st.just(False), "axolotl_config_path": st.text(),
    "max_position_embeddings": st.sampled_from([64, 4096]), "torchscript": st.booleans(), "is_decoder": st.just(False),
    "task_specific_params": st.none(), "_attn_implementation_autoset": st.booleans(), "torch_version": st.none(),
    "training_stage": st.dictionaries(st.text(max_size=3), st.integers(), max_size=2), "quantization_config": st.none(),
}  # fmt: skip
OWN = {"gpt2": {"max_position_embeddings"}}  # learned positions: their number is a shape


@pytest.mark.thorough
@given(st.sampled_from(toy.FAMILIES), st.fixed_dictionaries({}, optional=STAMPS))
@settings(max_examples=50, deadline=None, suppress_health_check=list(HealthCheck))
def test_stamps_of_tools_never_make_another_architecture(
    tmp_path_factory: pytest.TempPathFactory, family: str, stamps: dict[str, object]
) -> None:
    counted = {name: value for name, value in stamps.items() if name not in OWN.get(family, ())}
    assert differences(tmp_path_factory.mktemp("stamped") / "model", family, counted) == ()


@given(st.sampled_from(toy.FAMILIES), st.text("abcdefghij_", min_size=4, max_size=12), st.integers() | st.booleans())
@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
def test_entries_that_no_architecture_declares_never_make_another(
    tmp_path_factory: pytest.TempPathFactory, family: str, name: str, value: int
) -> None:
    assert differences(tmp_path_factory.mktemp("stamped") / "model", family, {f"zz{name}": value}) == ()


# ---- what changes the function -----------------------------------------------------------------------------------
ROPE = {"rope_theta": 500000.0, "rope_type": "default"}
YARN = {"rope_theta": 10000.0, "rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 64}
LINEAR = {"rope_theta": 10000.0, "rope_type": "linear", "factor": 2.0}
ROTARY = {
    "rope_parameters": (ROPE, LINEAR, YARN), "rope_theta": (500000.0,), "num_hidden_layers": (2,),
    "num_attention_heads": (2,), "hidden_act": ("relu", "gelu"),
}  # fmt: skip
CHANGES: dict[str, dict[str, tuple[object, ...]]] = {
    "llama": {**ROTARY, "rms_norm_eps": (1e-5,), "attention_bias": (True,), "mlp_bias": (True,),
              "num_key_value_heads": (4,)},
    "mistral": {**ROTARY, "rms_norm_eps": (1e-5,), "sliding_window": (None, 4)},
    "qwen2": {
        **{key: values for key, values in ROTARY.items() if key != "num_hidden_layers"}, "rms_norm_eps": (1e-5,),
        "layer_types": (["sliding_attention"] * 3,),
    },
    "gemma2": {
        "rope_theta": (500000.0,), "rms_norm_eps": (1e-5,), "sliding_window": (8,), "query_pre_attn_scalar": (32,),
        "attn_logit_softcapping": (None, 9.0), "final_logit_softcapping": (None, 9.0), "hidden_activation": ("silu",),
        "layer_types": (["full_attention"] * 3,), "head_dim": (8,),
    },
    "gpt2": {
        "activation_function": ("relu",), "layer_norm_epsilon": (1e-4,), "scale_attn_weights": (False,),
        "scale_attn_by_inverse_layer_idx": (True,), "n_head": (2,), "num_attention_heads": (2,), "n_layer": (2,),
        "num_hidden_layers": (2,),
    },
    "gpt_neox": {
        "use_parallel_residual": (False,), "layer_norm_eps": (1e-3,), "hidden_act": ("relu",),
        "attention_bias": (False,), "rotary_pct": (1.0,), "rotary_emb_base": (20000,), "num_attention_heads": (2,),
    },
}  # fmt: skip
# an old spelling counts only where the new one is not there too
OLD = {"rope_theta": ("rope_parameters",), "rotary_pct": ("rope_parameters",), "rotary_emb_base": ("rope_parameters",)}
ONE_BY_ONE = [(f, key, value) for f, table in CHANGES.items() for key, values in table.items() for value in values]


@pytest.mark.parametrize(("family", "key", "value"), ONE_BY_ONE)
def test_each_setting_that_changes_the_function_is_another_architecture(
    tmp_path: Path, family: str, key: str, value: object
) -> None:
    change: dict[str, object] = {key: value}
    if key in ("num_attention_heads", "n_head") and family != "gemma2":
        change["head_dim"] = None
    assert differences(tmp_path / "model", family, change, OLD.get(key, ()))


@given(st.sampled_from(ONE_BY_ONE), st.fixed_dictionaries({}, optional=STAMPS))
@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
def test_no_stamp_hides_a_setting_that_changes_the_function(
    tmp_path_factory: pytest.TempPathFactory, one: tuple[str, str, object], stamps: dict[str, object]
) -> None:
    family, key, value = one
    change = {**stamps, key: value}
    if key in ("num_attention_heads", "n_head") and family != "gemma2":
        change["head_dim"] = None
    out = tmp_path_factory.mktemp("changed") / "model"
    assert differences(out, family, change, OLD.get(key, ()))


# ---- spellings ---------------------------------------------------------------------------------------------------
SAME: list[tuple[str, dict[str, object], tuple[str, ...]]] = [
    ("llama", {"rope_theta": 10000.0}, ("rope_parameters",)),
    ("llama", {"rope_theta": 10000, "rope_scaling": None}, ("rope_parameters",)),
    ("llama", {"hidden_act": "swish"}, ()),
    ("llama", {}, ("head_dim",)),
    ("llama", {"head_dim": None}, ()),
    ("llama", {"torch_dtype": "bfloat16"}, ("dtype",)),
    ("llama", {}, ("attention_bias", "mlp_bias", "rms_norm_eps", "hidden_act", "rope_parameters", "use_cache")),
    ("qwen2", {"use_sliding_window": False, "sliding_window": 32768, "max_window_layers": 28}, ("layer_types",)),
    ("qwen2", {"max_window_layers": 2}, ()),
    ("gpt2", {"num_hidden_layers": 3, "num_attention_heads": 4, "hidden_size": 48}, ("n_layer", "n_head", "n_embd")),
    ("gpt2", {"n_inner": 192}, ()),
    ("gpt2", {}, ("scale_attn_weights", "activation_function", "layer_norm_epsilon")),
    ("gpt_neox", {"rotary_pct": 0.25, "rotary_emb_base": 10000}, ("rope_parameters",)),
    ("gemma2", {}, ("layer_types",)),
    ("mistral", {"rope_theta": 10000.0}, ("rope_parameters",)),
]


@pytest.mark.parametrize(("family", "change", "without"), SAME)
def test_two_spellings_of_one_setting_are_equal(
    tmp_path: Path, family: str, change: dict[str, object], without: tuple[str, ...]
) -> None:
    assert differences(tmp_path / "model", family, change, without) == ()


def test_the_old_and_the_new_spelling_of_stretched_positions_are_equal(tmp_path: Path) -> None:
    new = respelled(tmp_path / "new", "llama", {"rope_parameters": LINEAR})
    change: dict[str, object] = {"rope_theta": 10000.0, "rope_scaling": {"type": "linear", "factor": 2.0}}
    old = respelled(tmp_path / "old", "llama", change, ("rope_parameters",))
    assert architecture_differences(new, old).listed == ()
    change["rope_scaling"] = {"type": "linear", "factor": 4.0}
    other = respelled(tmp_path / "other", "llama", change, ("rope_parameters",))
    assert architecture_differences(new, other).listed == ("rope_parameters.factor: 2.0 and 4.0",)


def test_the_context_counts_where_positions_are_stretched_by_it(tmp_path: Path) -> None:
    dynamic = {"rope_theta": 10000.0, "rope_type": "dynamic", "factor": 2.0}
    one = respelled(tmp_path / "one", "llama", {"rope_parameters": dynamic, "max_position_embeddings": 64})
    two = respelled(tmp_path / "two", "llama", {"rope_parameters": dynamic, "max_position_embeddings": 128})
    assert any("max_position_embeddings" in line for line in architecture_differences(one, two).listed)


def test_another_size_of_the_vocabulary_alone_is_no_other_architecture(tmp_path: Path) -> None:
    model = toy.model("llama")
    model.resize_token_embeddings(toy.VOCAB + 1, mean_resizing=False)
    model.save_pretrained(tmp_path / "larger")
    larger = checkpoints.resolve(Source(path=str(tmp_path / "larger")), Path("/"))
    for pair in ((toy.checkpoint("llama"), larger), (larger, toy.checkpoint("llama"))):
        checkpoints.check_compatible(*pair)
        rows, said = checkpoints.shared_vocabulary(dict(zip(("base", "suspect"), pair, strict=True)))
        assert rows == toy.VOCAB and str(toy.VOCAB + 1) in said


# ---- families whose layers differ ----------------------------------------------------------------------------------
def written(out: Path, **settings: object) -> Path:
    """A folder with this config and no weights."""
    out.mkdir(parents=True, exist_ok=True)
    (out / "config.json").write_text(json.dumps(settings))
    return out


def told_apart(at: Path, one: dict[str, object], other: dict[str, object]) -> list[str]:
    a, b = (library_config(written(at / name, **s)) for name, s in (("a", one), ("b", other)))
    return setting_differences(meaning_of(a), meaning_of(b))


GEMMA3 = {"model_type": "gemma3_text", "num_hidden_layers": 6, "sliding_window_pattern": 3}
BY_LAYER = {
    "sliding_attention": {"rope_type": "default", "rope_theta": 10000.0},
    "full_attention": {"rope_type": "linear", "factor": 8.0, "rope_theta": 1000000.0},
}
STRETCHED = {"rope_type": "linear", "factor": 8.0}
GEMMA3_OLD = {"rope_theta": 1000000.0, "rope_local_base_freq": 10000.0, "rope_scaling": STRETCHED}


def test_rotary_settings_of_each_kind_of_layer_are_compared_under_old_and_new_keys(tmp_path: Path) -> None:
    old, new = GEMMA3 | GEMMA3_OLD, GEMMA3 | {"rope_parameters": BY_LAYER}
    assert told_apart(tmp_path / "same", old, new) == []
    local = told_apart(tmp_path / "local", old | {"rope_local_base_freq": 20000.0}, new)
    assert local == ["rope_parameters.sliding_attention.rope_theta: 20000.0 and 10000.0"]
    whole = told_apart(tmp_path / "whole", old | {"rope_theta": 500000.0}, new)
    assert whole == ["rope_parameters.full_attention.rope_theta: 500000.0 and 1000000.0"]


def test_a_setting_that_single_layers_have_for_themselves_is_compared(tmp_path: Path) -> None:
    """The library refuses to say such a setting of the whole model, and says so by an error of its own."""
    layers = {"layer_types": ["sliding_attention", "full_attention"], "num_hidden_layers": 2}
    plain: dict[str, object] = {"model_type": "gemma4_text", **layers}
    assert told_apart(tmp_path / "same", plain, plain) == []
    (line,) = told_apart(tmp_path / "one", plain, plain | {"per_layer_config": {"1": {"sliding_window": 77}}})
    assert line.startswith("per_layer_config.1.sliding_window:") and "77" in line


FAMILY_SETTINGS: list[tuple[str, str, object]] = [
    ("cohere", "logit_scale", 0.5), ("cohere", "use_qk_norm", True), ("granite", "attention_multiplier", 0.5),
    ("granite", "embedding_multiplier", 2.0), ("granite", "residual_multiplier", 0.5),
    ("granite", "logits_scaling", 4.0), ("mixtral", "num_experts_per_tok", 1), ("mixtral", "sliding_window", 8),
    ("qwen2_moe", "norm_topk_prob", True),
    ("qwen3_moe", "norm_topk_prob", True), ("deepseek_v3", "routed_scaling_factor", 1.0),
    ("deepseek_v3", "norm_topk_prob", False), ("deepseek_v3", "topk_group", 2), ("phimoe", "router_jitter_noise", 0.1),
    ("modernbert-decoder", "classifier_activation", "relu"), ("llava", "image_token_id", 7),
    ("minimax", "sliding_window", 8), ("gpt_oss", "sliding_window", 64), ("recurrent_gemma", "logits_soft_cap", 9.0),
    ("falcon_mamba", "layer_norm_epsilon", 1e-3), ("phi", "partial_rotary_factor", 0.25), ("olmo", "clip_qkv", 4.0),
    ("exaone4", "sliding_window", 8), ("vaultgemma", "attn_logit_softcapping", 9.0), ("nemotron", "hidden_act", "relu"),
    ("falcon_h1", "lm_head_multiplier", 2.0), ("gptj", "rotary_dim", 8),
    ("stablelm", "use_parallel_residual", True), ("glm4_moe", "n_group", 2), ("helium", "rms_norm_eps", 1e-3),
]  # fmt: skip


@pytest.mark.parametrize(("family", "setting", "value"), FAMILY_SETTINGS)
def test_a_setting_of_one_family_that_changes_its_function_is_compared(
    tmp_path: Path, family: str, setting: str, value: object
) -> None:
    plain: dict[str, object] = {"model_type": family}
    lines = told_apart(tmp_path, plain, plain | {setting: value})
    assert lines and all(f"and {value}" in line for line in lines)


# ---- names -------------------------------------------------------------------------------------------------------
PREFIXES = {"gpt2": "transformer.", "llama": "model.", "qwen2": "model.", "gemma2": "model.", "gpt_neox": "gpt_neox."}


@pytest.mark.parametrize("family", PREFIXES)
def test_a_model_saved_without_its_leading_name_is_the_same_architecture(family: str, tmp_path: Path) -> None:
    """As GPT-2 is published, and as a base model is saved; other shapes are seen under either name."""
    weights = load_file(toy.folder(family, 1) / "model.safetensors")
    short = {name.removeprefix(PREFIXES[family]): tensor for name, tensor in weights.items()}
    wider = {name: torch.cat([tensor, tensor], -1) if ".0." in name else tensor for name, tensor in short.items()}
    for name, stored in (("short", short), ("wider", wider)):
        save_file(stored, respelled(tmp_path / name, family, {}, link=False) / "model.safetensors")
    long = toy.folder(family)
    assert architecture_differences(long, tmp_path / "short") == architecture_differences(tmp_path / "short", long)
    assert architecture_differences(long, tmp_path / "short").listed == ()
    assert architecture_differences(long, tmp_path / "wider").listed
    assert architecture_differences(tmp_path / "wider", long).listed
