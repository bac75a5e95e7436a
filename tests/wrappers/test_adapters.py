"""Adapters: what is in the file is in the weights, or the adapter is refused; base is never audited in its place."""

import json
import logging
import shutil
import warnings
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import peft
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from peft import PeftConfig, get_peft_model
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import AutoModelForCausalLM, LlamaConfig, PreTrainedModel

from audit.checkpoints import fingerprint, resolve
from audit.schema import AuditError, Source
from audit.wrappers import open_wrapper
from audit.wrappers.adapters import merged
from tests import toy

IDS = (torch.arange(18).view(2, -1) * 5 + 4) % toy.VOCAB
CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
ATTENTION_AND_MLP = ("q_proj", "down_proj")


class Trained(NamedTuple):
    """An adapter as PEFT saved it, and the logits of base with it and without it."""

    folder: Path
    logits: Tensor
    base: Tensor


def logits(model: Any) -> Tensor:
    with torch.no_grad():
        return model(input_ids=IDS).logits.float()


def gap(a: Tensor, b: Tensor) -> float:
    return float((a - b).abs().max() / torch.maximum(a.abs().max(), b.abs().max()))


def trained(config: PeftConfig, out: Path, model: PreTrainedModel, size: float = 0.05) -> Trained:
    """Noise stands for training: every parameter that would be trained is moved."""
    base = logits(model)
    with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.manual_seed(3)
        wrapped = get_peft_model(model, config).eval()
        with torch.no_grad():
            for parameter in wrapped.parameters():
                if parameter.requires_grad:
                    parameter.add_(torch.randn_like(parameter), alpha=size)
        wrapped.save_pretrained(str(out))
        return Trained(out, logits(wrapped), base)


def lora(**entries: Any) -> peft.LoraConfig:
    usual = {"task_type": "CAUSAL_LM", "target_modules": list(ATTENTION_AND_MLP), "r": 4, "lora_alpha": 8}
    chosen: dict[str, Any] = usual | entries
    return peft.LoraConfig(**chosen)


@cache
def plain() -> Trained:
    """A LoRA on the Llama toy, shared by the tests that only read it."""
    return trained(lora(), toy.root() / "adapter-plain", toy.model("llama"))


@cache
def with_head() -> Trained:
    """The same beside a whole new head."""
    return trained(lora(modules_to_save=["lm_head"]), toy.root() / "adapter-head", toy.model("llama"))


def rewritten(source: Path, out: Path, change: Callable[[dict[str, Tensor]], Mapping[str, Tensor]]) -> Path:
    """The adapter with other tensors or other names."""
    out.mkdir(parents=True)
    shutil.copy(source / CONFIG, out)
    tensors = change(load_file(source / WEIGHTS))
    save_file({name: tensor.clone().contiguous() for name, tensor in tensors.items()}, out / WEIGHTS)
    return out


def renamed(source: Path, out: Path, rule: Callable[[str], str]) -> Path:
    return rewritten(source, out, lambda tensors: {rule(name): tensor for name, tensor in tensors.items()})


def configured(source: Path, out: Path, **entries: Any) -> Path:
    """The adapter with other entries in its config."""
    shutil.copytree(source, out)
    document = json.loads((out / CONFIG).read_text()) | entries
    (out / CONFIG).write_text(json.dumps(document))
    return out


def opened(folder: Path, family: str = "llama", dtype: str = "float32") -> Tensor:
    """Logits of the checkpoint as an audit opens it."""
    source = Source(path=str(toy.folder(family)), adapter=str(folder))
    return logits(open_wrapper(resolve(source, toy.root()), dtype=dtype).model)  # type: ignore[attr-defined]


def refused(folder: Path, code: int, *words: str, family: str = "llama") -> None:
    with pytest.raises(AuditError) as caught:
        opened(folder, family)
    assert caught.value.code == code, caught.value
    for word in words:
        assert word in caught.value.what, caught.value.what


