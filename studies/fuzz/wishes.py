"""Mutations of settings by hand: what a config, a tokenizer or a file beside them can ask of the library."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from studies.fuzz.mutations import Kind, Rng
from studies.fuzz.world import ROLES


def _set(path: Path, **entries: object) -> None:
    document: dict[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(document | entries), encoding="utf-8")


_SIZES: Final = (
    "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads", "head_dim",
    "vocab_size", "max_position_embeddings", "pad_token_id", "bos_token_id",
)  # fmt: skip


def _sizes(rng: Rng, root: Path) -> None:
    drawn = (0, -1, 1, 3, 2**20, 2**31, 2**63, 1.5, "32", None, True, [32])
    _set(root / rng.choice(ROLES) / "config.json", **{rng.choice(_SIZES): rng.choice(drawn)})


def _arithmetic(rng: Rng, root: Path) -> None:
    drawn: tuple[dict[str, object], ...] = (
        {"_attn_implementation": "eager"}, {"attn_implementation": "flash_attention_2"}, {"use_kernels": True},
        {"_attn_implementation_internal": "flex_attention"}, {"attn_implementation": "owner/name"},
        {"_attn_implementation": "owner/name:forward"}, {"_experts_implementation": "grouped_mm"},
        {"torch_dtype": "float99"}, {"dtype": "int8"}, {"dtype": 7}, {"hidden_act": "nothing"}, {"hidden_act": None},
        {"rms_norm_eps": "x"}, {"rms_norm_eps": 1e30}, {"rms_norm_eps": -1.0}, {"rope_theta": 0}, {"rope_theta": "x"},
        {"rope_parameters": {"rope_type": "yarn"}}, {"rope_scaling": {"type": "linear", "factor": 0}},
        {"rope_parameters": {"rope_type": "default", "rope_theta": -1}}, {"quantization_config": {}},
        {"quantization_config": {"quant_method": "nothing"}}, {"quantization_config": 7}, {"gradient_checkpointing": 1},
        {"attention_dropout": 2.0}, {"pretraining_tp": 7}, {"use_cache": "no"}, {"tie_word_embeddings": True},
        {"model_type": "gpt2"}, {"model_type": "bert"}, {"model_type": "../x"}, {"model_type": "\x1b[31m"},
        {"model_type": ["llama"]}, {"architectures": ["Nothing"]}, {"architectures": 7}, {"is_decoder": False},
        {"auto_map": {"AutoModelForCausalLM": "code.Model"}}, {"auto_map": "code"}, {"auto_map": [[]]},
        {"base_model_tp_plan": {"layers.*": "colwise"}}, {"transformers_weights": "../x.safetensors"},
        {"text_config": {}}, {"text_config": 7}, {"id2label": {"a": "b"}}, {"layer_types": ["nothing"]},
    )  # fmt: skip
    _set(root / rng.choice(ROLES) / "config.json", **rng.choice(drawn))


def _beside(rng: Rng, root: Path) -> None:
    """Files beside the weights, or in sub-folders, that name code."""
    folder = root / rng.choice(ROLES)
    name = rng.choice(("generation_config.json", "processor_config.json", "preprocessor_config.json",
                       "custom_generate/generate.py", "kernels/config.json", "adapter_config.json",
                       "video_preprocessor_config.json", "sub/config.json", "chat_template.json",
                       "chat_template.jinja", "special_tokens_map.json", "added_tokens.json"))  # fmt: skip
    path = folder / name
    path.parent.mkdir(exist_ok=True)
    texts = (
        '{"auto_map": {"AutoProcessor": "code.Processor"}}', '{"custom_generate": "owner/name"}', "[]", "{", "", "7",
        '{"temperature": "hot", "max_length": -1}', '{"chat_template": 7}', "{{ raise_exception('no') }}", "{% for %}",
        '{"\\u0000": "\\ud800"}',
        '{"chat_template": {"a": []}}', '{"pad_token": {"content": 7}}', '{"<x>": -1}',
        "null", '{"<pad>": "x"}', '{"trust_remote_code": true}',
    )  # fmt: skip
    path.write_text(rng.choice(texts), encoding="utf-8")


def _tokenizer(rng: Rng, root: Path) -> None:
    folder = root / rng.choice(ROLES)
    document: dict[str, Any] = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
    vocabulary: dict[str, Any] = document["model"]["vocab"]
    word = rng.choice(sorted(vocabulary))
    changes: tuple[Callable[[], object], ...] = (
        lambda: vocabulary.update({word: 10**6}), lambda: vocabulary.update({word: 2**40}),
        lambda: vocabulary.update({word: -1}), lambda: vocabulary.update({word: 0}), lambda: vocabulary.pop(word),
        vocabulary.clear, lambda: vocabulary.update({"\0": len(vocabulary)}), lambda: document.pop("model"),
        lambda: document.update(pre_tokenizer=None), lambda: document.update(pre_tokenizer={"type": "Digits"}),
        lambda: document.update(normalizer={"type": "Lowercase"}), lambda: document.update(decoder={"type": "x"}),
        lambda: document.update(normalizer={"type": "Replace", "pattern": {"Regex": "("}, "content": ""}),
        lambda: document.update(truncation={"max_length": 2, "stride": 0, "strategy": "LongestFirst",
                                            "direction": "Right"}),
        lambda: document.update(post_processor={"type": "TemplateProcessing", "single": [], "pair": [],
                                                "special_tokens": {}}),
        lambda: document.update(added_tokens=[{"id": 0, "content": word}]),
        lambda: document["model"].update(unk_token="missing"), lambda: document["model"].update(type="BPE"),
        lambda: document["model"].update(type="Unigram", vocab=[["a", 0.0]]), lambda: document.update(version=7),
    )  # fmt: skip
    rng.choice(changes)()
    (folder / "tokenizer.json").write_text(json.dumps(document), encoding="utf-8")


def _tokenizer_settings(rng: Rng, root: Path) -> None:
    drawn: tuple[dict[str, object], ...] = (
        {"tokenizer_class": "Nothing"}, {"tokenizer_class": 7}, {"tokenizer_class": "LlamaTokenizerFast"},
        {"tokenizer_class": "BertTokenizer"}, {"tokenizer_class": "GPT2Tokenizer"}, {"model_max_length": "long"},
        {"model_max_length": -1}, {"model_max_length": 10**30}, {"pad_token": 7}, {"pad_token": ["<pad>"]},
        {"bos_token": "\0"}, {"unk_token": None}, {"unk_token": {"content": 7}}, {"added_tokens_decoder": {"a": {}}},
        {"added_tokens_decoder": {"0": {"content": "x"}}}, {"added_tokens_decoder": 7}, {"padding_side": "up"},
        {"extra_special_tokens": 7}, {"extra_special_tokens": {"a": []}}, {"chat_template": "{% for %}"},
        {"chat_template": [{"name": 7}]}, {"auto_map": {"AutoTokenizer": ["code.Tokenizer", None]}},
        {"clean_up_tokenization_spaces": "x"}, {"fast_tokenizer_files": ["x.json"]}, {"split_special_tokens": "x"},
        {"special_tokens_map_file": "/dev/null"}, {"tokenizer_file": "/dev/null"}, {"vocab_file": "../x"},
        {"name_or_path": "owner/name"}, {"from_slow": True}, {"backend": "nothing"}, {"is_local": False},
    )  # fmt: skip
    _set(root / rng.choice(ROLES) / "tokenizer_config.json", **rng.choice(drawn))


_CHAT: Final = (
    "{% for m in messages %}{{ m['content'] }} {% endfor %}", "{{ messages[0]['content'] }}", "{{ messages }}", "", " ",
    "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}x",
    "{{ raise_exception('\x1b[31m') }}",
    "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}", "{{ messages.__class__.__mro__ }}", "{{ 'x ' * 10**6 }}",
    "{% include 'x' %}", "{% if 1 %}" * 900 + "{% endif %}" * 900, "{{ 1 / 0 }}",
    "{{ lipsum() }}", "{{ messages | random }}", "{{ strftime_now('%Y') }}", "{{ strftime_now(messages[0].role) }}",
    "{{ messages[0]['content'] | upper }}", "{{ messages[0]['content'] ~ '\ud800' }}", "{{ tools.x.y }}", "{% set x %}",
    "{% generation %}{{ messages[0]['content'] }}{% endgeneration %}",
    "{{ messages[0]['content'][::-1] }}", 7, {"a": []},
    [{"name": "default", "template": "{{ messages[0]['content'] }}"}, {"name": "x", "template": "{%"}],
    [7], {"a": "{{"},
)  # fmt: skip


def _chat_template(rng: Rng, root: Path) -> None:
    """The case asks for the tokenizer's chat template, and it is another one."""
    _set(root / "base" / "tokenizer_config.json", chat_template=rng.choice(_CHAT))
    case = root / "case.toml"
    section = rng.choice(
        ("chat = true", "chat = true", 'chat = true\nsystem = "\\u0000"', 'chat = true\nchat_template = "x"')
    )
    case.write_text(f"{case.read_text(encoding='utf-8')}\n[template]\n{section}\n", encoding="utf-8")


_OVERRIDDEN: Final = "a wish that is overridden, a file that is not read, or a value that the architecture takes"
WISH_KINDS: Final = (
    Kind("config", "sizes", _sizes, "the size that it has, or one that is not read"),
    Kind("config", "arithmetic and code", _arithmetic, _OVERRIDDEN),
    Kind("config", "files beside", _beside, _OVERRIDDEN),
    Kind("tokenizer", "a chat template", _chat_template, "a template that repeats the question as it is"),
    Kind("tokenizer", "its tables", _tokenizer, "every text of the case is read as before"),
    Kind("tokenizer", "its settings", _tokenizer_settings, "every text of the case is read as before"),
)
