"""The other run: the same question about somebody else, token by token; mean activations where there is no such text.

A partner is a row of another group whose prompt begins and ends like this row's. What lies between is taken to be the
entity. It is replaced by the partner's, cut or repeated to the same number of tokens, in the prompt and wherever the
answer repeats it before the content tokens; the content tokens stay, since they are what is predicted. Never zero:
a state that no text gives says more about the patch than about the model (arXiv 2309.16042).
"""

import random
from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import torch
from jaxtyping import Bool
from torch import Tensor

from audit.case import Rows

SAME_TEMPLATE = 0.5
"""Share of a prompt's tokens that must agree at its two ends for another prompt to be of the same template."""


class Swapped(NamedTuple):
    """Corrupted rows, and which of them found a partner (the others are unchanged and need mean states)."""

    rows: Rows
    partnered: Bool[Tensor, " row"]


def swapped(rows: Rows, pool: Rows, seed: int) -> Swapped:
    """Every row with its entity replaced by that of a partner drawn from ``pool`` (another group, same template)."""
    rng = random.Random(f"corruption {seed}")
    prompts = [_prompt(pool, n) for n in range(len(pool))]
    ids, partnered = rows.ids.clone(), torch.zeros(len(rows), dtype=torch.bool)
    order = list(range(len(pool)))
    rng.shuffle(order)
    for n in range(len(rows)):
        mine = _prompt(rows, n)
        fitting = (at for at in order if pool.group_ids[at] != rows.group_ids[n])
        spans = ((at, _entity(mine, prompts[at])) for at in fitting)
        partner, span = next(((at, span) for at, span in spans if span is not None), (None, None))
        rng.shuffle(order)
        if partner is None or span is None:
            continue
        start, end, theirs = span
        ids[n] = _replaced(rows, n, mine[start:end], theirs)
        partnered[n] = bool((ids[n] != rows.ids[n]).any())
    return Swapped(replace(rows, ids=ids), partnered)


def _prompt(rows: Rows, n: int) -> list[int]:
    return rows.ids[n, : int(rows.answer_spans[n, 0])].tolist()


def _entity(mine: Sequence[int], theirs: Sequence[int]) -> tuple[int, int, list[int]] | None:
    """Where this prompt differs from the other (between what they share at both ends), and what stands there."""
    short = min(len(mine), len(theirs))
    first = next((i for i in range(short) if mine[i] != theirs[i]), short)
    last = next((i for i in range(short - first) if mine[-1 - i] != theirs[-1 - i]), short - first)
    if (first + last) < SAME_TEMPLATE * len(mine) or first + last >= short:
        return None
    return first, len(mine) - last, list(theirs[first : len(theirs) - last])


def _replaced(rows: Rows, n: int, entity: list[int], theirs: list[int]) -> Tensor:
    """The row with every stretch of the entity's tokens replaced, content tokens excepted."""
    ids = rows.ids[n].clone()
    fill = [theirs[i % len(theirs)] for i in range(len(entity))]
    tokens: list[int] = ids.tolist()
    for at in range(len(tokens) - len(entity) + 1):
        inside = slice(at, at + len(entity))
        if tokens[inside] == entity and not bool(rows.key[n, inside].any()):
            ids[inside] = torch.tensor(fill)
    return ids