# ---- what PEFT saved --------------------------------------------------------------------------------------------
KINDS: dict[str, tuple[str, Callable[[], PeftConfig]]] = {
    "plain": ("llama", lora),
    "rank-stabilised": ("llama", lambda: lora(use_rslora=True)),
    "magnitudes": ("llama", lambda: lora(use_dora=True)),
    "ranks by layer": ("llama", lambda: lora(rank_pattern={"1.self_attn.q_proj": 2}, alpha_pattern={"down_proj": 32})),
    "some layers": ("llama", lambda: lora(layers_to_transform=[0, 2])),
    "head and embedding whole": ("llama", lambda: lora(modules_to_save=["embed_tokens", "lm_head"])),
    "norms whole": ("llama", lambda: lora(modules_to_save=["norm"])),
    "embedding": ("llama", lambda: lora(target_modules=["embed_tokens", "q_proj"])),
    "some tokens": ("llama", lambda: lora(trainable_token_indices=[3, 5])),
    "pissa": ("llama", lambda: lora(init_lora_weights="pissa")),
    "olora": ("llama", lambda: lora(init_lora_weights="olora")),
    "biases": ("qwen2", lambda: lora(bias="all")),
    "tied embedding": ("qwen2", lambda: lora(target_modules=["embed_tokens", "q_proj"])),
    "tied head": ("gemma2", lambda: lora(target_modules=["lm_head", "q_proj"])),
    "tied head whole": ("gemma2", lambda: lora(modules_to_save=["lm_head"])),
    "tied tokens": ("qwen2", lambda: lora(trainable_token_indices=[3, 5])),
    "transposed": ("gpt2", lambda: lora(target_modules=["c_attn", "c_proj"], bias="lora_only")),
    "fused": ("gpt_neox", lambda: lora(target_modules=["query_key_value"])),
    "adaptive ranks": ("llama", lambda: peft.AdaLoraConfig(target_modules=["q_proj"], total_step=9, init_r=4)),
    "scaling": ("llama", lambda: peft.IA3Config(target_modules=["k_proj", "up_proj"], feedforward_modules=["up_proj"])),
    "hadamard": ("llama", lambda: peft.LoHaConfig(target_modules=["q_proj"], r=4)),
    "kronecker": ("llama", lambda: peft.LoKrConfig(target_modules=["q_proj"], r=4)),
    "rotation": ("llama", lambda: peft.OFTConfig(target_modules=["q_proj"], oft_block_size=16)),
    "butterfly": ("llama", lambda: peft.BOFTConfig(target_modules=["q_proj"], boft_block_size=4)),
    "shared random": ("llama", lambda: peft.VeraConfig(target_modules=["q_proj"], r=8)),
    "shared random unsaved": ("llama", lambda: peft.VeraConfig(target_modules=["q_proj"], r=8, save_projection=False)),
    "norms": ("llama", lambda: peft.LNTuningConfig(target_modules=["norm"])),
    "tokens": ("qwen2", lambda: peft.TrainableTokensConfig(token_indices=[3, 5, 12])),
    "vector bank": ("llama", lambda: peft.VBLoRAConfig(target_modules=["q_proj"], vector_length=16, num_vectors=32)),
}  # fmt: skip


@pytest.mark.sampled
@pytest.mark.parametrize("kind", KINDS)
def test_the_merged_model_is_the_one_that_was_trained(kind: str, tmp_path: Path) -> None:
    family, config = KINDS[kind]
    adapter = trained(config(), tmp_path / "a", toy.model(family))
    assert gap(adapter.logits, adapter.base) > 1e-3
    assert gap(opened(adapter.folder, family), adapter.logits) < 1e-5


@pytest.mark.parametrize(("dtype", "small"), [("float64", 1e-6), ("bfloat16", 5e-2), ("float16", 5e-3)])
def test_other_dtypes_round_and_no_more(dtype: str, small: float) -> None:
    assert gap(opened(plain().folder, dtype=dtype), plain().logits) < small


