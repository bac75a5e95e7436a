"""Continuations drawn by a seed follow the model's own probabilities, however they are computed."""

from dataclasses import replace

import pytest
import torch
from scipy.stats import chisquare

from audit.bench import Bench, Draw
from audit.bench import sampling as sampled
from audit.case import Rows
from audit.schema import AuditError, Read, Site
from tests import toy

LOGITS = Read(site=Site(part="logits"), at="last")


def prompts(lengths: tuple[int, ...]) -> Rows:
    rows = toy.rows(len(lengths))
    return replace(rows, answer_spans=torch.tensor([[n, n + 1] for n in lengths]))


def next_probability(bench: Bench, family: str, prompt: torch.Tensor, temperature: float) -> torch.Tensor:
    rows = replace(
        toy.rows(1), ids=prompt[None], mask=torch.ones(1, len(prompt), dtype=torch.bool),
        answer_spans=torch.tensor([[len(prompt), len(prompt)]]), key=torch.zeros(1, len(prompt), dtype=torch.bool),
    )  # fmt: skip
    logits = bench.run(toy.checkpoint(family), rows, (LOGITS,))[LOGITS][0]
    return (logits.double() / temperature).softmax(-1)


@pytest.mark.sampled
@pytest.mark.parametrize("family", ["llama", "gpt2", "gemma2"])
@pytest.mark.parametrize("temperature", [1.0, 0.5])
def test_first_and_second_tokens_are_as_often_as_the_model_says(family: str, temperature: float) -> None:
    bench, rows = Bench(), prompts((1, 4))
    drawn = bench.sample(toy.checkpoint(family), rows, Draw(n=3000, max_new_tokens=2, temperature=temperature, seed=1))
    for row, n in enumerate((1, 4)):
        first = next_probability(bench, family, rows.ids[row, :n], temperature)
        assert fits(first, [tokens[0] if tokens else 2 for tokens in drawn[row]]) > 1e-3
        common = int(first[3:].argmax()) + 3
        after = next_probability(bench, family, torch.cat([rows.ids[row, :n], torch.tensor([common])]), temperature)
        second = [(*tokens, 2)[1] for tokens in drawn[row] if tokens and tokens[0] == common]
        assert len(second) > 60 and fits(after, second) > 1e-3


def fits(probability: torch.Tensor, tokens: list[int]) -> float:
    """The p of a chi-square test, tokens that are expected fewer than five times together."""
    seen, expected = torch.bincount(torch.tensor(tokens), minlength=len(probability)), probability * len(tokens)
    often = expected >= 5
    observed = [*seen[often].tolist(), int(seen[~often].sum())]
    return float(chisquare(observed, [*expected[often].tolist(), float(expected[~often].sum())]).pvalue)


@pytest.mark.sampled
@pytest.mark.parametrize("family", toy.FAMILIES)
def test_whole_rows_and_kept_keys_draw_the_same_and_so_does_any_batch(
    family: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows, draw = prompts((1, 3, 6)), Draw(n=12, max_new_tokens=6, seed=4)
    ckpt = toy.checkpoint(family)
    kept = Bench().sample(ckpt, rows, draw)
    assert Bench(token_budget=30).sample(ckpt, rows, draw) == kept
    monkeypatch.setattr(sampled, "reads_key_values", lambda *_: False)
    again = Bench().sample(ckpt, rows, draw)
    same = [a == b for x, y in zip(kept, again, strict=True) for a, b in zip(x, y, strict=True)]
    assert sum(same) >= len(same) - 1, "only a draw within rounding of a boundary may fall to the other side"
    assert Bench().sample(ckpt, rows, draw._replace(seed=5)) != kept
    assert {len(tokens) for row in kept for tokens in row} <= set(range(7))
    assert not any(token == 2 for row in kept for tokens in row for token in tokens), "an end token ends"


@pytest.mark.thorough
def test_as_the_temperature_falls_the_greedy_continuation_is_drawn() -> None:
    rows = prompts((3, 5))
    greedy = Bench().generate(toy.checkpoint("llama"), rows, 5)
    drawn = Bench().sample(toy.checkpoint("llama"), rows, Draw(n=2, max_new_tokens=5, temperature=1e-4))
    assert drawn == [[tokens, tokens] for tokens in greedy]


@pytest.mark.sampled
@pytest.mark.parametrize("draw", [Draw(0, 4), Draw(4, 0), Draw(4, 4, 0.0), Draw(4, 4, -1.0)])
def test_nothing_to_draw_is_refused(draw: Draw) -> None:
    with pytest.raises(AuditError, match="nothing can be drawn"):
        Bench().sample(toy.checkpoint("llama"), prompts((3,)), draw)
    with pytest.raises(AuditError, match="no token stands before"):
        Bench().sample(toy.checkpoint("llama"), prompts((0,)), Draw(1, 1))


def test_draws_by_prompt_are_the_same_whatever_rows_stand_beside_it_and_as_many_as_are_asked() -> None:
    rows, draw = prompts((3, 6, 3, 1, 6)), Draw(n=7, max_new_tokens=4, seed=4, by_prompt=True)
    ckpt = toy.checkpoint("llama")
    every = Bench().sample(ckpt, rows, draw)
    for chosen in ([4], [2, 0], [3, 1, 4]):
        single = Bench(token_budget=40).sample(ckpt, rows.take(torch.tensor(chosen)), draw)
        assert single == [every[n] for n in chosen]
    assert [len(row) for row in every] == [7] * 5
    by_place = Bench().sample(ckpt, rows.take(torch.tensor([2, 0])), draw._replace(by_prompt=False))
    assert by_place != [every[2], every[0]]
    assert len({tuple(tokens) for tokens in every[0]}) > 1, "one prompt's draws differ"


def test_prompts_of_one_length_go_forward_together_once_and_ended_ones_leave(monkeypatch: pytest.MonkeyPatch) -> None:
    ran: list[tuple[int, int]] = []
    states, first = sampled.Continued.states, sampled.first_part
    monkeypatch.setattr(sampled, "first_part", lambda model, ids: ran.append(tuple(ids.shape)) or first(model, ids))  # type: ignore[func-returns-value]
    going: list[int] = []

    def counted(self: sampled.Continued, ids: torch.Tensor) -> torch.Tensor:
        going.append(len(ids))
        return states(self, ids)

    monkeypatch.setattr(sampled.Continued, "states", counted)
    monkeypatch.setattr(sampled, "ends_of", lambda _: frozenset(range(3, 40)))
    drawn = Bench().sample(toy.checkpoint("llama"), prompts((4, 4, 6, 4)), Draw(n=10, max_new_tokens=8))
    assert ran == [(3, 3), (1, 5)], "three prompts of four tokens, then one of six, each but its last token once"
    assert going[0] == 30 and set(going) - {30, 10}, "half of them have ended, and the others go on alone"
    assert not any(3 <= token < 40 for row in drawn for tokens in row for token in tokens)
