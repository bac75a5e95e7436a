"""Every tensor of the files is used as it is, named as of no use, or refused."""

import json
import shutil
from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, DeepseekV3Config, MixtralConfig, Qwen2MoeConfig

from audit.checkpoints import resolve
from audit.schema import AuditError, Source
from audit.wrappers.accounting import account, unused_tensors
from audit.wrappers.families.causal_lm import load_folder
from tests import toy

Weights = dict[str, torch.Tensor]
SMALL = {
    "vocab_size": 60, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "num_experts_per_tok": 2,
}  # fmt: skip
FUSED = {
    "mixtral": MixtralConfig(num_local_experts=4, **SMALL),
    "qwen2_moe": Qwen2MoeConfig(num_experts=4, moe_intermediate_size=24, shared_expert_intermediate_size=24, **SMALL),
    "deepseek_v3": DeepseekV3Config(
        n_routed_experts=4, n_group=2, topk_group=1, q_lora_rank=8, kv_lora_rank=8, qk_rope_head_dim=4,
        qk_nope_head_dim=4, v_head_dim=8, first_k_dense_replace=1, moe_intermediate_size=24, **SMALL,
    ),
}  # fmt: skip


@cache
def folder_of_experts(family: str) -> Path:
    out = toy.root() / f"experts-{family}"
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        AutoModelForCausalLM.from_config(FUSED[family]).save_pretrained(out)
    return out


def copy(out: Path, family: str) -> Path:
    return Path(shutil.copytree(folder_of_experts(family) if family in FUSED else toy.folder(family), out))


def rewrite(folder: Path, change: Callable[[Weights], object]) -> Weights:
    weights = {name: tensor.clone() for name, tensor in load_file(folder / "model.safetensors").items()}
    change(weights)
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    return weights


def logits(folder: Path) -> torch.Tensor:
    with torch.inference_mode():
        return load_folder(folder, torch.float32, "default")(torch.arange(4, 12)[None]).logits


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("family", [*toy.FAMILIES, *FUSED])
def test_a_folder_as_it_was_saved_is_accounted_for(tmp_path: Path, family: str, dtype: torch.dtype) -> None:
    folder = copy(tmp_path / "model", family)
    assert account(load_folder(folder, dtype, "default"), folder) == ()
    assert unused_tensors(resolve(Source(path=str(folder)), tmp_path)) == ()


@pytest.mark.sampled
@pytest.mark.parametrize("family", [*toy.FAMILIES, *FUSED])
@given(data=st.data())
@settings(max_examples=8, deadline=None, suppress_health_check=list(HealthCheck))
def test_one_element_of_any_parameter_that_is_not_the_files_is_found(
    tmp_path_factory: pytest.TempPathFactory, family: str, data: st.DataObject
) -> None:
    folder = folder_of_experts(family) if family in FUSED else toy.folder(family)
    model = load_folder(folder, torch.float32, "default")
    name, parameter = data.draw(st.sampled_from(sorted(model.named_parameters())))
    place = data.draw(st.integers(0, parameter.numel() - 1))
    with torch.no_grad():
        parameter.view(-1)[place] += 0.5
    with pytest.raises(AuditError) as caught:
        account(model, folder)
    assert caught.value.code == 3


# ---- extra, duplicate and renamed tensors ------------------------------------------------------------------------
def causal(n: int = 8) -> torch.Tensor:
    return torch.ones(1, 1, n, n).tril()


def frequencies(dim: int = 12, theta: float = 10000.0) -> torch.Tensor:
    return 1.0 / theta ** (torch.arange(0, dim, 2).float() / dim)