def test_opening_is_quiet_and_repeats(tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        first = opened(with_head().folder)
    torch.manual_seed(99)
    assert torch.equal(opened(with_head().folder), first)


def test_only_the_files_that_were_hashed_are_read(tmp_path: Path) -> None:
    folder = tmp_path / "a"
    shutil.copytree(plain().folder, folder)
    (folder / "adapter_model.bin").write_bytes(b"no pickle")
    (folder / "adapter_model-00001-of-00002.safetensors").write_bytes(b"no tensors")
    trained(lora(target_modules=["k_proj"]), folder / "checkpoint-20", toy.model("llama"))
    assert gap(opened(folder), plain().logits) < 1e-5
    assert fingerprint(folder) == fingerprint(plain().folder)


def test_a_head_that_is_no_longer_tied_is_saved_too(tmp_path: Path) -> None:
    adapter = trained(lora(target_modules=["lm_head"]), tmp_path / "a", toy.model("qwen2"))
    model = merged(toy.model("qwen2"), adapter.folder)
    model.save_pretrained(tmp_path / "merged")
    assert gap(logits(AutoModelForCausalLM.from_pretrained(tmp_path / "merged")), adapter.logits) < 1e-5


# ---- other spellings of the same names --------------------------------------------------------------------------
def inner(name: str) -> str:
    return name.removeprefix("base_model.model.")


SPELLINGS: dict[str, Callable[[str], str]] = {
    "one model less": lambda name: f"base_model.{inner(name)}",
    "one model less inside": lambda name: name.replace("model.model.model.", "model.model."),
    "none of PEFT's prefix": inner,
    "doubled prefix": lambda name: f"base_model.model.{name}",
    "one model more": lambda name: f"base_model.model.model.{inner(name)}",
    "data parallel": lambda name: f"module.{name}",
    "compiled outside": lambda name: f"_orig_mod.{name}",
    "compiled inside": lambda name: f"base_model.model._orig_mod.{inner(name)}",
    "compiled blocks": lambda name: name.replace("self_attn.", "_orig_mod.self_attn."),
    "sharded": lambda name: f"_fsdp_wrapped_module.{name.replace('layers.1.', 'layers.1._fsdp_wrapped_module.')}",
    "adapter's name": lambda name: name.replace(".weight", ".default.weight"),
    "another adapter's name": lambda name: name.replace(".weight", ".forget.weight"),
    "compiled, named and without a prefix": lambda name: f"_orig_mod.{inner(name).replace('.weight', '.x.weight')}",
}


@pytest.mark.sampled
@pytest.mark.parametrize("spelling", SPELLINGS)
def test_one_renaming_of_the_whole_file_is_applied_and_said(
    spelling: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = renamed(plain().folder, tmp_path / "a", SPELLINGS[spelling])
    with caplog.at_level(logging.WARNING, logger="audit"):
        assert gap(opened(folder), plain().logits) < 1e-5
    assert any("renamed as a whole" in record.getMessage() for record in caplog.records)


def test_names_as_peft_saves_them_are_not_worth_a_word(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, logger="audit"):
        opened(plain().folder)
    assert not caplog.records


@pytest.mark.parametrize("spelling", ["one model less", "doubled prefix", "compiled outside"])
def test_modules_saved_whole_are_renamed_with_the_rest(spelling: str, tmp_path: Path) -> None:
    folder = renamed(with_head().folder, tmp_path / "a", SPELLINGS[spelling])
    assert gap(opened(folder), with_head().logits) < 1e-5


def test_an_adapter_trained_below_the_head_is_renamed_by_its_decoder(tmp_path: Path) -> None:
    adapter = trained(lora(target_modules=["c_attn"]), tmp_path / "a", toy.model("gpt2"))
    folder = renamed(adapter.folder, tmp_path / "b", lambda name: name.replace("transformer.", ""))
    assert gap(opened(folder, "gpt2"), adapter.logits) < 1e-5


@pytest.mark.parametrize(
    "kind", ["plain", "magnitudes", "embedding", "head and embedding whole", "scaling", "hadamard"]
)
def test_a_whole_state_dict_names_adapter_and_wrappers_and_is_read(kind: str, tmp_path: Path) -> None:
    """As trainers write it without PEFT: the adapter's name in every key, base's weights beside them."""
    adapter = trained(KINDS[kind][1](), tmp_path / "a", toy.model("llama"))
    state = peft.PeftModel.from_pretrained(toy.model("llama"), str(adapter.folder)).state_dict()
    named = {name.replace(".default", ".mine"): tensor for name, tensor in state.items()}
    assert gap(opened(rewritten(adapter.folder, tmp_path / "b", lambda _: state)), adapter.logits) < 1e-5
    assert gap(opened(rewritten(adapter.folder, tmp_path / "c", lambda _: named)), adapter.logits) < 1e-5


# ---- what does not fit ------------------------------------------------------------------------------------------
def test_an_adapter_renamed_by_half_is_refused(tmp_path: Path) -> None:
    half = renamed(plain().folder, tmp_path / "a", lambda name: name.replace("layers.2", "blocks.2"))
    refused(half, 3, "4 of its 12 tensors", "blocks.2", "layers.2", "by half")
    less = renamed(
        plain().folder, tmp_path / "b", lambda n: SPELLINGS["one model less inside"](n) if "layers.0" in n else n
    )
    refused(less, 3, "4 of its 12 tensors", "layers.0")


def test_modules_saved_whole_with_other_prefixes_than_the_rest_are_refused(tmp_path: Path) -> None:
    folder = renamed(with_head().folder, tmp_path / "a", SPELLINGS["one model less inside"])
    refused(folder, 3, "have no place", "base_model.model.layers.0")


def test_a_part_of_an_adapter_is_refused(tmp_path: Path) -> None:
    folder = rewritten(
        plain().folder, tmp_path / "a", lambda tensors: {n: t for n, t in tensors.items() if "layers.0" in n}
    )
    refused(folder, 3, "8 places", "layers.1", "only a part")


def llama(**sizes: Any) -> PreTrainedModel:
    entries = toy.config("llama").to_dict() | sizes
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return AutoModelForCausalLM.from_config(LlamaConfig(**entries)).eval()


def test_layers_that_base_lacks_are_named(tmp_path: Path) -> None:
    adapter = trained(lora(), tmp_path / "a", llama(num_hidden_layers=5))
    refused(adapter.folder, 3, "8 of its 20 tensors", "layers.3", "more layers")
    alone = trained(lora(layers_to_transform=[4]), tmp_path / "b", llama(num_hidden_layers=5))
    refused(alone.folder, 2, "does not fit base")


def test_shapes_of_a_wider_base_are_both_named(tmp_path: Path) -> None:
    adapter = trained(lora(), tmp_path / "a", llama(hidden_size=64, head_dim=16))
    refused(adapter.folder, 3, "[64, 4]", "[48, 4]", "down_proj.lora_B")


@pytest.mark.parametrize("entries", [
    {"modules_to_save": ["embed_tokens", "lm_head"]}, {"target_modules": ["embed_tokens", "q_proj"]},
    {"target_modules": ["lm_head"]}, {"modules_to_save": ["lm_head"]},
], ids=str)  # fmt: skip
def test_a_resized_vocabulary_is_refused_and_said(entries: dict[str, Any], tmp_path: Path) -> None:
    adapter = trained(lora(**entries), tmp_path / "a", llama(vocab_size=toy.VOCAB + 2))
    refused(adapter.folder, 3, str(toy.VOCAB + 2), str(toy.VOCAB), "vocabulary was resized")


def test_an_embedding_saved_beside_the_adapter_is_taken(tmp_path: Path) -> None:
    """``save_embedding_layers=True`` writes base's rows too; where they differ from base's they count."""
    name = "base_model.model.model.embed_tokens.weight"
    model = toy.model("llama")
    rows: Tensor = model.get_input_embeddings().weight.detach()  # type: ignore[operator]
    rows[7:9] += 1.0
    adapter = trained(lora(), tmp_path / "a", model)
    folder = rewritten(adapter.folder, tmp_path / "b", lambda tensors: tensors | {name: rows})
    assert gap(opened(folder), adapter.logits) < 1e-5
    refused(rewritten(adapter.folder, tmp_path / "c", lambda t: t | {name: torch.cat([rows, rows[:2]])}), 3, "resized")


@pytest.mark.parametrize(("name", "cause"), [
    ("base_model.model.score.weight", "another task"),
    ("base_model.model.model.layers.0.mlp.experts.1.down_proj.lora_A.weight", "experts"),
    ("base_model.model.model.layers.0.self_attn.k_proj.lora_A.weight", "other ones"),
])  # fmt: skip
def test_a_tensor_too_many_is_refused_with_its_likely_cause(name: str, cause: str, tmp_path: Path) -> None:
    folder = rewritten(plain().folder, tmp_path / "a", lambda tensors: tensors | {name: torch.ones(4, 48)})
    refused(folder, 3, name, cause)


def test_an_empty_file_is_refused(tmp_path: Path) -> None:
    refused(rewritten(plain().folder, tmp_path / "a", lambda _: {}), 3, "12 places")


def test_modules_that_base_has_not_and_layers_that_peft_cannot_adapt_end_as_sentences(tmp_path: Path) -> None:
    refused(configured(plain().folder, tmp_path / "a", target_modules=["Wqkv"]), 2, "does not fit base", "Wqkv")
    refused(plain().folder, 2, "does not fit base", family="gpt2")


def test_a_bias_that_base_has_no_place_for_ends_as_a_sentence(tmp_path: Path) -> None:
    adapter = trained(lora(lora_bias=True), tmp_path / "a", toy.model("llama"))
    refused(adapter.folder, 2, "cannot be merged", "bias")


def test_entries_that_the_installed_peft_would_leave_out_are_refused(tmp_path: Path) -> None:
    refused(configured(plain().folder, tmp_path / "a", use_tomorrow=True), 2, "use_tomorrow")
    assert gap(opened(configured(plain().folder, tmp_path / "b", use_tomorrow=None)), plain().logits) < 1e-5


STAMPS: tuple[dict[str, Any], ...] = (
    {"unsloth_version": "2025.3"}, {"axolotl_config_path": "a.yml"}, {"_name_or_path": "x/y"}, {"tags": ["lora"]},
    {"transformers_version": "4.51.0"}, {"rank_pattern": None, "alpha_pattern": None},
)  # fmt: skip


@pytest.mark.parametrize("entries", STAMPS)
def test_stamps_of_tools_and_null_tables_do_not_keep_an_adapter_shut(entries: dict[str, Any], tmp_path: Path) -> None:
    assert gap(opened(configured(plain().folder, tmp_path / "a", **entries)), plain().logits) < 1e-5


def test_a_quantised_base_is_refused() -> None:
    model = toy.model("llama")
    model.is_quantized = True  # type: ignore[attr-defined]
    with pytest.raises(AuditError, match="quantised") as caught:
        merged(model, plain().folder)
    assert caught.value.code == 2


# ---- nothing, or something else ---------------------------------------------------------------------------------
@pytest.mark.parametrize("kind", ["plain", "head and embedding whole", "scaling", "tokens"])
def test_an_adapter_that_changes_nothing_is_refused(kind: str, tmp_path: Path) -> None:
    family, config = KINDS[kind]
    refused(trained(config(), tmp_path / "a", toy.model(family), size=0.0).folder, 2, "changes no byte", family=family)


def test_a_whole_module_beside_zeros_is_a_change(tmp_path: Path) -> None:
    def without_pairs(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        return {name: tensor * (0 if "lora_B" in name else 1) for name, tensor in tensors.items()}

    folder = rewritten(with_head().folder, tmp_path / "a", without_pairs)
    assert gap(opened(folder), with_head().base) > 1e-3


def test_an_update_lost_in_rounding_is_refused_and_one_half_lost_is_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    model = toy.model("llama", dtype=torch.bfloat16)
    tiny = rewritten(plain().folder, tmp_path / "a", lambda tensors: {n: t * 1e-5 for n, t in tensors.items()})
    with pytest.raises(AuditError, match="changes no byte of base as bfloat16") as caught:
        merged(model, tiny)
    assert caught.value.code == 2
    small = rewritten(plain().folder, tmp_path / "b", lambda tensors: {n: t * 0.08 for n, t in tensors.items()})
    with caplog.at_level(logging.WARNING, logger="audit"):
        merged(toy.model("llama", dtype=torch.bfloat16), small)
    assert "use float32" in caplog.text


def test_a_pair_that_peft_forgets_to_merge_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    from peft.tuners.lora.layer import Linear

    def forgetful(layer: Any, *_: object, **__: object) -> None:
        layer.merged_adapters.append("default")

    monkeypatch.setattr(Linear, "merge", forgetful)
    refused(plain().folder, 3, "is not scale * B @ A", "layers.0.self_attn.q_proj")


def test_a_merge_that_gives_another_model_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from peft.tuners.ia3.layer import Linear

    adapter = trained(KINDS["scaling"][1](), tmp_path / "a", toy.model("llama"))
    merge = Linear.merge

    def wrong(layer: Any, *args: Any, **kwargs: Any) -> None:
        merge(layer, *args, **kwargs)
        layer.get_base_layer().weight.data *= 1.01

    monkeypatch.setattr(Linear, "merge", wrong)
    refused(adapter.folder, 3, "from those with the adapter beside it")


def test_a_tensor_that_peft_leaves_out_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    load = peft.set_peft_model_state_dict

    def careless(model: Any, tensors: dict[str, Tensor], **kwargs: Any) -> Any:
        return load(model, {n: t for n, t in tensors.items() if "layers.1" not in n}, **kwargs)

    monkeypatch.setattr(peft, "set_peft_model_state_dict", careless)
    refused(plain().folder, 3, "4 tensors do not arrive", "layers.1")


# ---- the kind of fault ------------------------------------------------------------------------------------------
PARTS = ("base_model", "model", "module", "_orig_mod", "default", "layers", "transformer", "language_model", "0")


@st.composite
def manglings(draw: st.DrawFn) -> Callable[[dict[str, Tensor]], dict[str, Tensor]]:
    """Parts of names cut out and put in, for all tensors or for some, and tensors left out."""
    at, cut, parts_put = draw(st.integers(0, 5)), draw(st.integers(0, 3)), st.lists(st.sampled_from(PARTS), max_size=3)
    put = draw(parts_put)
    who = draw(st.sampled_from(("", "", "layers.1", "lora_B", "q_proj", "layers.0.mlp", "lm_head")))
    lost = draw(st.sampled_from(("-", "-", "-", "layers.2", "lora_A", "lm_head")))

    def change(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        out: dict[str, Tensor] = {}
        for name, tensor in tensors.items():
            parts = name.split(".")
            if who in name:
                parts[at : at + cut] = put
            if lost not in name:
                out[".".join(parts)] = tensor
        return out

    return change


@pytest.mark.thorough
@settings(max_examples=120, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
@given(change=manglings(), head=st.booleans())
def test_a_mangled_adapter_is_the_right_model_or_refused(
    change: Callable[[dict[str, Tensor]], dict[str, Tensor]], head: bool, tmp_path_factory: pytest.TempPathFactory
) -> None:
    adapter = with_head() if head else plain()
    folder = rewritten(adapter.folder, tmp_path_factory.mktemp("mangled") / "a", change)
    try:
        model = merged(toy.model("llama"), folder)
    except AuditError as error:
        assert error.code == 3
        assert load_file(folder / WEIGHTS).keys() != load_file(adapter.folder / WEIGHTS).keys()
    else:
        assert gap(logits(model), adapter.logits) < 1e-5
