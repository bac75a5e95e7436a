"""Adapters of models with fused experts: every pair of the file is in the weights, or the adapter is refused."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import AutoModelForCausalLM, PreTrainedModel

from audit.schema import AuditError
from audit.wrappers.adapters import merged
from tests import expert_toy, toy
from tests.wrappers.test_adapters import CONFIG, WEIGHTS, configured, gap, logits, lora, rewritten, trained

RANK, ALPHA = 4, 8
MLP = {
    "mixtral": ("w1", "w2", "w3"), "qwen2_moe": ("gate_proj", "up_proj", "down_proj"),
    "deepseek_v3": ("gate_proj", "up_proj", "down_proj"),
}  # fmt: skip
split = pytest.mark.parametrize("family", expert_toy.SPLIT)


def targets(family: str) -> dict[str, Tensor]:
    """The matrices in the file that an adapter of all MLPs and of attention's output changes, by layer."""
    stored = load_file(expert_toy.folder(family) / "model.safetensors")
    names = "|".join((*MLP[family], "o_proj"))
    return {n.removesuffix(".weight"): t for n, t in stored.items() if re.search(rf"\.({names})\.weight$", n)}


def per_expert(family: str, out: Path, **entries: Any) -> Path:
    """An adapter as it was trained when every expert was a layer of its own."""
    rng, pairs = torch.Generator().manual_seed(5), dict[str, Tensor]()
    for layer, weight in targets(family).items():
        for end, shape in (("A", (RANK, weight.shape[1])), ("B", (weight.shape[0], RANK))):
            pairs[f"base_model.model.{layer}.lora_{end}.weight"] = 0.2 * torch.randn(shape, generator=rng)
    settings = {
        "peft_type": "LORA", "task_type": "CAUSAL_LM", "r": RANK, "lora_alpha": ALPHA,
        "target_modules": [*MLP[family], "o_proj"], "base_model_name_or_path": "x",
    }  # fmt: skip
    out.mkdir(parents=True)
    (out / CONFIG).write_text(json.dumps(settings | entries))
    save_file(pairs, out / WEIGHTS)
    return out


def by_hand(family: str, adapter: Path, scale: Callable[[str], float], out: Path) -> Tensor:
    """Logits of a folder in whose file scale * B @ A was added to each tensor by its name."""
    stored, pairs = load_file(expert_toy.folder(family) / "model.safetensors"), load_file(adapter / WEIGHTS)
    for layer in targets(family):
        a, b = (pairs[f"base_model.model.{layer}.lora_{end}.weight"] for end in "AB")
        stored[f"{layer}.weight"] = stored[f"{layer}.weight"] + scale(layer) * (b @ a)
    out.mkdir()
    (out / "config.json").write_bytes((expert_toy.folder(family) / "config.json").read_bytes())
    save_file(stored, out / "model.safetensors", {"format": "pt"})
    return logits(AutoModelForCausalLM.from_pretrained(out).eval())


def base(family: str) -> PreTrainedModel:
    return AutoModelForCausalLM.from_pretrained(expert_toy.folder(family)).eval()


# ---- one pair an expert -----------------------------------------------------------------------------------------
@split
def test_one_pair_an_expert_is_what_adding_them_to_the_files_tensors_gives(family: str, tmp_path: Path) -> None:
    """Routed, shared and dense layers and attention alike: PEFT would leave out some of them and say nothing."""
    adapter = per_expert(family, tmp_path / "a")
    inside = logits(merged(base(family), adapter))
    assert gap(inside, by_hand(family, adapter, lambda _: ALPHA / RANK, tmp_path / "m")) < 1e-5
    assert gap(inside, logits(base(family))) > 1e-2


def test_ranks_and_patterns_of_alpha_scale_each_pair(tmp_path: Path) -> None:
    patterns = {"layers.1.mlp.experts.2.up_proj": 32, "shared_expert.down_proj": 16}
    adapter = per_expert("qwen2_moe", tmp_path / "a", alpha_pattern=patterns, use_rslora=True)

    def scale(layer: str) -> float:
        return next((v for key, v in patterns.items() if layer.endswith(key)), ALPHA) / RANK**0.5

    assert gap(logits(merged(base("qwen2_moe"), adapter)), by_hand("qwen2_moe", adapter, scale, tmp_path / "m")) < 1e-5


def test_weights_in_half_precision_hold_the_pairs_to_their_rounding(tmp_path: Path) -> None:
    adapter = per_expert("mixtral", tmp_path / "a")
    half = merged(base("mixtral").to(torch.bfloat16), adapter)
    whole = merged(base("mixtral"), adapter)
    name = "model.layers.1.mlp.experts.gate_up_proj"
    wanted = whole.get_parameter(name)
    torch.testing.assert_close(half.get_parameter(name).float(), wanted, atol=4e-3, rtol=1e-2)


def test_an_update_that_half_precision_loses_is_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    adapter = per_expert("mixtral", tmp_path / "a")
    small = rewritten(adapter, tmp_path / "b", lambda t: {n: 0.01 * x for n, x in t.items()})
    merged(base("mixtral").to(torch.bfloat16), adapter)
    assert "rounds off" not in caplog.text
    merged(base("mixtral").to(torch.bfloat16), small)
    assert "rounds off" in caplog.text


