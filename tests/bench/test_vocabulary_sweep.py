"""Scores swept in tiles are those of all logits at once, and nothing of the vocabulary's size is kept on the way."""

from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import scipy
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from audit.bench import Bench, LogitBias
from audit.bench.layout import Targets
from audit.bench.passes import LoadedModel
from audit.bench.reads import vocabulary_sweep
from audit.bench.reads.vocabulary_sweep import Statistic, given_logprobs, most_likely, some_logits, swept
from audit.schema import Positions, Read, Site
from audit.schema.requirements import Reduce
from audit.wrappers import Wrapper, wrap
from tests import toy

ALL: tuple[Statistic, ...] = ("logprob", "rank", "entropy", "varentropy", "margin")
LOGITS = Site(part="logits")
families = pytest.mark.parametrize("family", toy.FAMILIES)


@pytest.fixture
def tiles(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tiles of a few rows and a few tokens, so that toys have many."""
    monkeypatch.setattr(vocabulary_sweep, "COLUMNS", 16)
    monkeypatch.setattr(vocabulary_sweep, "TILE", 16 * 5)
    monkeypatch.setattr(vocabulary_sweep, "WHOLE", 5 * toy.VOCAB)


def drawn(wrapper: Wrapper, n: int = 23) -> tuple[Tensor, Tensor]:
    dice = torch.Generator().manual_seed(5)
    states = torch.randn(n, wrapper.d_model, generator=dice, dtype=torch.float32).to(wrapper.dtype)
    return states, torch.randint(wrapper.vocab_size, (n,), generator=dice)


def expected(logits: Tensor, target: Tensor) -> dict[Statistic, np.ndarray]:
    """The statistics by scipy and numpy, in float64, of all logits."""
    wide, place = logits.double().numpy(), target.numpy()
    logprob = wide - scipy.special.logsumexp(wide, axis=1, keepdims=True)
    row = np.arange(len(wide))
    own, others = wide[row, place], wide.copy()
    others[row, place] = -np.inf
    surprise = [np.cov(line, ddof=0, aweights=np.exp(line)) for line in logprob]
    return {
        "logprob": logprob[row, place], "rank": (wide > own[:, None]).sum(1),
        "entropy": scipy.stats.entropy(np.exp(logprob), axis=1), "varentropy": np.array(surprise),
        "margin": own - others.max(1),
    }  # fmt: skip


def check(found: dict[Statistic, Tensor], logits: Tensor, target: Tensor) -> None:
    wanted = expected(logits, target)
    assert set(found) == set(ALL) and np.array_equal(found["rank"].numpy(), wanted["rank"])
    for name in ("logprob", "entropy", "varentropy", "margin"):
        np.testing.assert_allclose(found[name].numpy(), wanted[name], rtol=1e-6, atol=2e-6)
    assert torch.allclose(logits.log_softmax(-1).gather(1, target[:, None])[:, 0], found["logprob"], atol=2e-6)


@families
def test_statistics_in_many_tiles_are_those_of_all_logits(family: str, tiles: None) -> None:
    wrapper = wrap(toy.model(family))
    states, target = drawn(wrapper)
    bias = torch.randn(toy.VOCAB, generator=torch.Generator().manual_seed(1))
    assert wrapper.head_width == toy.VOCAB, "a plain head is swept in parts"
    with torch.inference_mode():
        for shift in (None, bias):
            logits = wrapper.head(states) + (0 if shift is None else shift)
            check(swept(wrapper, states, target, shift, ALL), logits, target)
            assert torch.equal(most_likely(wrapper, states, shift), logits.argmax(1))


@families
def test_statistics_in_one_tile_are_bit_for_bit_those_of_all_logits(family: str) -> None:
    wrapper = wrap(toy.model(family))
    states, target = drawn(wrapper)
    with torch.inference_mode():
        logits, found = wrapper.head(states).float(), swept(wrapper, states, target, None, ALL)
        own = logits.gather(1, target[:, None])
        assert torch.equal(found["logprob"], (own - logits.logsumexp(1, keepdim=True))[:, 0])
        assert torch.equal(found["rank"], (logits > own).sum(1).float())
        check(found, logits, target)


def test_forbidden_words_and_no_states_are_no_missing_numbers(tiles: None) -> None:
    wrapper = wrap(toy.model("llama"))
    states, target = drawn(wrapper)
    bias = torch.zeros(toy.VOCAB)
    bias[:40] = -torch.inf
    with torch.inference_mode():
        found = swept(wrapper, states, target, bias, ALL)
        none = swept(wrapper, states[:0], target[:0], bias, ALL)
        whole = (wrapper.head(states) + bias).log_softmax(1)
    own = whole.gather(1, target[:, None])[:, 0]
    assert torch.equal(found["logprob"].isneginf(), target < 40) and not found["entropy"].isnan().any()
    assert not found["varentropy"].isnan().any()
    torch.testing.assert_close(found["logprob"], own, atol=2e-6, rtol=1e-6)
    assert float(found["entropy"].max()) <= np.log(toy.VOCAB - 40) + 1e-6
    assert {name: len(values) for name, values in none.items()} == dict.fromkeys(ALL, 0)


@pytest.mark.parametrize("scale", [300.0, -300.0])
def test_logits_beyond_what_float32_can_sum_are_summed_all_the_same(scale: float, tiles: None) -> None:
    wrapper = wrap(toy.model("llama"))
    states, target = drawn(wrapper)
    bias = torch.full((toy.VOCAB,), scale)
    with torch.inference_mode():
        found, none = (swept(wrapper, states, target, shift, ALL)["logprob"] for shift in (bias, None))
    torch.testing.assert_close(found, none, atol=1e-4, rtol=1e-4)  # a logit of 300 is rounded to 3e-5


@families
def test_given_tokens_have_the_scores_of_all_logits(family: str, tiles: None) -> None:
    wrapper = wrap(toy.model(family))
    states, _ = drawn(wrapper)
    entry, token = torch.tensor([3, 0, 3, 22, 7]), torch.tensor([0, 5, toy.VOCAB - 1, 17, 5])
    with torch.inference_mode():
        logits = wrapper.head(states)
        found = given_logprobs(wrapper, states, entry, token, None)
        torch.testing.assert_close(found, logits.log_softmax(1)[entry, token], atol=2e-6, rtol=1e-6)
        torch.testing.assert_close(some_logits(wrapper, states, token, None), logits[:, token], atol=2e-6, rtol=1e-6)


# ---- heads that cannot be asked in part -------------------------------------------------------------------------
class Doubled(nn.Linear):
    """A head with code of its own, as an adapter has."""

    factor: float = 2.0

    def forward(self, input: Tensor) -> Tensor:
        return self.factor * super().forward(input)


def mixing(model: Any) -> None:
    """Logits that are log-probabilities: each depends on all the vocabulary."""
    own = model.forward

    def forward(*args: Any, **settings: Any) -> Any:
        out = own(*args, **settings)
        out.logits = out.logits.log_softmax(-1)
        return out

    model.forward = forward


def doubled(model: Any) -> None:
    head = Doubled(model.lm_head.in_features, model.lm_head.out_features, bias=False)
    head.weight = model.lm_head.weight
    model.lm_head = head


def listened_to(model: Any) -> None:
    model.lm_head.register_forward_hook(lambda _module, _given, out: out * 0.5)


@pytest.mark.parametrize("change", [mixing, doubled, listened_to])
def test_a_head_that_gives_all_logits_or_none_is_asked_for_all_of_few_rows(change: Any, tiles: None) -> None:
    model = toy.model("llama")
    change(model)
    wrapper = wrap(model)
    states, target = drawn(wrapper)
    with torch.inference_mode():
        assert wrapper.head_width is None
        check(swept(wrapper, states, target, None, ALL), wrapper.head(states), target)


def test_a_head_with_code_of_its_own_is_not_asked_in_part_even_while_that_code_does_nothing(tiles: None) -> None:
    model: Any = toy.model("llama")
    doubled(model)
    model.lm_head.factor, wrapper = 1.0, wrap(model)
    states, target = drawn(wrapper)
    assert wrapper.head_width is None
    model.lm_head.factor = 3.0
    with torch.inference_mode():
        check(swept(wrapper, states, target, None, ALL), wrapper.head(states), target)


# ---- through the bench ------------------------------------------------------------------------------------------
def reads_of(ats: tuple[Positions, ...], sites: tuple[Site, ...], kinds: tuple[Reduce, ...] = ALL) -> list[Read]:
    return [Read(site=site, at=at, reduce=kind) for at in ats for site in sites for kind in kinds]


@pytest.mark.parametrize("family", ["gpt2", "gemma2"])
def test_scores_at_every_layer_do_not_depend_on_tiles_or_on_company(family: str, tiles: None) -> None:
    sites = (*(Site(part="resid_out", block=b) for b in range(toy.N_BLOCKS)), LOGITS)
    rows, write = toy.rows(6, seed=2), LogitBias(torch.linspace(-1, 1, toy.VOCAB))
    rows = replace(rows, key=rows.key | (torch.arange(rows.ids.shape[1]) == 3))  # content outside the answers too
    reads, bench = reads_of(("key", "answer"), sites), Bench(token_budget=33)
    together = bench.run(toy.checkpoint(family), rows, reads, [write])
    for read in reads[::5]:
        alone = bench.run(toy.checkpoint(family), rows, (read,), [write])
        torch.testing.assert_close(together[read], alone[read], atol=2e-6, rtol=1e-6)
        assert len(together[read]) == len(rows.targets(read.at)[0])


def test_a_position_of_answer_and_content_goes_through_the_head_once(monkeypatch: pytest.MonkeyPatch) -> None:
    bench, rows, seen = Bench(), toy.rows(6, seed=2), list[int]()
    wrapper = bench.open(toy.checkpoint("llama"))
    own = type(wrapper).head
    monkeypatch.setattr(type(wrapper), "head", lambda self, states: seen.append(len(states)) or own(self, states))
    bench.run(toy.checkpoint("llama"), rows, reads_of(("key", "answer"), (LOGITS,)))
    assert seen == [len(rows.targets("answer")[0])], "every content token is an answer's"


class Largest(TorchDispatchMode):
    """The most entries of any tensor that an operation gives."""

    entries: int = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        for each in out if isinstance(out, tuple | list) else (out,):
            if isinstance(each, Tensor) and not each._is_view():  # pyright: ignore[reportPrivateUsage]
                self.entries = max(self.entries, each.numel())
        return out


@contextmanager
def wide_model(vocabulary: int) -> Generator[LoadedModel]:
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=vocabulary, hidden_size=8, intermediate_size=16, num_hidden_layers=2, num_attention_heads=2,
        max_position_embeddings=32,
    )  # fmt: skip
    torch.manual_seed(0)
    yield LoadedModel(wrap(LlamaForCausalLM(config).eval()), ())


def test_no_layer_makes_the_logits_of_all_rows_or_of_all_the_vocabulary(monkeypatch: pytest.MonkeyPatch) -> None:
    from audit.bench.passes import Job, compute

    monkeypatch.setattr(vocabulary_sweep, "COLUMNS", 256)
    monkeypatch.setattr(vocabulary_sweep, "TILE", 256 * 16)
    rows, vocabulary = toy.rows(24, seed=1), 6000
    tokens = len(rows.targets("answer")[0])
    sites = (Site(part="resid_out", block=0), Site(part="resid_out", block=1), LOGITS)
    with wide_model(vocabulary) as opened, Largest() as seen:
        _ = opened.wrapper.head_width
        seen.entries = 0
        compute(opened, lambda _: opened, Job(rows, tuple(reads_of(("key", "answer"), sites)), (), None, None), 1 << 14)
    assert tokens * 256 > 256 * 16, "neither the rows nor the vocabulary fit into a tile"
    assert seen.entries <= max(256 * 17, rows.ids.numel() * 16), f"{seen.entries} entries at once"


def test_greedy_words_are_those_of_all_logits(tiles: None) -> None:
    from audit.bench.generation import greedy

    rows = toy.rows(4, seed=4)
    found = greedy(Bench().pool.loaded(toy.checkpoint("gemma2")), rows, 4, 1 << 14)
    model = toy.model("gemma2")
    for n, words in enumerate(found):
        ids = rows.ids[n, : int(rows.answer_spans[n, 0])].tolist()
        for word in words:
            with torch.no_grad():
                assert word == int(model(input_ids=torch.tensor([ids])).logits[0, -1].argmax())
            ids.append(word)
    assert Targets(rows).total("answer") and any(found)
