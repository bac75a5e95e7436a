"""What a model answers while coefficients of its value vectors are held at base's."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float
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
from probes._value_columns import Columns, ValueModel, coefficient_site, groups_of

CLAMPS = ("candidates", "every_coefficient", "candidates_base_head")
"""What is held at base's values, and whose head reads what comes of it: the suspect's own where none is named."""


class Answered(NamedTuple):
    """Mean probability of each row's content tokens, by the model's own head and by base's from the same states."""

    own: Float[ndarray, " row"]
    by_base: Float[ndarray, " row"]


def held(base: Checkpoint, columns: Columns, rows: Rows, names: Sequence[str], blocks: int) -> tuple[Write, ...]:
    """Each row's group's columns at what they are in base on the same row, where its content tokens are predicted."""
    group = groups_of(rows, names)
    chosen = {block: columns.at(block, group) for block in range(blocks)}
    return tuple(Clamp(coefficient_site(block), units, base) for block, units in chosen.items() if units.shape[1])


def all_held(base: Checkpoint, blocks: int) -> tuple[Write, ...]:
    """Every coefficient at what it is in base, where content tokens are predicted."""
    return tuple(Replace(coefficient_site(block), base, "key") for block in range(blocks))


def at_mean(model: ValueModel, rows: Rows, others: Rows) -> tuple[Write, ...]:
    """Every coefficient at its mean over other rows' content tokens: a model whose value vectors are whole and whose
    coefficients say nothing of the rows."""
    tokens = len(rows.targets("key")[0])

    def mean(block: int) -> Tensor:
        return model.coefficients(others, block).mean(0).expand(tokens, -1)

    return tuple(Replace(coefficient_site(block), mean(block), "key") for block in range(model.blocks))


def answered(bench: Bench, model: Checkpoint, base: Checkpoint, rows: Rows, writes: tuple[Write, ...]) -> Answered:
    """What a model answers under these writes."""
    last = after(bench.open(base).n_blocks - 1)
    states = Read(site=last, at="key")
    outputs = bench.run(model, rows, (KEY_LOGPROB, states), writes)
    read = bench.run(base, rows, (KEY_LOGPROB,), (Replace(last, outputs[states], "key"),))
    return Answered(*(np.exp(row_means(x[KEY_LOGPROB], rows)) for x in (outputs, read)))


def under_clamps(
    bench: Bench, models: Mapping[str, Checkpoint], rows: Rows, names: Sequence[str], columns: Columns
) -> dict[str, Float[ndarray, "row clamp"]]:
    """Every model's answers under every one of :data:`CLAMPS`."""
    base = models["base"]
    blocks = bench.open(base).n_blocks
    some, every = held(base, columns, rows, names, blocks), all_held(base, blocks)
    scores: dict[str, ndarray] = {}
    for name, model in models.items():
        few = answered(bench, model, base, rows, some)
        full = np.exp(row_means(bench.run(model, rows, (KEY_LOGPROB,), every)[KEY_LOGPROB], rows))
        scores[name] = np.stack([few.own, full, few.by_base], 1)
    return scores
