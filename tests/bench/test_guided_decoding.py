"""Continuations by two checkpoints against a plain loop over whole forward passes."""

from dataclasses import replace

import pytest
import torch

from audit.bench import Bench, Guidance
from audit.case import Rows
from audit.schema import AuditError
from tests import toy


def prompts(lengths: tuple[int, ...]) -> Rows:
    rows = toy.rows(len(lengths))
    return replace(rows, answer_spans=torch.tensor([[n, n + 1] for n in lengths]))


def plain(family: str, prompt: torch.Tensor, limit: int, guidance: Guidance) -> list[int]:
    """One row at a time, all logits at once, as the paper has it."""
    pre, post = (toy.model(family, seed) for seed in (0, 1))
    ids = prompt[None]
    text: list[int] = []
    ends = pre.generation_config.eos_token_id
    for _ in range(limit):
        with torch.inference_mode():
            a, b = (m(input_ids=ids).logits[0, -1].float().log_softmax(-1) for m in (pre, post))
        mixed = guidance.weight * a + (1 - guidance.weight) * b
        token = int(mixed.masked_fill(a < a.max() - guidance.reach, -torch.inf).argmax())
        if token == ends:
            break
        text.append(token)
        ids = torch.cat([ids, torch.tensor([[token]])], 1)
    return text


@pytest.mark.parametrize("family", ["llama", "gpt2"])
@pytest.mark.parametrize("guidance", [Guidance(), Guidance(3.0, 1.0), Guidance(1.0, 5.0)])
def test_two_checkpoints_say_what_a_loop_over_all_logits_says(family: str, guidance: Guidance) -> None:
    lengths, limits = (1, 4, 2, 5), torch.tensor([6, 0, 3, 8])
    rows, pair = prompts(lengths), (toy.checkpoint(family, 0), toy.checkpoint(family, 1))
    result = Bench().generate_guided(*pair, rows, limits, guidance)
    wanted = [
        plain(family, rows.ids[i, :n], limit, guidance)
        for i, (n, limit) in enumerate(zip(lengths, limits.tolist(), strict=True))
    ]
    assert result == wanted and any(result)
    assert Bench(token_budget=8).generate_guided(*pair, rows, limits, guidance) == result, "by batches of one row"


def test_alone_a_checkpoint_says_what_it_says_greedily() -> None:
    rows, own, other = prompts((2, 3)), toy.checkpoint("llama", 0), toy.checkpoint("llama", 1)
    single = Bench().generate_guided(own, other, rows, torch.tensor([5, 5]), Guidance(1.0))
    assert single == Bench().generate(own, rows, 5)
    assert Bench().generate_guided(own, other, rows, torch.tensor([5, 5]), Guidance(6.0, 50.0)) != single


@pytest.mark.parametrize("guidance", [Guidance(0.5), Guidance(2.0, 0.0)])
def test_guidance_that_leads_nowhere_is_refused(guidance: Guidance) -> None:
    rows, own = prompts((2,)), toy.checkpoint("llama", 0)
    with pytest.raises(AuditError, match="leads nowhere"):
        Bench().generate_guided(own, own, rows, torch.tensor([2]), guidance)