@split
def test_a_pair_too_few_or_too_many_is_refused_by_name(family: str, tmp_path: Path) -> None:
    adapter = per_expert(family, tmp_path / "a")
    layer = next(name for name in targets(family) if ".experts.3." in name)
    gone = rewritten(adapter, tmp_path / "b", lambda t: {n: x for n, x in t.items() if f"{layer}.lora" not in n})
    extra = {
        f"base_model.model.{layer.replace('experts.3', 'experts.9')}.lora_{end}.weight": torch.ones(4, 4)
        for end in "AB"
    }
    more = rewritten(adapter, tmp_path / "c", lambda t: t | extra)
    for folder, words in (
        (gone, f"1 places that its config names get no pair.*{layer}"),
        (more, "no place.*experts.9"),
    ):
        with pytest.raises(AuditError, match=words) as caught:
            merged(base(family), folder)
        assert caught.value.code == 3


def test_half_a_pair_another_shape_and_other_kinds_on_experts_are_refused(tmp_path: Path) -> None:
    adapter = per_expert("qwen2_moe", tmp_path / "a")
    name = next(n for n in load_file(adapter / WEIGHTS) if ".experts.1." in n and "lora_B" in n)
    half = rewritten(adapter, tmp_path / "b", lambda t: {n: x for n, x in t.items() if n != name})
    shape = rewritten(adapter, tmp_path / "c", lambda t: t | {name: t[name][:-1]})
    for folder, code, words in (
        (half, 2, "only plain pairs on experts"), (shape, 3, "its place in base"),
        (configured(adapter, tmp_path / "d", use_dora=True), 2, "with use_dora"),
        (configured(adapter, tmp_path / "e", peft_type="LOHA"), 2, "as LOHA"),
    ):  # fmt: skip
        with pytest.raises(AuditError, match=words) as caught:
            merged(base("qwen2_moe"), folder)
        assert caught.value.code == code


def test_an_adapter_of_zeros_is_refused(tmp_path: Path) -> None:
    adapter = per_expert("mixtral", tmp_path / "a")
    zeros = rewritten(adapter, tmp_path / "b", lambda t: {n: 0 * x for n, x in t.items()})
    with pytest.raises(AuditError, match="changes no byte of base"):
        merged(base("mixtral"), zeros)


def test_a_change_that_does_not_arrive_is_an_integrity_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from audit.wrappers import adapter_experts

    monkeypatch.setattr(adapter_experts._Split, "put", lambda self, matrices: None)
    with pytest.raises(AuditError, match="merged - base is not scale") as caught:
        merged(base("mixtral"), per_expert("mixtral", tmp_path / "a"))
    assert caught.value.code == 3


# ---- as PEFT writes them now ------------------------------------------------------------------------------------
@pytest.mark.parametrize("family", expert_toy.FAMILIES)
@pytest.mark.parametrize("which", ["both", "down", "up"])
def test_whole_tensors_of_experts_are_merged_as_peft_runs_them(family: str, which: str, tmp_path: Path) -> None:
    names = [f"mlp.experts.{name}" for name in ("gate_up_proj", "down_proj") if which in ("both", *name.split("_"))]
    config = lora(target_modules=["o_proj"], target_parameters=names)
    adapter = trained(config, tmp_path / "a", expert_toy.model(family))
    assert any(".experts.lora_A" in name for name in load_file(adapter.folder / WEIGHTS))
    inside = logits(merged(expert_toy.model(family), adapter.folder))
    assert gap(inside, adapter.logits) < 1e-5 < gap(inside, adapter.base)


@split
def test_a_fresh_adapter_of_all_mlps_is_what_peft_made_of_it(family: str, tmp_path: Path) -> None:
    """PEFT turns the targets into those of fused tensors (with ranks and alphas of their own) when it attaches."""
    adapter = trained(lora(target_modules=[*MLP[family], "q_proj", "o_proj"]), tmp_path / "a", expert_toy.model(family))
    fused = json.loads((adapter.folder / CONFIG).read_text())["target_parameters"]
    assert bool(fused) == (family != "qwen2_moe"), "there the routed experts are left out"
    assert gap(logits(merged(expert_toy.model(family), adapter.folder)), adapter.logits) < 1e-5


def test_a_whole_tensor_that_its_config_names_and_its_file_lacks_is_refused(tmp_path: Path) -> None:
    config = lora(target_modules=["o_proj"], target_parameters=["mlp.experts.down_proj"])
    adapter = trained(config, tmp_path / "a", expert_toy.model("gpt_oss"))
    named = configured(adapter.folder, tmp_path / "b", target_parameters=["experts.down_proj", "experts.gate_up_proj"])
    with pytest.raises(
        AuditError, match=r"2 places that its config names get no pair \(first: model.layers.0.mlp.experts.gate_up"
    ):
        merged(expert_toy.model("gpt_oss"), named)


def test_adapters_of_attention_are_merged_in_models_with_experts(tmp_path: Path) -> None:
    for n, entries in enumerate(({}, {"use_dora": True}, {"modules_to_save": ["lm_head"]})):
        adapter = trained(
            lora(target_modules=["q_proj", "o_proj"], **entries), tmp_path / f"{n}", expert_toy.model("qwen2_moe")
        )
        assert gap(logits(merged(expert_toy.model("qwen2_moe"), adapter.folder)), adapter.logits) < 1e-5


def test_bare_parameters_of_a_model_without_experts_are_refused(tmp_path: Path) -> None:
    adapter = trained(lora(), tmp_path / "a", toy.model("llama"))
    folder = configured(adapter.folder, tmp_path / "b", target_parameters=["mlp.gate_up_proj"])
    with pytest.raises(AuditError, match="target_parameters adapts bare parameters, and base has no fused experts"):
        merged(toy.model("llama"), folder)
