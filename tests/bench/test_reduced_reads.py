"""Heads reduced where they are computed: norms, and the attention that positions receive."""

from functools import cache
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, GptOssConfig
from transformers.models.gpt_oss.modeling_gpt_oss import GptOssAttention, GptOssRotaryEmbedding

from audit.bench import Bench
from audit.bench.reads.reduced import received
from audit.checkpoints import resolve
from audit.schema import AuditError, Part, Positions, Read, Site, Source
from audit.schema.requirements import Reduce
from tests import toy

ROWS = toy.rows(7, seed=3, longest=16)
SMALL = 33
"""A token budget that cuts seven rows into several batches of different widths."""
BLOCKS = range(toy.N_BLOCKS)


@cache
def bench(backend: str = "native", budget: int = SMALL) -> Bench:
    return Bench(backend=backend, token_budget=budget)


def reduced(part: Part, reduce: Reduce, head: int | None = None) -> list[Read]:
    return [Read(site=Site(part=part, block=block, head=head), at="all", reduce=reduce) for block in BLOCKS]


def by_loops(pattern: Tensor) -> Tensor:
    """The definition, for one row without padding [head pos pos]: the mean over queries k..T of the weight on k."""
    heads, length, _ = pattern.shape
    scores = torch.zeros(heads, length)
    for head in range(heads):
        for k in range(length):
            paid = [float(pattern[head, i, k]) for i in range(k, length)]
            scores[head, k] = sum(paid) / (length - k)
    return scores


@pytest.mark.sampled
@pytest.mark.parametrize("family", toy.FAMILIES)
def test_attention_received_is_that_of_plain_forwards_by_loops(family: str) -> None:
    """transformers' own ``output_attentions`` of single unpadded rows, column by column."""
    reads = reduced("pattern", "received")
    outputs = bench().run(toy.checkpoint(family), ROWS, reads)
    model = AutoModelForCausalLM.from_pretrained(toy.folder(family), attn_implementation="eager").eval()
    for n, length in enumerate(ROWS.lengths.tolist()):
        with torch.no_grad():
            attentions = model(input_ids=ROWS.ids[n : n + 1, :length], output_attentions=True).attentions
        for read, pattern in zip(reads, attentions, strict=True):
            torch.testing.assert_close(outputs[read][n, :, :length], by_loops(pattern[0]), atol=1e-5, rtol=1e-4)
            assert not outputs[read][n, :, length:].any(), "padding receives nothing"


@pytest.mark.sampled
@pytest.mark.parametrize("family", toy.FAMILIES)
def test_what_is_reduced_on_the_device_is_what_whole_states_reduce_to(family: str) -> None:
    ckpt = toy.checkpoint(family)
    for head in (None, 1):
        whole = bench().run(ckpt, ROWS, reduced("pattern", "state", head))
        for state, read in zip(whole.reads.values(), reduced("pattern", "received", head), strict=True):
            own = bench().run(ckpt, ROWS, [read])[read]
            torch.testing.assert_close(own, received(state, ROWS.lengths), atol=1e-6, rtol=1e-5)
        parts: tuple[Part, ...] = ("k", "v")
        for part in parts:
            states = bench().run(ckpt, ROWS, reduced(part, "state", head)).reads.values()
            for state, read in zip(states, reduced(part, "norm", head), strict=True):
                torch.testing.assert_close(bench().run(ckpt, ROWS, [read])[read], state.norm(dim=-1))


@pytest.mark.parametrize("family", toy.FAMILIES)
def test_keys_and_values_of_heads_are_as_many_as_the_config_says(family: str) -> None:
    config = toy.config(family)
    heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
    read = Read(site=Site(part="v", block=0), at="all", reduce="norm")
    assert bench().run(toy.checkpoint(family), ROWS, [read])[read].shape == (*ROWS.ids.shape, heads)


@pytest.mark.thorough
def test_batches_move_no_reduced_number_to_another_place() -> None:
    reads = [*reduced("pattern", "received"), *reduced("v", "norm")]
    small, large = (bench(budget=n).run(toy.checkpoint("gemma2"), ROWS, reads) for n in (SMALL, 16384))
    for read in reads:
        torch.testing.assert_close(small[read], large[read], atol=1e-6, rtol=1e-5)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(1, 9), min_size=1, max_size=4), st.integers(1, 3), st.booleans(), st.integers(0, 2**31 - 1))
def test_attention_received_is_its_definition_for_any_lengths(
    lengths: list[int], heads: int, learned: bool, seed: int
) -> None:
    """With a learned sink's column after those of the tokens, and rows of the pattern that sum up to less than 1."""
    rng = torch.Generator().manual_seed(seed)
    width = max(lengths)
    scores = torch.randn(len(lengths), heads, width, width + learned, generator=rng) * 3
    future = torch.ones(width, width, dtype=torch.bool).triu(1)
    scores[..., :width] = scores[..., :width].masked_fill(future, -torch.inf)
    pattern = scores.softmax(-1)
    read = received(pattern, torch.tensor(lengths))
    assert read.shape == (len(lengths), heads, width)
    for n, length in enumerate(lengths):
        torch.testing.assert_close(read[n, :, :length], by_loops(pattern[n, :, :length, :length]))
        assert not read[n, :, length:].any()


