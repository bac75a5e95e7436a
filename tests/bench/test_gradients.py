"""Gradients against finite differences and plain autograd; greedy words against transformers."""

import pytest
import torch
from torch import Tensor

from audit.bench import Bench, Forward, LowRank, Replace
from audit.schema import AuditError, Part, Site
from tests import toy

ROWS = toy.rows(6)
BENCH = Bench(token_budget=40)


def summed(forward: Forward) -> Tensor:
    """Log-probability of each row's answer."""
    return torch.zeros(int(forward.row.max()) + 1).index_add(0, forward.row, forward.logprob)


def _plain(family: str, embeds: Tensor) -> Tensor:
    """The same objective from the plain model, per row."""
    row, target = ROWS.targets("answer")
    logits = toy.model(family)(inputs_embeds=embeds, attention_mask=ROWS.mask.long()).logits
    logprob = logits.log_softmax(-1)[row, target - 1, ROWS.ids[row, target]]
    return torch.zeros(6).index_add(0, row, logprob)


@pytest.mark.sampled
@pytest.mark.parametrize("family", toy.FAMILIES)
def test_input_gradients_are_those_of_plain_autograd(family: str) -> None:
    embeds = toy.model(family).get_input_embeddings()(ROWS.ids).detach().requires_grad_()
    value = _plain(family, embeds)
    expected = torch.autograd.grad(value.sum(), embeds)[0]
    found = BENCH.gradients(toy.checkpoint(family), ROWS, "inputs", summed)
    torch.testing.assert_close(found.value, value.detach(), atol=2e-5, rtol=1e-5)
    torch.testing.assert_close(found.at_inputs, expected, atol=2e-5, rtol=1e-4)


@pytest.mark.sampled
@pytest.mark.parametrize("part", ["resid_in", "resid_mid", "resid_out", "attn_in", "attn_out", "mlp_in", "q", "z"])
def test_site_gradients_are_finite_differences(part: Part) -> None:
    bench, ckpt = Bench(dtype="float64"), toy.checkpoint("gpt2")
    site, rows = Site(part=part, block=1), ROWS.take(torch.tensor([0, 3]))
    gradient = bench.gradients(ckpt, rows, [site], summed).at_sites[site].double()
    if part in ("q", "z"):
        site, gradient = Site(part=part, block=1, head=2), gradient[:, :, 2]
    direction = torch.randn(gradient.shape[-1], dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    values = []
    for step in (1e-4, -1e-4):
        empty = torch.zeros(1, direction.shape[-1], dtype=torch.float64)
        shift = LowRank(site, empty, empty, step * direction)
        values.append(bench.gradients(ckpt, rows, "inputs", summed, [shift]).value.double())
    slope = (values[0] - values[1]) / 2e-4
    along = (gradient * direction).flatten(1).sum(1)
    torch.testing.assert_close(along, slope, atol=5e-2, rtol=2e-2)
    assert float(along.abs().min()) > 0


def test_several_sites_come_in_one_pass_and_padding_has_no_gradient() -> None:
    sites = [Site(part="resid_out", block=b) for b in range(3)]
    found = BENCH.gradients(toy.checkpoint("llama"), ROWS, sites, summed).at_sites
    for site in sites:
        assert found[site].shape == (*ROWS.ids.shape, 48)
        assert float(found[site][~ROWS.mask].abs().max()) == 0 and float(found[site].abs().max()) > 0


@pytest.mark.parametrize("family", ["llama", "qwen2"])  # qwen2: tied embeddings
def test_parameter_gradients_are_those_of_plain_autograd(family: str) -> None:
    model = toy.model(family)
    row, target = ROWS.targets("answer")
    logits = model(input_ids=ROWS.ids, attention_mask=ROWS.mask.long()).logits
    logits.log_softmax(-1)[row, target - 1, ROWS.ids[row, target]].sum().backward()
    bench = Bench(token_budget=40)
    found = bench.gradients(toy.checkpoint(family), ROWS, "params", summed).at_params
    for name, parameter in model.named_parameters():
        if name != "model.embed_tokens.weight" or family == "llama":
            torch.testing.assert_close(found[name], parameter.grad, atol=5e-5, rtol=1e-4, msg=name)
    assert not any(p.requires_grad for p in bench.open(toy.checkpoint(family)).parameters().values())


def test_gradients_flow_through_writes_and_other_models_get_none() -> None:
    site, read = Site(part="resid_out", block=0), Site(part="resid_out", block=1)
    write = Replace(site, toy.checkpoint("llama", 1), "all")
    found = BENCH.gradients(toy.checkpoint("llama"), ROWS, [site, read], summed, [write]).at_sites
    assert float(found[read].abs().max()) > 0
    with pytest.raises(AuditError, match="one number a row"):
        BENCH.gradients(toy.checkpoint("llama"), ROWS, "inputs", lambda forward: forward.logprob.sum())


@pytest.mark.parametrize("family", ["llama", "gpt2", "gemma2"])
def test_greedy_words_are_those_of_transformers(family: str) -> None:
    model = toy.model(family)
    found = BENCH.generate(toy.checkpoint(family), ROWS, 5)
    assert len(found) == 6 and any(len(tokens) == 5 for tokens in found)
    for i, tokens in enumerate(found):
        prompt = ROWS.ids[i, : ROWS.answer_spans[i, 0]][None]
        own = model.generate(prompt, attention_mask=torch.ones_like(prompt), max_new_tokens=5, do_sample=False)
        own = own[0, prompt.shape[1] :].tolist()
        assert tokens == (own[: own.index(2)] if 2 in own else own)


def test_a_row_that_ends_keeps_its_words_while_others_go_on() -> None:
    bench, ckpt = Bench(), toy.checkpoint("llama")
    free = bench.generate(ckpt, ROWS, 5)
    end = free[0][2]
    bench.open(ckpt).model.generation_config.eos_token_id = [end]  # type: ignore[attr-defined]
    found = bench.generate(ckpt, ROWS, 5)
    assert found == [words[: words.index(end)] if end in words else words for words in free]
    assert len({len(words) for words in found}) > 1
