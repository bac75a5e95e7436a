"""Rounding of fused experts and bare matrices, counted against all weights of the blocks."""

from pathlib import Path

import pytest
import torch
import transformers
from torch import Tensor, nn

from audit.bench import Bench, CausalLearner
from audit.edits import Coverage, EditData, Quantise, coverage, matrices
from audit.edits.quantise import round_to_nearest
from audit.schema import Missing
from probes.quantisation_recovery import LEVEL, RISE, QuantisationRecovery
from tests import expert_toy, toy

DATA = EditData(toy.rows(4, seed=1), toy.rows(4, seed=2))
MAMBA = transformers.MambaConfig(
    vocab_size=toy.VOCAB, hidden_size=32, state_size=16, num_hidden_layers=2, pad_token_id=0
)  # fmt: skip
LLAMA4 = transformers.Llama4TextConfig(num_local_experts=4, head_dim=8, intermediate_size_mlp=48, **expert_toy.SMALL)
RECURRENT = transformers.RecurrentGemmaConfig(
    vocab_size=toy.VOCAB, hidden_size=32, intermediate_size=64, num_hidden_layers=3, num_attention_heads=4,
    lru_width=32, head_dim=8, pad_token_id=0,
)  # fmt: skip


def fresh(config: transformers.PreTrainedConfig) -> transformers.PreTrainedModel:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = transformers.AutoModelForCausalLM.from_config(config).eval()
        for parameter in model.parameters():
            if parameter.ndim == 3 and not bool(parameter.any()):
                nn.init.normal_(parameter, std=0.1)
    return model


def counted_share(model: transformers.PreTrainedModel, before: dict[str, Tensor]) -> float:
    """Entries of all weights in numbered layers, norms and biases aside: of which tensors do any differ?"""
    inside = {
        name: p for name, p in model.named_parameters()
        if "layers." in name and p.ndim > 1 and not name.endswith("bias")
    }  # fmt: skip
    changed = sum(p.numel() for name, p in inside.items() if not torch.equal(p, before[name]))
    return changed / sum(p.numel() for p in inside.values())


@pytest.mark.parametrize("family", expert_toy.FAMILIES)
def test_every_expert_and_router_is_rounded_and_every_slice_changes(family: str) -> None:
    model = expert_toy.model(family)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    assert coverage(CausalLearner(model)) == Coverage(1.0, ())
    Quantise(bits=3, group=16).apply(CausalLearner(model), DATA)
    assert counted_share(model, before) == 1
    for name, parameter in model.named_parameters():
        if parameter.ndim == 3:
            assert all(not torch.equal(own, old) for own, old in zip(parameter, before[name], strict=True))


@pytest.mark.parametrize(("family", "turned"), [("mixtral", False), ("qwen2_moe", False), ("gpt_oss", True)])
def test_scales_of_an_expert_go_along_its_inputs(family: str, turned: bool) -> None:
    """The down-projection reads hidden units and writes the stream, whichever axis comes first in the file."""
    model = expert_toy.model(family)
    stored = model.get_parameter("model.layers.1.mlp.experts.down_proj").detach().clone()
    assert stored.shape[2 if turned else 1] == model.config.hidden_size
    Quantise(bits=4, group=8).apply(CausalLearner(model), DATA)
    live = model.get_parameter("model.layers.1.mlp.experts.down_proj").detach()
    for own, old in zip(live, stored, strict=True):
        wanted = round_to_nearest(old.T if turned else old, 4, 8).values
        assert torch.equal(own.T if turned else own, wanted)


@pytest.mark.parametrize(("config", "turned", "names"), [
    (LLAMA4, True, {"gate_up_proj", "down_proj"}),
    (RECURRENT, True, {"input_gate_weight", "recurrent_gate_weight"}),
], ids=["llama4", "recurrent gemma"])  # fmt: skip
def test_tensors_whose_class_says_nothing_are_told_by_the_product_they_stand_in(
    config: transformers.PreTrainedConfig, turned: bool, names: set[str]
) -> None:
    fused = [m for m in matrices(CausalLearner(fresh(config))) if m.expert is not None]
    assert {m.path.rpartition(".")[2] for m in fused} == names
    assert {m.transposed for m in fused} == {turned}


def test_what_multiplies_no_state_stays_and_the_record_says_which_share_was_rounded(tmp_path: Path) -> None:
    model = fresh(MAMBA)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    found = coverage(CausalLearner(model))
    edit = Quantise(bits=3, group=16)
    edit.apply(CausalLearner(model), DATA)
    assert found.share == pytest.approx(counted_share(model, before)) and 0.8 < found.share < 1
    assert {name.rpartition("mixer.")[2] for name in found.left} == {"A_log", "conv1d.weight"}
    assert "% of the weights of the blocks are rounded; not: " in found.sentence and found.sentence.count("A_log") == 1
    assert edit.noted(CausalLearner(model)) == {"share of the weights of the blocks": found.share}
    assert edit.noted(CausalLearner(expert_toy.model("gpt_oss"))) == {}


def test_a_rounded_mixture_is_written_and_played_back(tmp_path: Path) -> None:
    bench, start = Bench(), expert_toy.checkpoint("mixtral")
    rounded = Quantise(bits=3, group=16).fit(bench, start, DATA, tmp_path / "rounded")
    live = expert_toy.model("mixtral")
    Quantise(bits=3, group=16).apply(CausalLearner(live), DATA)
    played = bench.open(rounded).parameters()
    assert all(torch.equal(played[name], p) for name, p in live.named_parameters())
    assert "share of the weights of the blocks" not in rounded.edits[-1].settings


@pytest.mark.thorough
def test_an_attack_that_reached_too_few_weights_is_inconclusive_and_states_the_share(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from tests.probes.test_quantisation_recovery import bench, opened

    probe = QuantisationRecovery()
    whole = probe.measure(bench(), opened("clean"))
    left = tuple(f"model.layers.{n}.mlp.experts.down_proj" for n in range(3))
    for share in (0.2, 0.95):
        monkeypatch.setattr("probes.quantisation_recovery.coverage", lambda _, share=share: Coverage(share, left))
        for ours, naming, full in zip(probe.measure(bench(), opened("clean")), (LEVEL, RISE), whole, strict=True):
            assert ours.readings["share_of_block_weights"] == share and ours.name == naming.name
            if share < 0.9:
                assert isinstance(ours.value, Missing) and isinstance(ours.p, Missing)
                assert "20 % of the weights of the blocks are rounded; not: model.layers.*.mlp" in ours.value.missing
            else:
                assert ours.value == full.value and any("95 % of the weights" in note for note in ours.notes)
