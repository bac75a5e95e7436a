"""Do two models compute the same function of their weights? Configs compared by meaning, not as they are spelled.

What changes the function is what the model's class declares beyond the settings that every class has, and beyond those
that the forward pass of a causal model without dropout never reads. Stamps of tools are declared by no class. The
library brings aliases, old spellings and defaults into one form, so that two spellings of a setting are equal.
"""

import dataclasses
import re
from collections import Counter
from collections.abc import Mapping
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple, cast

from audit.checkpoints.folder import tensor_shapes
from audit.checkpoints.staging import library_config

# declared, and without effect on what the blocks compute when nothing is trained; ties are left to the tensors
_NEUTRAL = re.compile(
    r"dtype|dropout|pdrop|layerdrop|drop_?rate|jitter|use_cache|tie_|(^|_)token_id$|_token_ids?$|init(ializer)?_"
    r"|(^|_)init_?std|initializer|loss|summary_|classifier_|^output_(router_logits|attentions|hidden_states)|pretraining_tp"
    r"|problem_type|use_(mamba_kernels|kernels?|mambapy|associative_scan|mem_eff_path)|num_logits_to_keep|nextn|^mtp_"
    r"|num_mtp_|chunk_size_lm_head|^slow_but_exact$|^reorder_and_upcast_attn$|^rescale_prenorm_residual$"
    r"|gradient_checkpointing|vocab_size|init_device|languages?$"
)
# what a family's forward pass reads all the same: the sparse mixer of PhiMoE masks experts by it when nothing is trained
_READ_BY: Mapping[str, tuple[str, ...]] = {"phimoe": ("router_jitter_noise",)}
# read by models whose class does not declare them
_UNDECLARED = (
    "model_type", "is_encoder_decoder", "head_dim", "router_bias", "hidden_act", "rope_parameters", "rope_theta",
    "partial_rotary_factor", "original_max_position_embeddings", "fusion_config",
)  # fmt: skip
# None stands for what the shapes of the tensors say
_BY_SHAPE = ("head_dim", "num_key_value_heads", "num_kv_heads", "n_inner", "intermediate_size", "ffn_hidden_size")
_CONTEXT = ("max_position_embeddings", "n_positions", "n_ctx", "max_seq_len", "context_length")
_WINDOW_PLACES = ("use_sliding_window", "max_window_layers", "sliding_window_pattern")
_WINDOWS = (*_WINDOW_PLACES, "sliding_window", "attention_chunk_size")
Shapes = Mapping[str, tuple[int, ...]]
_ALIASES = {"swish": "silu", "gelu_new": "gelu_pytorch_tanh"}


class Differences(NamedTuple):
    """Where two model folders differ; ``vocabulary_only`` if in nothing but how many tokens they know."""

    listed: tuple[str, ...]
    vocabulary_only: bool = False


def architecture_differences(ours: Path, theirs: Path) -> Differences:
    """Where two model folders differ in what their blocks compute or in the shapes of tensors.

    Tied and untied heads may meet. AuditError (code 2) for a config that transformers cannot read.
    """
    if listed := setting_differences(meaning_of(library_config(ours)), meaning_of(library_config(theirs))):
        return Differences(tuple(listed))
    x, y = _alike(tensor_shapes(ours), tensor_shapes(theirs))
    shared = sorted(x.keys() & y.keys())
    if not shared:
        return Differences(("not one tensor has the same name",))
    odd = [name for name in shared if x[name] != y[name]]
    rows_only = bool(odd) and all(x[name][1:] == y[name][1:] for name in odd)
    rows = {(x[name][0], y[name][0]) for name in odd if x[name] and y[name]}
    known = rows == {(_vocabulary(ours), _vocabulary(theirs))}
    return Differences(tuple(f"{name}: {list(x[name])} and {list(y[name])}" for name in odd), rows_only and known)


def setting_differences(a: Mapping[str, object], b: Mapping[str, object]) -> list[str]:
    """Which of two configs' settings (:func:`meaning_of`) differ, with both values."""
    if not _stretched(a) and not _stretched(b):
        a, b = (
            {key: value for key, value in side.items() if key.rpartition(".")[2] not in _CONTEXT} for side in (a, b)
        )
    return [f"{key}: {a.get(key)} and {b.get(key)}" for key in sorted(a.keys() | b.keys()) if _differ(a, b, key)]


