"""The value vectors of an MLP, whichever way a family stores them."""

import pytest
import torch
from torch import Tensor
from transformers import AutoModelForCausalLM, JetMoeConfig

from audit.bench import Bench, CausalLearner, Clamp, unfrozen
from audit.schema import AuditError, Read, Site
from audit.wrappers import NativeWrapper, value_map, wrap
from tests import expert_toy, toy
from tests.toy import FAMILIES, checkpoint, rows


@pytest.mark.parametrize("family", FAMILIES)
def test_hidden_units_times_their_value_vectors_are_what_the_mlp_writes(family: str) -> None:
    bench, model, texts = Bench(), checkpoint(family), rows(3)
    hidden, out = (Read(site=Site(part=part, block=1), at="all") for part in ("mlp_hidden", "mlp_out"))
    read = bench.run(model, texts, (hidden, out))
    wrapper = bench.open(model)
    values = value_map(wrapper, 1)
    written = read[hidden] @ values.vectors.float()
    module = next(
        m for m in wrapper.model.modules() if getattr(m, "weight", None) is wrapper.parameters()[values.names[0]]
    )
    if getattr(module, "bias", None) is not None:
        written = written + module.bias.detach()
    if family == "gemma2":
        written = wrapper.blocks[1].post_feedforward_layernorm(written)
    mask = texts.mask
    assert torch.allclose(written[mask], read[out][mask], atol=1e-5)
    assert torch.equal(values.stored(values.vectors)[values.names[0]], values.tensors[values.names[0]].weight)
    assert torch.equal(values.vector(5), values.vectors[5]) and values.units == len(values.vectors)


# ---- mixtures of experts ----------------------------------------------------------------------------------------
def routed_by_hand(wrapper: NativeWrapper, hidden: Tensor) -> tuple[Tensor, Tensor]:
    """What a block's experts add beside their value vectors, and which of them each token is sent to, one token after
    another by the router's own answer."""
    mlp = wrapper.blocks[1].get_submodule("mlp")
    router = mlp.router if hasattr(mlp, "router") else mlp.gate
    _, weights, index = router(hidden)
    biases = getattr(mlp.experts, "down_proj_bias", torch.zeros(4, hidden.shape[-1]))
    added = torch.stack([
        sum((w * biases[e] for w, e in zip(ws, es, strict=True)), torch.zeros(hidden.shape[-1]))
        for ws, es in zip(weights, index, strict=True)
    ])  # fmt: skip
    sent = torch.zeros(len(hidden), 4, dtype=torch.bool).scatter(1, index, True)
    return added.detach(), sent


@pytest.mark.parametrize("family", expert_toy.FAMILIES)
def test_coefficients_of_experts_times_their_value_vectors_are_what_the_mixture_writes(family: str) -> None:
    bench, model, texts = Bench(), expert_toy.checkpoint(family), rows(3)
    sites = [Site(part=part, block=1) for part in ("mlp_hidden", "mlp_out", "mlp_in")]
    read = bench.run(model, texts, [Read(site=site, at="all") for site in sites])
    hidden, out, entering = (read[Read(site=site, at="all")][texts.mask] for site in sites)
    wrapper = bench.open(model)
    assert isinstance(wrapper, NativeWrapper)
    values, experts = value_map(wrapper, 1), wrapper.blocks[1].get_submodule("mlp.experts")
    added, sent = routed_by_hand(wrapper, entering)
    torch.testing.assert_close(hidden @ values.vectors + added, out, atol=1e-5, rtol=1e-4)
    width = values.tensors["model.layers.1.mlp.experts.down_proj"].units // 4
    routed = hidden[:, -4 * width :].unflatten(1, (4, width))
    assert torch.equal((routed != 0).any(2), sent), "a coefficient is 0 where the token is not sent"
    shared = values.units - 4 * width
    assert shared == {"qwen2_moe": 24, "deepseek_v3": 24}.get(family, 0) == hidden.shape[1] - 4 * width
    stored = experts.down_proj[2] if family == "gpt_oss" else experts.down_proj[2].T
    assert torch.equal(values.vectors[shared + 2 * width : shared + 3 * width], stored)
    assert torch.equal(values.vector(shared + 2 * width + 7), stored[7])
    back = values.stored(values.vectors)
    assert all(torch.equal(back[name], tensor.weight) for name, tensor in values.tensors.items())


@pytest.mark.parametrize("family", expert_toy.FAMILIES)
def test_a_coefficient_that_is_written_adds_its_value_vector_and_nothing_else(family: str) -> None:
    """Also where the router sends the token elsewhere: then the coefficient was 0."""
    bench, model, texts = Bench(), expert_toy.checkpoint(family), rows(3)
    site, out = (Read(site=Site(part=part, block=1), at="all") for part in ("mlp_hidden", "mlp_out"))
    before = bench.run(model, texts, (site, out))
    for unit in (3, before[site].shape[-1] - 5):
        columns = torch.full((3, 1), unit)
        write = Clamp(site.site, columns, torch.full((3, texts.ids.shape[1], 1), 2.5), "all")
        after = bench.run(model, texts, (out,), (write,))
        missing = (2.5 - before[site][..., unit])[..., None] * value_map(bench.open(model), 1).vector(unit)
        torch.testing.assert_close(after[out][texts.mask], (before[out] + missing)[texts.mask], atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("family", expert_toy.FAMILIES)
def test_gradients_through_shown_coefficients_are_those_of_the_plain_model(family: str) -> None:
    plain, watched = CausalLearner(expert_toy.model(family)), CausalLearner(expert_toy.model(family))
    texts, sites = rows(4), [Site(part="mlp_hidden", block=1)]
    grads: list[dict[str, Tensor]] = []
    for learner, at in ((plain, ()), (watched, sites)):
        with unfrozen(learner, ".*") as live, torch.enable_grad():
            forward = learner.answers(texts, at)
            loss = -forward.logprob.sum()
            own = torch.autograd.grad(loss, list(live.values()), allow_unused=True, materialize_grads=True)
        grads.append(dict(zip(live, own, strict=True)))
    for name, grad in grads[0].items():
        torch.testing.assert_close(grads[1][name], grad, atol=1e-4, rtol=1e-3, msg=name)


def test_dense_blocks_beside_mixtures_have_hidden_units_of_their_own() -> None:
    wrapper = Bench().open(expert_toy.checkpoint("deepseek_v3"))
    assert value_map(wrapper, 0).names == ("model.layers.0.mlp.down_proj.weight",)
    assert [name.rpartition("mlp.")[2] for name in value_map(wrapper, 1).names] == [
        "shared_experts.down_proj.weight", "experts.down_proj",
    ]  # fmt: skip


def test_experts_whose_sum_is_not_found_are_refused_by_name() -> None:
    """JetMoE's experts share a bias and keep their tensors in a class of its own."""
    config = JetMoeConfig(
        vocab_size=toy.VOCAB, hidden_size=32, num_hidden_layers=2, num_key_value_heads=2, kv_channels=8,
        intermediate_size=48, num_local_experts=4, pad_token_id=0,
    )  # fmt: skip
    wrapper = wrap(AutoModelForCausalLM.from_config(config).eval())
    assert "mlp_hidden" not in wrapper.parts
    with pytest.raises(AuditError, match="value vectors of JetMoeForCausalLM's MLPs were not found") as caught:
        value_map(wrapper, 0)
    assert caught.value.code == 2