OF_NO_USE: dict[str, tuple[str, Callable[[], Weights]]] = {
    "rotary": ("llama", lambda: {"model.layers.0.self_attn.rotary_emb.inv_freq": frequencies()}),
    "rotary in half precision": (
        "llama", lambda: {"model.layers.0.self_attn.rotary_emb.inv_freq": frequencies().to(torch.float16)},
    ),
    "masks of GPT-2": (
        "gpt2", lambda: {f"h.{n}.attn.bias": causal() for n in range(3)} | {"h.0.attn.masked_bias": torch.tensor(-1e4)},
    ),
    "masks of NeoX": ("gpt_neox", lambda: {"gpt_neox.layers.1.attention.bias": causal().bool()}),
    "positions": ("llama", lambda: {"model.position_ids": torch.arange(64)[None]}),
    "a value head": ("llama", lambda: {"v_head.summary.weight": torch.ones(1, 48)}),
    "a further prediction head": ("deepseek_v3", lambda: {"model.layers.61.eh_proj.weight": torch.ones(4, 4)}),
}  # fmt: skip
REFUSED: dict[str, tuple[str, Callable[[], Weights]]] = {
    "other frequencies": ("llama", lambda: {"model.rotary_emb.inv_freq": frequencies(theta=5e5)}),
    "frequencies that are counts": ("llama", lambda: {"model.rotary_emb.inv_freq": torch.arange(6)}),
    "a mask that is a bias": ("gpt2", lambda: {"h.0.attn.bias": causal() * 0.5}),
    "a mask that sees ahead": ("gpt2", lambda: {"h.0.attn.bias": torch.ones(1, 1, 8, 8)}),
    "positions in another order": ("llama", lambda: {"model.position_ids": torch.arange(64).flip(0)}),
    "a bias without a place": ("llama", lambda: {"model.layers.0.self_attn.q_proj.bias": torch.ones(48)}),
    "a bias of the head": ("llama", lambda: {"lm_head.bias": torch.ones(toy.VOCAB)}),
    "a layer more": ("llama", lambda: {"model.layers.3.input_layernorm.weight": torch.ones(48)}),
    "a scale": ("llama", lambda: {"model.layers.0.mlp.up_proj.weight_scale_inv": torch.ones(1, 1)}),
    "a LoRA pair": ("llama", lambda: {"model.layers.0.self_attn.q_proj.lora_A.weight": torch.ones(2, 48)}),
    "another wrapper's prefix": ("llama", lambda: {"_orig_mod.model.norm.weight": torch.ones(48)}),
    "an old and a new name": ("llama", lambda: {"norm.weight": torch.ones(48)}),
}  # fmt: skip


@pytest.mark.parametrize("case", OF_NO_USE)
def test_tables_that_a_model_computes_by_itself_are_named_and_change_nothing(
    tmp_path: Path, case: str, caplog: pytest.LogCaptureFixture
) -> None:
    family, extra = OF_NO_USE[case]
    folder = copy(tmp_path / "model", family)
    before = logits(folder)
    rewrite(folder, lambda w: w.update(extra()))
    assert torch.equal(logits(folder), before)
    assert all(name in caplog.text for name in extra())
    assert unused_tensors(resolve(Source(path=str(folder)), tmp_path)) == tuple(sorted(extra()))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("theta", [1e4, 5e5, 1e7])
@pytest.mark.parametrize("factor", [1.0, 4.0])
def test_frequencies_of_older_files_are_known_in_every_precision_and_before_positions_were_stretched(
    tmp_path: Path, dtype: torch.dtype, theta: float, factor: float
) -> None:
    folder = copy(tmp_path / "model", "llama")
    config = json.loads((folder / "config.json").read_text())
    rope = {"rope_type": "linear" if factor > 1 else "default", "factor": factor, "rope_theta": theta}
    (folder / "config.json").write_text(json.dumps(config | {"rope_parameters": rope}))
    before, name = logits(folder), "model.layers.0.self_attn.rotary_emb.inv_freq"
    rewrite(folder, lambda w: w.update({name: frequencies(theta=theta).to(dtype)}))
    assert torch.equal(logits(folder), before)
    rewrite(folder, lambda w: w.update({name: (frequencies(theta=theta) * 2).to(dtype)}))
    with pytest.raises(AuditError, match="inv_freq"):
        load_folder(folder, torch.float32, "default")


def test_the_smallest_frequencies_of_half_precision_are_rounded_and_known(tmp_path: Path) -> None:
    folder = copy(tmp_path / "model", "llama")
    config = json.loads((folder / "config.json").read_text())
    rope = {"rope_type": "default", "rope_theta": 1e10}
    (folder / "config.json").write_text(json.dumps(config | {"rope_parameters": rope}))
    table = frequencies(theta=1e10)
    assert float((table.half().float() - table).abs().div(table).max()) > 0.02, "rounded by more than the usual slack"
    rewrite(folder, lambda w: w.update({"model.rotary_emb.inv_freq": table.half()}))
    load_folder(folder, torch.float32, "default")


@pytest.mark.parametrize("case", REFUSED)
def test_tensors_that_the_model_should_use_and_does_not_are_refused(tmp_path: Path, case: str) -> None:
    family, extra = REFUSED[case]
    folder = copy(tmp_path / "model", family)
    rewrite(folder, lambda w: w.update(extra()))
    with pytest.raises(AuditError) as caught:
        load_folder(folder, torch.float32, "default")
    assert caught.value.code == 3
    if case != "an old and a new name":
        assert next(iter(extra())) in caught.value.what


