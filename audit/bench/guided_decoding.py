"""Greedy continuation by two checkpoints at once: what one of them lost against the other is made more likely.

The token is taken whose ``weight * log p(pre) + (1 - weight) * log p(post)`` is largest among those that ``pre`` finds
at most ``reach`` nats less likely than its best (arXiv 2505.24379; a weight of 2 is its guidance of -2, 1 is ``pre``
alone). Each step runs whole rows again, like :mod:`audit.bench.generation`.
"""

from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from audit.bench.batching import batches, halving
from audit.bench.generation import NextStates, ends_of, next_states, sayable
from audit.bench.layout import Targets
from audit.bench.passes import LoadedModel
from audit.bench.reads.vocabulary_sweep import biased, rows_at_once
from audit.case import Rows
from audit.schema import AuditError


class Guidance(NamedTuple):
    """How strongly the earlier checkpoint is told from the later one, and within which reach (nats) of its best."""

    weight: float = 2.0
    reach: float = 5.0


def guided(
    pre: LoadedModel, post: LoadedModel, rows: Rows, limits: Int[Tensor, " row"], guidance: Guidance, budget: int
) -> list[list[int]]:
    """At most ``limits`` tokens after each row's prompt (the tokens before its answer), in input order; they end before
    an end token of ``pre``.

    AuditError (code 2) for a weight below 1 or a reach that is not above 0, and where vocabularies differ.
    """
    if guidance.weight < 1 or not guidance.reach > 0:
        subject = f"guidance by a weight of {guidance.weight:g} within {guidance.reach:g} nats"
        raise AuditError(f"{subject} leads nowhere", "give a weight of 1 or more and a reach above 0")
    if pre.wrapper.vocab_size != post.wrapper.vocab_size:
        sizes = f"{pre.wrapper.vocab_size} and {post.wrapper.vocab_size}"
        raise AuditError(f"vocabularies of {sizes} words cannot be compared", "give two states of one model")
    prompts, targets = rows.answer_spans[:, 0], Targets(rows)
    continuations: list[list[int]] = [[] for _ in range(len(rows))]

    def continue_batch(index: Tensor | None) -> None:
        chosen = torch.arange(len(rows)) if index is None else index
        models = [next_states(model, targets, chosen) for model in ((pre,) if guidance.weight == 1 else (pre, post))]
        text = _batch(models, targets.rows, chosen, limits[chosen], guidance)
        for i, tokens in zip(chosen.tolist(), text, strict=True):
            continuations[i] = tokens

    with torch.inference_mode():
        width, most = (int(x.max()) if len(rows) else 0 for x in (prompts, limits))
        size = max(1, budget * width // max(width + most, 1))
        for index in batches(prompts, width, size, pre.wrapper.device) if width else ():
            halving(continue_batch, index, len(rows))
    return continuations


def _batch(
    models: list[NextStates], rows: Rows, index: Int[Tensor, " row"], limits: Int[Tensor, " row"], guidance: Guidance
) -> list[list[int]]:
    device, n = models[0].opened.wrapper.device, len(index)
    lengths, limits = rows.answer_spans[index, 0].to(device), limits.to(device)
    ids = torch.zeros(n, int((lengths + limits).max()), dtype=torch.long, device=device)
    retained = rows.ids[index, : ids.shape[1]].to(device)
    ids[:, : retained.shape[1]] = retained
    every, first = torch.arange(n, device=device), lengths.clone()
    ends = torch.tensor(sorted(ends_of(models[0].opened)), device=device)
    going = limits > 0
    while bool(going.any()):
        # rows that ended go along, as a batch of its own length would be another matrix and other rounding
        states = [model(ids[:, : int(lengths.max())], lengths) for model in models]
        token = _chosen(models, states, guidance)
        going &= ~torch.isin(token, ends)
        ids[every[going], lengths[going]] = token[going]
        lengths = lengths + going
        going &= lengths - first < limits
    return [ids[i, a:b].tolist() for i, (a, b) in enumerate(zip(first.tolist(), lengths.tolist(), strict=True))]


def _chosen(models: list[NextStates], states: list[Float[Tensor, "row d"]], guidance: Guidance) -> Int[Tensor, " row"]:
    """The next token of every row; of so many rows at a time as their logits may take memory."""
    size = rows_at_once(models[0].opened.wrapper)
    parts = zip(*(state.split(size) for state in states), strict=True)
    return torch.cat([_most_guided([_logprob(m, s) for m, s in zip(models, part, strict=True)], guidance)
                      for part in parts])  # fmt: skip


def _logprob(model: NextStates, state: Float[Tensor, "row d"]) -> Float[Tensor, "row vocab"]:
    wrapper = model.opened.wrapper
    return sayable(wrapper, biased(wrapper.head(state), model.bias)).float().log_softmax(-1)


def _most_guided(logprobs: list[Float[Tensor, "row vocab"]], guidance: Guidance) -> Int[Tensor, " row"]:
    """The best of the words within reach of the first model's best."""
    pre = logprobs[0]
    best = pre if len(logprobs) == 1 else guidance.weight * pre + (1 - guidance.weight) * logprobs[1]
    far = pre < pre.amax(-1, keepdim=True) - guidance.reach
    return best.masked_fill(far, -torch.inf).argmax(-1)