def test_a_reduction_is_asked_of_what_it_is_made_for() -> None:
    bad: list[tuple[Part, Positions, Reduce]] = [
        ("pattern", "last", "received"), ("v", "all", "received"), ("resid_out", "all", "norm"), ("v", "key", "norm"),
    ]  # fmt: skip
    for part, at, reduce in bad:
        with pytest.raises(ValidationError, match="alone, at 'all'"):
            Read(site=Site(part=part, block=0), at=at, reduce=reduce)


def test_nnsight_reads_the_same_norms_and_has_no_patterns() -> None:
    reads = reduced("v", "norm")
    ours, theirs = (bench(backend).run(toy.checkpoint("llama"), ROWS, reads) for backend in ("native", "nnsight"))
    for read in reads:
        torch.testing.assert_close(ours[read], theirs[read], atol=1e-5, rtol=1e-4)
    with pytest.raises(AuditError, match="no part 'pattern'"):
        bench("nnsight").run(toy.checkpoint("llama"), ROWS, reduced("pattern", "received"))


def test_transformer_lens_reduces_its_patterns_to_the_same_numbers() -> None:
    reads = [*reduced("v", "norm"), *reduced("pattern", "received")]
    ours, theirs = (bench(name).run(toy.checkpoint("llama"), ROWS, reads) for name in ("native", "transformer_lens"))
    for read in reads:
        assert ours[read].shape == theirs[read].shape
        torch.testing.assert_close(ours[read], theirs[read], atol=1e-5, rtol=1e-4)


# ---- learned sinks ----------------------------------------------------------------------------------------------
def sink_config() -> GptOssConfig:
    """Attention of gpt-oss with a window that no text of these tests exceeds."""
    config = GptOssConfig(
        vocab_size=toy.VOCAB, hidden_size=48, intermediate_size=16, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, head_dim=12, num_local_experts=2, num_experts_per_tok=1, sliding_window=32,
        max_position_embeddings=64, rope_parameters={"rope_type": "default", "rope_theta": 10000.0},
        initializer_range=0.15, pad_token_id=0,
    )  # fmt: skip
    config._attn_implementation = "eager"
    return config


def plain_pattern(attention: GptOssAttention, hidden: Tensor) -> Tensor:
    """The pattern by the equations: rotated queries and keys, the future left out, the sink's logit in the sum."""
    heads, width, length = 4, 12, hidden.shape[1]
    cos, sin = GptOssRotaryEmbedding(attention.config)(hidden, torch.arange(length)[None])

    def rotated(x: Tensor) -> Tensor:
        x = x.view(1, length, -1, width).transpose(1, 2)
        left, right = x.chunk(2, -1)
        return torch.cat([left * cos - right * sin, right * cos + left * sin], -1)

    q, k = rotated(attention.q_proj(hidden)), rotated(attention.k_proj(hidden)).repeat_interleave(2, 1)
    scores = (q @ k.transpose(-1, -2)) * width**-0.5
    scores = scores.masked_fill(torch.ones(length, length, dtype=torch.bool).triu(1), -torch.inf).exp()
    return scores / (scores.sum(-1, keepdim=True) + attention.sinks.exp().view(1, heads, 1, 1))


def test_the_attention_of_a_learned_sink_pays_no_token_what_the_sink_takes() -> None:
    """Of the module with random weights: rows that transformers returns sum up to less than 1, by its mass."""
    torch.manual_seed(0)
    attention = GptOssAttention(sink_config(), 1).eval()
    nn.init.normal_(attention.sinks, 1.0)
    hidden = torch.randn(1, 9, 48)
    causal = torch.zeros(1, 1, 9, 9).masked_fill(torch.ones(9, 9, dtype=torch.bool).triu(1), -1e9)
    rope = GptOssRotaryEmbedding(attention.config)(hidden, torch.arange(9)[None])
    with torch.no_grad():
        _, returned = attention(hidden, rope, causal)
        by_hand = plain_pattern(attention, hidden)
    torch.testing.assert_close(returned, by_hand, atol=1e-5, rtol=1e-4)
    beside = 1 - returned.sum(-1)
    assert (beside > 0.01).all(), "every query pays the sink"
    followers = 9 - torch.arange(9)
    paid = (received(returned, torch.tensor([9])) * followers).sum(-1) / 9
    torch.testing.assert_close(1 - paid, beside.mean(-1))


def test_patterns_of_a_model_with_learned_sinks_are_those_of_its_tokens(tmp_path: Path) -> None:
    """The softmax of gpt-oss has a column more than there are tokens; the tokens' columns alone are read."""
    torch.manual_seed(1)
    model = AutoModelForCausalLM.from_config(sink_config(), attn_implementation="eager").eval()
    for name, parameter in model.named_parameters():
        if name.endswith("sinks"):
            nn.init.normal_(parameter, 1.0)
    model.save_pretrained(tmp_path)
    toy.tokenizer().save_pretrained(tmp_path)
    ckpt = resolve(Source(path=str(tmp_path)), tmp_path)
    reads = [Read(site=Site(part="pattern", block=1), at="all", reduce=r) for r in ("state", "received")]
    outputs = bench().run(ckpt, ROWS, reads)
    for n, length in enumerate(ROWS.lengths.tolist()):
        with torch.no_grad():
            pattern = model(input_ids=ROWS.ids[n : n + 1, :length], output_attentions=True).attentions[1]
        torch.testing.assert_close(outputs[reads[0]][n, :, :length, :length], pattern[0], atol=1e-5, rtol=1e-4)
        torch.testing.assert_close(outputs[reads[1]][n, :, :length], by_loops(pattern[0]), atol=1e-5, rtol=1e-4)
