"""What a model answers while coefficients of its value vectors are held at base's."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy import ndarray
from torch import Tensor

from audit.probing import (
    KEY_LOGPROB,
    Bench,
    Checkpoint,
    Clamp,
    Read,
    Replace,
    Rows,
    Write,
    row_means,
)
from probes._profiles import after
from probes._value_changes import PEERS, peers_of
from probes._value_columns import Columns, Groups, ValueModel, Values, activity, coefficient_site, groups_of

CLAMPS = ("candidates", "every_coefficient", "candidates_base_head", "every_coefficient_base_head")
"""What is held at base's values, and whose head reads what comes of it: the suspect's own where none is named."""


class Held(NamedTuple):
    """A model, and what is held in it."""

    model: Checkpoint
    writes: tuple[Write, ...]


class Answered(NamedTuple):
    """Mean probability of each row's content tokens, by the model's own head and by base's from the same states."""

    own: Float[ndarray, " row"]
    by_base: Float[ndarray, " row"]


def held(base: ValueModel, of: Groups) -> tuple[Write, ...]:
    """Each row's group's columns at what they are in base on the same row, where its content tokens are predicted."""
    group = groups_of(of.sheet.rows, of.sheet.people)
    chosen = {block: of.columns.at(block, group) for block in range(base.blocks)}
    return tuple(
        Clamp(coefficient_site(block), units, base.checkpoint) for block, units in chosen.items() if units.shape[1]
    )


def all_held(base: Checkpoint, blocks: int) -> tuple[Write, ...]:
    """Every coefficient at what it is in base, where content tokens are predicted."""
    return tuple(Replace(coefficient_site(block), base, "key") for block in range(blocks))


def held_at_mean(model: ValueModel, of: Groups) -> tuple[Write, ...]:
    """Each row's group's columns at their mean in base over the *other* rows of the group: with the same answer where
    there are any; at the row's own where the group has no other row."""
    rows, columns = of.sheet.rows, of.columns
    group, row = groups_of(rows, of.sheet.people), rows.targets("key")[0]
    share = _others(rows, group)
    writes: list[Write] = []
    for block in range(model.blocks):
        units = columns.at(block, group)
        if units.shape[1]:
            mean = (share @ model.coefficients(rows, block)).gather(1, units.clamp_min(0))
            writes.append(Clamp(coefficient_site(block), units, mean[row]))
    return tuple(writes)


def _others(rows: Rows, group: Int[Tensor, " row"]) -> Float[Tensor, "row token"]:
    """By row the weights of the tokens whose mean stands for it."""
    row = rows.targets("key")[0]
    answers = [tuple(rows.ids[i][rows.key[i]].tolist()) for i in range(len(rows))]
    number = {answer: n for n, answer in enumerate(dict.fromkeys(answers))}
    answer = torch.tensor([number[a] for a in answers])
    every = torch.arange(len(rows))
    near = (group[:, None] == group[row][None]) & (every[:, None] != row[None])
    nearer = near & (answer[:, None] == answer[row][None])
    own = every[:, None] == row[None]
    chosen = torch.where(nearer.any(1, keepdim=True), nearer, torch.where(near.any(1, keepdim=True), near, own))
    return chosen.float() / chosen.sum(1, keepdim=True).clamp_min(1)


def at_mean(model: ValueModel, rows: Rows, others: Rows) -> tuple[Write, ...]:
    """Every coefficient at its mean over other rows' content tokens: a model whose value vectors are whole and whose
    coefficients say nothing of the rows."""
    tokens = len(rows.targets("key")[0])

    def mean(block: int) -> Tensor:
        return model.coefficients(others, block).mean(0).expand(tokens, -1)

    return tuple(Replace(coefficient_site(block), mean(block), "key") for block in range(model.blocks))


def answered(bench: Bench, base: Checkpoint, rows: Rows, requests: Sequence[Held]) -> list[Answered]:
    """What models answer under these writes."""
    last = after(bench.open(base).n_blocks - 1)
    states = Read(site=last, at="key")
    by_model: dict[str, list[int]] = {}
    for n, each in enumerate(requests):
        by_model.setdefault(each.model.key, []).append(n)
    outputs: dict[int, Mapping[Read, Tensor]] = {}
    for numbers in by_model.values():
        writes = [(requests[n].writes, None) for n in numbers]
        done = bench.run_variants(requests[numbers[0]].model, rows, (KEY_LOGPROB, states), writes)
        outputs |= {n: each.reads for n, each in zip(numbers, done, strict=True)}
    own = [outputs[n] for n in range(len(requests))]
    read = bench.run_variants(base, rows, (KEY_LOGPROB,), [((Replace(last, x[states], "key"),), None) for x in own])
    return [
        Answered(*(np.exp(row_means(x[KEY_LOGPROB], rows)) for x in (mine, by_base.reads)))
        for mine, by_base in zip(own, read, strict=True)
    ]


def probabilities(bench: Bench, model: Checkpoint, rows: Rows, writes: Sequence[tuple[Write, ...]]) -> list[float]:
    """Mean probability of the content tokens under each of these writes."""
    done = bench.run_variants(model, rows, (KEY_LOGPROB,), [(each, None) for each in writes])
    return [float(np.nanmean(np.exp(row_means(each[KEY_LOGPROB], rows)))) for each in done]


def under_clamps(
    bench: Bench, models: Mapping[str, Checkpoint], base: ValueModel, of: Groups
) -> dict[str, Float[ndarray, "row clamp"]]:
    """Every model's answers under every one of :data:`CLAMPS`."""
    both = held(base, of), all_held(base.checkpoint, base.blocks)
    requests = [Held(model, writes) for model in models.values() for writes in both]
    done = answered(bench, base.checkpoint, of.sheet.rows, requests)
    return {
        name: np.stack([part.own, full.own, part.by_base, full.by_base], 1)
        for name, part, full in zip(models, done[::2], done[1::2], strict=True)
    }


def controls(values: Values, forget: Groups, retain: Groups, seed: int) -> dict[str, float]:
    """Mean probability of the forget rows as they are, and with other columns or other coefficients held: matched
    columns, those of a retained group, and the candidates at the group's mean."""
    base, rows = values.base, forget.sheet.rows
    drawn = torch.Generator().manual_seed(seed)
    other = Columns(*(part[torch.arange(len(forget.sheet.people)) % len(part)] for part in retain.columns))
    writes = {
        "plain": (),
        "matched_columns": held(base, forget._replace(columns=_matched(base, forget, drawn))),
        "retained_columns": held(base, forget._replace(columns=other)),
        "group_mean": held_at_mean(base, forget),
    }
    return {
        f"probability_{name}_{kind}": mean
        for name, model in values._asdict().items()
        if model is not None and name != "base"
        for kind, mean in zip(
            writes, probabilities(base.bench, model.checkpoint, rows, tuple(writes.values())), strict=True
        )
    }


def _matched(base: ValueModel, of: Groups, drawn: torch.Generator) -> Columns:
    """In every column's place one as long and as active, drawn among its peers."""
    active = activity(base, of.sheet.rows)
    unit = of.columns.unit.clone()
    for block in range(base.blocks):
        within = of.columns.block == block
        if bool(within.any()):
            units, which = unit[within].unique(return_inverse=True)
            peers = peers_of(base.vectors(block).cpu(), active[block], units, PEERS)
            pick = torch.randint(peers.shape[1], (len(which),), generator=drawn)
            unit[within] = peers[which, pick]
    return of.columns._replace(unit=unit)