def _alike(x: Shapes, y: Shapes) -> tuple[Shapes, Shapes]:
    """Both under the names of which most are shared: a decoder saved with its head has a leading ``transformer.`` or
    ``model.`` on every name, one saved as a base model (GPT-2 as published) has none."""
    pairs = product((x, _below(x)), (y, _below(y)))
    return max(pairs, key=lambda pair: len(pair[0].keys() & pair[1].keys()))


def _below(shapes: Shapes) -> Shapes:
    """The shapes with the part that most names start with taken off, where no other name is the same then."""
    leading = Counter(name.partition(".")[0] for name in shapes)
    start = f"{leading.most_common(1)[0][0]}." if leading else ""
    bare = {name.removeprefix(start): shape for name, shape in shapes.items()}
    return bare if len(bare) == len(shapes) else shapes


def _vocabulary(folder: Path) -> int | None:
    return getattr(library_config(folder).get_text_config(decoder=True), "vocab_size", None)


def _differ(a: Mapping[str, object], b: Mapping[str, object], key: str) -> bool:
    x, y = a.get(key), b.get(key)
    last = key.rpartition(".")[2]
    return x != y and not (last in _BY_SHAPE and (x is None or y is None))


def meaning_of(config: Any) -> dict[str, object]:
    """Every setting of a config that changes the function, in the library's spelling; those within others by dotted
    names."""
    text = config.get_text_config(decoder=True)
    return _settings(text) if text is not config and len(_sub_configs(config)) == 1 else _settings(config)


def _sub_configs(config: Any) -> list[str]:
    from transformers import PreTrainedConfig

    return [name for name, value in vars(config).items() if isinstance(value, PreTrainedConfig)]


def _settings(config: Any, prefix: str = "") -> dict[str, object]:
    """The settings of one config that change the function, those of the configs within it too."""
    from transformers import PreTrainedConfig

    shared = {field.name for field in dataclasses.fields(PreTrainedConfig)}
    declared = {field.name for field in dataclasses.fields(config)} - shared
    values = {name: _value(config, name) for name in sorted(declared | set(_UNDECLARED))}
    if layers := getattr(vars(config).get("_heterogeneity_spec"), "per_layer_overrides", None):
        values["per_layer_config"] = layers
    read = _READ_BY.get(str(config.model_type), ())
    values = {name: value for name, value in values.items() if name in read or not _NEUTRAL.search(name)}
    kinds = values.get("layer_types")
    windowed = isinstance(kinds, list | tuple) and any(re.search("sliding|local|chunk", str(kind)) for kind in kinds)
    if kinds and "use_sliding_window" in values and not windowed:
        values = {name: value for name, value in values.items() if name not in _WINDOWS}
    elif kinds:
        values = {name: value for name, value in values.items() if name not in _WINDOW_PLACES}
    flat: dict[str, object] = {}
    for name, value in values.items():
        if isinstance(value, PreTrainedConfig):
            flat |= _settings(value, f"{prefix}{name}.")
        else:
            flat |= _flat(_plain(value), f"{prefix}{name}")
    return flat


def _value(config: Any, name: str) -> Any:
    """A setting by its name, under whichever alias; where layers have values of their own, the one of the others."""
    try:
        return getattr(config, name, None)
    except RuntimeError:  # how the library says that layers differ in it
        return vars(config).get(name)


def _stretched(settings: Mapping[str, object]) -> bool:
    """Do rotary positions depend on the length of the context that the config states?"""
    kinds = (value for key, value in settings.items() if key.rpartition(".")[2] == "rope_type")
    return any(kind not in (None, "default", "linear", "llama3", "proportional") for kind in kinds)


def _plain(value: Any) -> object:
    """A value in the form in which equal meanings are equal."""
    if isinstance(value, Mapping):
        table = {str(key): _plain(inner) for key, inner in value.items()}
        if "rope_type" in table:
            table.pop("type", None)
        return {key: inner for key, inner in table.items() if inner is not None}
    if isinstance(value, list | tuple | set | frozenset):
        return tuple(_plain(inner) for inner in (sorted(value) if isinstance(value, set | frozenset) else value))
    return _ALIASES.get(value, value) if isinstance(value, str) else value


def _flat(value: object, name: str) -> dict[str, object]:
    if not isinstance(value, dict):
        return {name: value}
    table = cast("dict[str, object]", value)
    return {key: inner for part, entry in table.items() for key, inner in _flat(entry, f"{name}.{part}").items()}