@pytest.mark.thorough
@given(st.sampled_from(["llama", "gpt2", "mixtral"]), st.data())
@settings(max_examples=30, deadline=None, suppress_health_check=list(HealthCheck))
def test_a_tensor_under_a_further_name_is_refused_or_of_no_use(
    tmp_path_factory: pytest.TempPathFactory, family: str, data: st.DataObject
) -> None:
    """Prefixes more and less, doubled names, layers that are not there: nothing of them may reach the logits."""
    folder = copy(tmp_path_factory.mktemp("renamed") / "model", family)
    before = logits(folder)
    names = sorted(load_file(folder / "model.safetensors"))
    old = data.draw(st.sampled_from(names))
    head, _, rest = old.partition(".")
    new = data.draw(st.sampled_from([rest, f"{head}.{old}", f"module.{old}", f"{old}_1", old.replace(".0.", ".7.")]))
    if new in names or not new:
        return
    rewrite(folder, lambda w: w.update({new: w[old] + 1}))
    try:
        assert torch.equal(logits(folder), before)
    except AuditError as error:
        assert error.code == 3


@pytest.mark.parametrize(
    ("family", "prefix"), [("llama", "model."), ("gpt2", "transformer."), ("gpt_neox", "gpt_neox.")]
)
def test_a_base_model_without_its_prefix_opens_as_the_same_model(tmp_path: Path, family: str, prefix: str) -> None:
    folder = copy(tmp_path / "model", family)
    before = logits(folder)
    rewrite(folder, lambda w: [w.update({n.removeprefix(prefix): w.pop(n)}) for n in list(w)])
    assert torch.equal(logits(folder), before)


@pytest.mark.parametrize("family", sorted(FUSED))
def test_experts_under_the_names_of_older_files_open_as_the_same_model(tmp_path: Path, family: str) -> None:
    weights = load_file(folder_of_experts(family) / "model.safetensors")
    assert any(".experts.3." in name for name in weights), "one tensor an expert"
    rewrite(copy(tmp_path / "model", family), lambda w: [v.add_(1) for n, v in w.items() if ".experts.3." in n])
    assert not torch.equal(logits(tmp_path / "model"), logits(folder_of_experts(family)))


# ---- ties --------------------------------------------------------------------------------------------------------
def test_a_head_of_its_own_under_a_config_that_ties_it_is_used(tmp_path: Path) -> None:
    folder = copy(tmp_path / "model", "qwen2")
    tied = logits(folder)
    weights = rewrite(folder, lambda w: w.update({"lm_head.weight": w["model.embed_tokens.weight"] * 2}))
    model = load_folder(folder, torch.float32, "default")
    assert torch.equal(model.get_output_embeddings().weight, weights["lm_head.weight"])
    assert torch.allclose(logits(folder), tied * 2, rtol=1e-4, atol=1e-5)


def test_a_tied_head_may_lie_in_the_file_twice_or_under_the_heads_name_alone(tmp_path: Path) -> None:
    folder = copy(tmp_path / "model", "qwen2")
    before = logits(folder)
    rewrite(folder, lambda w: w.update({"lm_head.weight": w["model.embed_tokens.weight"].clone()}))
    assert torch.equal(logits(folder), before)
    rewrite(folder, lambda w: w.pop("model.embed_tokens.weight"))
    assert torch.equal(logits(folder), before)


def test_a_head_that_a_config_forgets_to_tie_is_missing(tmp_path: Path) -> None:
    folder = copy(tmp_path / "model", "qwen2")
    config = folder / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"tie_word_embeddings": False}))
    with pytest.raises(AuditError, match="lacks 1 tensors") as caught:
        load_folder(folder, torch.float32, "default")
    assert caught.value.code == 3


def test_a_rule_of_the_library_that_brings_in_other_values_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from transformers import LlamaForCausalLM

    def retied(self: LlamaForCausalLM, *args: object, **kwargs: object) -> None:
        with torch.no_grad():
            self.lm_head.weight.copy_(self.model.embed_tokens.weight)

    monkeypatch.setattr(LlamaForCausalLM, "tie_weights", retied)
    with pytest.raises(AuditError, match=r"does not hold the values of tensor 'lm_head\.weight'"):
        load_folder(copy(tmp_path / "model", "llama"), torch.float32, "default")


def test_what_no_file_holds_and_the_library_does_not_miss_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from transformers import LlamaForCausalLM

    monkeypatch.setattr(LlamaForCausalLM, "_keys_to_ignore_on_load_missing", [r"norm\.weight"])
    folder = copy(tmp_path / "model", "llama")
    rewrite(folder, lambda w: w.pop("model.norm.weight"))
    with pytest.raises(AuditError, match=r"do not come from its files.*model\.norm\.weight"):
        load_folder(folder, torch.float32, "default")
