"""Prompts without one of their tokens, and what each token carries of the answer."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from numpy import ndarray
from torch import Tensor

from audit.probing import (
    Bench,
    Checkpoint,
    Effort,
    Item,
    OpenCase,
    PersonRows,
    QuestionToken,
    Rows,
    Texts,
    key_logprob,
    person_rows_of,
    question_tokens,
)

_LEAST_ITEMS = 8
_LEAST_TOKENS = 2
"""Questions of fewer tokens have nothing to compare."""


class Prompts(NamedTuple):
    """The audited items, which tokens hold their questions, and what is left out at one go (token positions).

    ``question`` [row pos] marks the question's tokens, ``prompt`` those and the template's (a BOS, a system message).
    ``untaken`` counts items of plain text, or whose question the template rewrites, or is of one token.
    """

    sheet: PersonRows
    tokens: tuple[tuple[QuestionToken, ...], ...]
    units: tuple[tuple[tuple[int, ...], ...], ...]
    question: Bool[ndarray, "row pos"]
    prompt: Bool[ndarray, "row pos"]
    untaken: int

    @property
    def rows(self) -> Rows:
        """The tokenised rows."""
        return self.sheet.rows

    @property
    def items(self) -> tuple[Item, ...]:
        """The items, in the order of the rows."""
        return self.sheet.items


class Slopes(NamedTuple):
    """Integrated gradients [row pos] (NaN beyond the prompt), and how far each row's sum is from what it should be."""

    attribution: Float[ndarray, "row pos"]
    gap: Float[ndarray, " row"]


class LeftOut(NamedTuple):
    """Rows without some of their prompt's tokens: the row that each comes from, and the positions that it lacks."""

    rows: Rows
    source: Int[Tensor, " left"]
    lacks: Bool[Tensor, "left pos"]


def prompts_of(case: OpenCase, texts: Texts, most_items: int, most_template: int, most_tokens: int) -> Prompts | None:
    """At most ``most_items`` items of these texts, every group's first before any group's second, whose questions can
    be parted from the template; None where there is none. Beyond the first :data:`_LEAST_ITEMS` no more than whose
    rows, one without each token, have ``most_tokens`` tokens together.

    The template's tokens are left out one by one too, or, of more than ``most_template``, in so many runs.
    """
    everyone = person_rows_of(case, texts)
    tokens = question_tokens(
        everyone.items, [item.answer for item in everyone.items], case.tokenizer, case.case.template,
        case.function_words.words,
    )  # fmt: skip
    start = everyone.rows.answer_spans[:, 0].tolist()
    usable = [n for n, each in enumerate(tokens) if len(each) >= _LEAST_TOKENS]
    ranked = _dealt(usable, everyone.person)[:most_items]
    spent = np.cumsum([len(tokens[n]) * int(everyone.rows.lengths[n]) for n in ranked])
    taken = max(int((spent <= most_tokens).sum()), _LEAST_ITEMS)
    chosen = torch.tensor(sorted(ranked[:taken]), dtype=torch.int64)
    if not len(chosen):
        return None
    rows, numbers = everyone.rows.take(chosen), chosen.tolist()
    question = np.zeros(tuple(rows.ids.shape), dtype=bool)
    prompt = np.arange(rows.ids.shape[1]) < rows.answer_spans[:, :1].numpy()
    for place, n in enumerate(numbers):
        question[place, [token.position for token in tokens[n]]] = True
    people, person = np.unique(np.array(rows.group_ids), return_inverse=True)
    sheet = PersonRows(
        rows, tuple(everyone.items[n] for n in numbers), tuple(str(p) for p in people), person.reshape(-1)
    )  # fmt: skip
    units = tuple(_units(question[place], start[n], most_template) for place, n in enumerate(numbers))
    untaken = len(tokens) - len(usable)
    return Prompts(sheet, tuple(tokens[n] for n in numbers), units, question, prompt, untaken)


def _dealt(rows: Sequence[int], person: Int[ndarray, " row"]) -> list[int]:
    """Row numbers, everybody's first before anybody's second."""
    seen: dict[int, int] = {}
    ranked: list[tuple[int, int]] = []
    for n in rows:
        ranked.append((seen.setdefault(int(person[n]), 0), n))
        seen[int(person[n])] += 1
    return [n for _, n in sorted(ranked)]


def _units(question: Bool[ndarray, " pos"], start: int, most_template: int) -> tuple[tuple[int, ...], ...]:
    """What is left out at one go: each of the question's tokens, and the template's one by one or in runs."""
    own = [(int(at),) for at in np.flatnonzero(question[:start])]
    template = np.flatnonzero(~question[:start])
    runs = np.array_split(template, min(len(template), most_template)) if len(template) and most_template else []
    return (*own, *(tuple(int(at) for at in run) for run in runs))


def left_out(rows: Rows, units: Sequence[Sequence[Sequence[int]]]) -> LeftOut:
    """Every row once without each of its units, in that order; all else stays as it was, moved up."""
    source = torch.tensor([n for n, each in enumerate(units) for _ in each], dtype=torch.int64)
    lacks = torch.zeros((len(source), rows.ids.shape[1]), dtype=torch.bool)
    flat = [unit for each in units for unit in each]
    where = [(n, at) for n, unit in enumerate(flat) for at in unit]
    lacks[[n for n, _ in where], [at for _, at in where]] = True
    stays = rows.mask[source] & ~lacks
    order = stays.long().argsort(dim=1, descending=True, stable=True)
    mask = torch.arange(stays.shape[1]) < stays.sum(1, keepdim=True)
    shorter = Rows(
        ids=rows.ids[source].gather(1, order) * mask, mask=mask, key=rows.key[source].gather(1, order) & mask,
        answer_spans=rows.answer_spans[source] - lacks.sum(1, keepdim=True),
        item_ids=tuple(rows.item_ids[n] for n in source.tolist()),
        group_ids=tuple(rows.group_ids[n] for n in source.tolist()), template_hash=rows.template_hash,
    )  # fmt: skip
    return LeftOut(shorter, source, lacks)


def contributions(
    bench: Bench, checkpoint: Checkpoint, prompts: Prompts, without: LeftOut
) -> Float[ndarray, "row pos"]:
    """C(x_i, y) = LP(x, y) - LP(x without x_i, y) in nats, LP the mean log-probability of the answer's content tokens;
    NaN where nothing was left out. Of tokens that were left out together each is given an equal share."""
    full, shorter = (key_logprob(bench, checkpoint, rows) for rows in (prompts.rows, without.rows))
    source, lacks = without.source.numpy(), without.lacks.numpy()
    given = np.full(prompts.prompt.shape, np.nan)
    left, position = np.nonzero(lacks)
    lost = (full[source] - shorter) / lacks.sum(1)
    given[source[left], position] = lost[left]
    return given


def gradients(bench: Bench, checkpoint: Checkpoint, prompts: Prompts, effort: Effort) -> Slopes:
    """Integrated gradients of the same log-probability over the embedded prompt."""
    identity: list[Any] = ["integrated gradients", checkpoint.key, prompts.rows.hash, list(effort)]

    def compute() -> dict[str, ndarray]:
        result = bench.integrated(checkpoint, prompts.rows, torch.from_numpy(prompts.prompt), effort)
        return {"attribution": result.attribution.numpy(), "gap": result.gap.numpy()}

    stored = bench.cached(identity, compute)
    attribution = np.where(prompts.prompt, stored["attribution"].astype(np.float64), np.nan)
    return Slopes(attribution, stored["gap"].astype(np.float64))
