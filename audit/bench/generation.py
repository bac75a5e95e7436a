"""Greedy continuation of prompts, through the same forward pass as everything else.

Each step runs the whole prefix again: no cache of keys and values, hence the same edits, the same backends and the same
numbers as a pass. Meant for short answers.
"""

from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from audit.bench.batching import batches, halving
from audit.bench.layout import Geometry, Targets
from audit.bench.passes import Job, LoadedModel, entering
from audit.bench.reads.readout import FINAL
from audit.bench.reads.vocabulary_sweep import most_likely
from audit.case import Rows
from audit.schema import Checkpoint
from audit.wrappers import Batch, Tap, Wrapper


def _no_other(ckpt: Checkpoint) -> LoadedModel:
    raise AssertionError(f"generation runs one model, not {ckpt.source} beside it")


def ends_of(opened: LoadedModel) -> frozenset[int]:
    """Tokens after which the model has nothing to say."""
    model = getattr(opened.wrapper, "model", None)
    ends = getattr(getattr(model, "generation_config", None), "eos_token_id", None)
    return frozenset(ends if isinstance(ends, list) else [] if ends is None else [ends])


def sayable(wrapper: Wrapper, logits: Float[Tensor, "row vocab"]) -> Float[Tensor, "row vocab"]:
    """Logits of what can be said: the token that stands for an image is no word, and nothing goes on after it."""
    token = wrapper.image_token
    if token is None or token >= logits.shape[-1]:
        return logits
    return logits.index_fill(-1, torch.tensor([token], device=logits.device), float("-inf"))


def greedy(opened: LoadedModel, rows: Rows, max_new_tokens: int, budget: int) -> list[list[int]]:
    """What does the model say after each row's prompt (the tokens before its answer)? Ends before an end token."""
    prompts = rows.answer_spans[:, 0]
    targets = Targets(rows)
    continuations: list[list[int]] = [[] for _ in range(len(rows))]

    def continue_batch(index: Tensor | None) -> None:
        chosen = torch.arange(len(rows)) if index is None else index
        for i, tokens in zip(chosen.tolist(), _batch(opened, targets, chosen, prompts, max_new_tokens), strict=True):
            continuations[i] = tokens

    with torch.inference_mode():
        width = int(prompts.max()) if len(rows) else 0
        most = max(1, budget * width // max(width + max_new_tokens, 1))
        for index in batches(prompts, width, most, opened.wrapper.device) if width else ():
            halving(continue_batch, index, len(rows))
    return continuations


def _batch(
    opened: LoadedModel, targets: Targets, index: Int[Tensor, " row"], prompts: Int[Tensor, " all_rows"], most: int
) -> list[list[int]]:
    wrapper, rows, n = opened.wrapper, targets.rows, len(index)
    following = next_states(opened, targets, index)
    lengths = prompts[index].to(wrapper.device)
    ids = torch.zeros(n, int(lengths.max()) + most, dtype=torch.long, device=wrapper.device)
    ids[:, : rows.ids.shape[1]] = rows.ids[index, : ids.shape[1]].to(wrapper.device)
    going, every = torch.ones(n, dtype=torch.bool, device=wrapper.device), torch.arange(n, device=wrapper.device)
    ends = torch.tensor(sorted(ends_of(opened)), device=wrapper.device)
    first = lengths.clone()
    for _ in range(most):
        state = following(ids[:, : int(lengths.max())], lengths)
        token = most_likely(wrapper, state, following.bias, wrapper.image_token)
        going &= ~torch.isin(token, ends)
        if not bool(going.any()):
            break
        ids[every[going], lengths[going]] = token[going]
        lengths = lengths + going
    return [ids[i, a:b].tolist() for i, (a, b) in enumerate(zip(first.tolist(), lengths.tolist(), strict=True))]


class NextStates(NamedTuple):
    """Runs whole rows of a batch, with what edits the model on the way; ``bias``: what is added to the logits."""

    opened: LoadedModel
    where: Geometry
    taps: list[Tap]
    bias: Tensor | None

    def __call__(self, ids: Int[Tensor, "row pos"], lengths: Int[Tensor, " row"]) -> Float[Tensor, "row d"]:
        """The final state of each row's last token."""
        final: list[Tensor] = []
        every = torch.arange(len(ids), device=ids.device)
        mask = torch.arange(ids.shape[1], device=ids.device) < lengths[:, None]
        last = Tap(FINAL, lambda s: final.append(s[every, lengths - 1]))
        self.opened.wrapper.forward(Batch(ids, mask, None, self.where.extra), [*self.taps, last])
        return final[0]


def next_states(opened: LoadedModel, targets: Targets, index: Int[Tensor, " row"]) -> NextStates:
    """What runs the rows at ``index``, as far as they have been continued."""
    where = Geometry(targets, index, None, opened.wrapper.device)
    taps, _, bias = entering(opened, _no_other, Job(targets.rows, (), (), None, None), where)
    return NextStates(opened, where, taps, bias)
