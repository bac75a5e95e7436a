"""Continuations of prompts drawn from the model's own distribution, many of each, by a seed.

Prompts of one length go forward together, each once; its keys and values are shared by its continuations, which go on
together with those of other prompts, a token at a time. A model that keeps none, or that a hook edits, runs the whole
beginning again at every step. What is drawn depends on the seed, the prompt (by its place among the rows, or by its
tokens alone) and the model, never on how continuations are put into batches: only a draw within rounding of a boundary
between two tokens may fall to the other side.
"""

import hashlib
from collections import defaultdict
from collections.abc import Iterator
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from audit.bench.generation import ends_of, next_states, sayable
from audit.bench.layout import Targets
from audit.bench.passes import LoadedModel
from audit.bench.reads.vocabulary_sweep import biased, rows_at_once
from audit.case import Rows
from audit.schema import AuditError
from audit.wrappers import Continued, NativeWrapper, first_part, reads_key_values


class Draw(NamedTuple):
    """How much is drawn: continuations of every prompt, tokens of each at the most, at which temperature, by which
    seed. ``by_prompt``: each prompt has draws of its own, by its tokens, whatever rows stand beside it; else they go by
    its place among the rows."""

    n: int
    max_new_tokens: int
    temperature: float = 1.0
    seed: int = 0
    by_prompt: bool = False


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
    uniform = _uniform(rows, draw)
    stepper = _Kept if not rows.extra and _keeps(opened) else _Again  # keys and values are made of tokens alone
    drawn: list[list[list[int]]] = [[] for _ in lengths]
    with torch.inference_mode():
        for index, number in _batches(lengths, draw, budget):
            each = _continued(stepper(opened, rows, index), uniform[index, number], draw.temperature)
            for row, tokens in zip(index.tolist(), each, strict=True):
                drawn[row].append(tokens)
    return drawn


def _uniform(rows: Rows, draw: Draw) -> Float[Tensor, "row n step"]:
    """The numbers that decide what is drawn."""
    if not draw.by_prompt:
        generator = torch.Generator().manual_seed(draw.seed)
        return torch.rand(len(rows), draw.n, draw.max_new_tokens, generator=generator)
    each: list[Tensor] = []
    for ids, length in zip(rows.ids.long(), rows.answer_spans[:, 0].tolist(), strict=True):
        named = f"{draw.seed} {ids[:length].tolist()}".encode()
        seed = int.from_bytes(hashlib.sha256(named).digest()[:7], "big")
        each.append(torch.rand(draw.n, draw.max_new_tokens, generator=torch.Generator().manual_seed(seed)))
    return torch.stack(each)


def _batches(
    lengths: list[int], draw: Draw, budget: int
) -> Iterator[tuple[Int[Tensor, " pair"], Int[Tensor, " pair"]]]:
    """Which continuations go forward together: row and number of each, of prompts of one length."""
    by_length: dict[int, list[int]] = defaultdict(list)
    for row, length in enumerate(lengths):
        by_length[length].append(row)
    for length, members in by_length.items():
        index = torch.tensor(members).repeat_interleave(draw.n)
        number = torch.arange(draw.n).repeat(len(members))
        size = max(1, budget // (length + draw.max_new_tokens))
        yield from zip(index.split(size), number.split(size), strict=True)


def _keeps(opened: LoadedModel) -> bool:
    """Whether a model may be run on from keys and values."""
    wrapper = opened.wrapper
    if opened.plays or not isinstance(wrapper, NativeWrapper):
        return False
    return reads_key_values(wrapper.model, wrapper.vocab_size)


def _continued(stepper: "_Again | _Kept", uniform: Float[Tensor, "n step"], temperature: float) -> list[list[int]]:
    """Continuations by the inverse of the distribution function at given uniform numbers. Those that have ended leave
    the batch once they are half of it."""
    wrapper, steps = stepper.opened.wrapper, uniform.shape[1]
    ends = torch.tensor(sorted(ends_of(stepper.opened)), dtype=torch.long)
    tokens = torch.zeros(len(uniform), steps, dtype=torch.long)
    lengths, live = torch.full((len(uniform),), steps), torch.arange(len(uniform))
    for step in range(steps):
        states, size = stepper.states(tokens[live, :step]), rows_at_once(wrapper)
        drawn = [
            _next(sayable(wrapper, biased(wrapper.head(part), stepper.bias)), numbers, temperature)
            for part, numbers in zip(states.split(size), uniform[live, step].split(size), strict=True)
        ]
        tokens[live, step] = torch.cat(drawn)
        lengths[live] = torch.where(torch.isin(tokens[live, step], ends), lengths[live].clamp_max(step), lengths[live])
        going = lengths[live] > step
        if not bool(going.any()):
            break
        if 2 * int(going.sum()) <= len(going) and step + 1 < steps:
            stepper.keep(going.nonzero()[:, 0])
            live = live[going]
    return [row[:length] for row, length in zip(tokens.tolist(), lengths.tolist(), strict=True)]


def _next(logits: Float[Tensor, "n vocab"], uniform: Float[Tensor, " n"], temperature: float) -> Int[Tensor, " n"]:
    """The token at which the distribution function first exceeds a number of [0, 1)."""
    share = (logits.double() / temperature).softmax(-1).cumsum(-1).cpu()
    place = torch.searchsorted(share, uniform[:, None].double() * share[:, -1:], right=True)
    return place[:, 0].clamp_max(share.shape[1] - 1)


class _Kept:
    """Steps with keys and values of what stands before."""

    bias = None

    def __init__(self, opened: LoadedModel, rows: Rows, index: Int[Tensor, " n"]) -> None:
        self.opened, wrapper = opened, opened.wrapper
        assert isinstance(wrapper, NativeWrapper)
        prompts, mine = index.unique_consecutive(return_inverse=True)
        ids = rows.ids[prompts, : int(rows.answer_spans[index[0], 0])].long().to(wrapper.device)
        past = None
        if ids.shape[1] > 1:
            past = first_part(wrapper.model, ids[:, :-1]).take(mine.to(wrapper.device))
        self._last, self._continued = ids[mine, -1:], Continued(wrapper.model, past)

    def states(self, tokens: Int[Tensor, "n step"]) -> Float[Tensor, "n d"]:
        """The final state of each continuation's last token."""
        last = tokens[:, -1:].to(self._last) if tokens.shape[1] else self._last
        return self._continued.states(last)[:, -1]

    def keep(self, index: Int[Tensor, " n"]) -> None:
        """Only these continuations go on."""
        self._continued.keep(index.to(self._last.device))


class _Again:
    """Steps that run the whole row, with what edits it on the way."""

    def __init__(self, opened: LoadedModel, rows: Rows, index: Int[Tensor, " n"]) -> None:
        self.opened, self._rows, self._index = opened, Targets(rows), index
        self._prompts = rows.ids[:, : int(rows.answer_spans[index[0], 0])].long()
        self._next = next_states(opened, self._rows, index)
        self.bias = self._next.bias

    def states(self, tokens: Int[Tensor, "n step"]) -> Float[Tensor, "n d"]:
        """The final state of each continuation's last token."""
        ids = torch.cat([self._prompts[self._index], tokens], 1).to(self.opened.wrapper.device)
        lengths = torch.full((len(ids),), ids.shape[1], device=ids.device)
        return self._next(ids, lengths)

    def keep(self, index: Int[Tensor, " n"]) -> None:
        """Only these continuations go on."""
        self._index = self._index[index]
        self._next = next_states(self.opened, self._rows, self._index)
