"""Continuations of prompts drawn from the model's own distribution, many of each, by a seed.

Each prompt is run once and its keys and values are shared by all continuations, which go forward together, a token at a
time; a model that keeps none, or that a hook edits, runs the whole beginning again at every step. What is drawn depends
on the seed, the prompt's place among the rows and the model, never on how continuations are put into batches.
"""

from typing import Any, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from audit.bench.generation import ends_of, next_states, sayable
from audit.bench.layout import Targets
from audit.bench.passes import LoadedModel
from audit.bench.reads.vocabulary_sweep import biased, rows_at_once
from audit.case import Rows
from audit.schema import AuditError
from audit.wrappers import NativeWrapper, first_part, reads_key_values, states_after


class Draw(NamedTuple):
    """How much is drawn: continuations of every prompt, tokens of each at the most, at which temperature, by which
    seed."""

    n: int
    max_new_tokens: int
    temperature: float = 1.0
    seed: int = 0


def sample(opened: LoadedModel, rows: Rows, draw: Draw, budget: int) -> list[list[list[int]]]:
    """Continuations of each row's prompt (the tokens before its answer), which end before an end token.

    AuditError (code 2) where nothing stands before an answer, or nothing can be drawn.
    """
    if draw.n < 1 or draw.max_new_tokens < 1 or not draw.temperature > 0:
        problem = f"nothing can be drawn: {draw.n} continuations of {draw.max_new_tokens} tokens at temperature "
        raise AuditError(f"{problem}{draw.temperature:g}", "give numbers above 0")
    lengths = rows.answer_spans[:, 0].tolist()
    if 0 in lengths:
        raise AuditError(
            f"item {rows.item_ids[lengths.index(0)]!r}: no token stands before its answer", "give a prompt"
        )
    uniform = torch.rand(len(rows), draw.n, draw.max_new_tokens, generator=torch.Generator().manual_seed(draw.seed))
    stepper = _Kept if not rows.extra and _keeps(opened) else _Again  # keys and values are made of tokens alone
    drawn: list[list[list[int]]] = []
    with torch.inference_mode():
        for row, length in enumerate(lengths):
            parts = uniform[row].split(max(1, budget // (length + draw.max_new_tokens)))
            each = [_continued(stepper(opened, rows, row, len(part)), part, draw.temperature) for part in parts]
            drawn.append([tokens for part in each for tokens in part])
    return drawn


def _keeps(opened: LoadedModel) -> bool:
    """Whether a model may be run on from keys and values."""
    wrapper = opened.wrapper
    if opened.plays or not isinstance(wrapper, NativeWrapper):
        return False
    return reads_key_values(wrapper.model, wrapper.vocab_size)


def _continued(stepper: "_Again | _Kept", uniform: Float[Tensor, "n step"], temperature: float) -> list[list[int]]:
    """Continuations by the inverse of the distribution function at given uniform numbers."""
    wrapper, steps = stepper.opened.wrapper, uniform.shape[1]
    ends = torch.tensor(sorted(ends_of(stepper.opened)), dtype=torch.long)
    tokens = torch.zeros(len(uniform), steps, dtype=torch.long)
    lengths = torch.full((len(uniform),), steps)
    for step in range(steps):
        states, size = stepper.states(tokens[:, :step]), rows_at_once(wrapper)
        for part, numbers, next_ones in zip(
            *(x.split(size) for x in (states, uniform[:, step], tokens[:, step])), strict=True
        ):
            logits = sayable(wrapper, biased(wrapper.head(part), stepper.bias))
            share = (logits.double() / temperature).softmax(-1).cumsum(-1).cpu()
            place = torch.searchsorted(share, numbers[:, None].double() * share[:, -1:], right=True)
            next_ones.copy_(place[:, 0].clamp_max(share.shape[1] - 1))
        lengths = torch.where(torch.isin(tokens[:, step], ends) & (lengths == steps), step, lengths)
        if bool((lengths <= step).all()):
            break
    return [row[:length] for row, length in zip(tokens.tolist(), lengths.tolist(), strict=True)]


class _Kept:
    """Steps with keys and values of what stands before."""

    bias = None

    def __init__(self, opened: LoadedModel, rows: Rows, row: int, n: int) -> None:
        self.opened, self.wrapper = opened, opened.wrapper
        assert isinstance(self.wrapper, NativeWrapper)
        prompt = rows.ids[row : row + 1, : int(rows.answer_spans[row, 0])].long().to(self.wrapper.device)
        self._model = self.wrapper.model
        self._last = prompt[:, -1:].expand(n, -1)
        self._past: Any = None
        if prompt.shape[1] > 1:
            self._past = first_part(self._model, prompt[:, :-1]).take(torch.zeros(n, dtype=torch.long))

    def states(self, tokens: Int[Tensor, "n step"]) -> Float[Tensor, "n d"]:
        """The final state of each continuation's last token."""
        last = tokens[:, -1:].to(self._last) if tokens.shape[1] else self._last
        states, self._past = states_after(self._model, self._past, last)
        return states[:, -1]


class _Again:
    """Steps that run the whole row, with what edits it on the way."""

    def __init__(self, opened: LoadedModel, rows: Rows, row: int, n: int) -> None:
        self.opened = opened
        self._prompt = rows.ids[row : row + 1, : int(rows.answer_spans[row, 0])].long().expand(n, -1)
        self._next = next_states(opened, Targets(rows), torch.full((n,), row))
        self.bias = self._next.bias

    def states(self, tokens: Int[Tensor, "n step"]) -> Float[Tensor, "n d"]:
        """The final state of each continuation's last token."""
        ids = torch.cat([self._prompt, tokens], 1).to(self.opened.wrapper.device)
        lengths = torch.full((len(ids),), ids.shape[1], device=ids.device)
        return self._next(ids, lengths)
