"""Does a value vector carry an answer? Its coefficient is set to zero, against vectors as long and as active beside it.

One candidate a row: the rows are repeated once a candidate, and each copy has another column of the state set to zero.
No weight is touched or copied.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy import ndarray
from torch import Tensor

from audit.probing import KEY_LOGPROB, Bench, Checkpoint, Rows, Scale, key_logprob, row_means
from probes._value_columns import coefficient_site

CONTROLS = 20
_ROWS_AT_ONCE = 4096


class Filtered(NamedTuple):
    """What one column's ablation costs (nats a content token): its own group's rows, rows of others, and the most that
    a matched column's ablation costs its group's rows."""

    drop: float
    unrelated: float
    limit: float

    @property
    def carries(self) -> bool:
        """More than every matched column, and more than it costs others."""
        return self.drop > max(self.limit, self.unrelated)


def ablation_drops(
    bench: Bench, model: Checkpoint, rows: Rows, block: int, units: Int[Tensor, " candidate"]
) -> Float[ndarray, "candidate row"]:
    """By how much the mean log-probability of each row's content tokens falls when one unit's coefficient is 0."""
    plain, n = key_logprob(bench, model, rows), len(rows)
    drops: list[ndarray] = []
    for portion in units.split(max(1, _ROWS_AT_ONCE // max(n, 1))):
        columns, column = portion.unique(return_inverse=True)
        factor = torch.ones(len(portion) * n, len(columns))
        factor[torch.arange(len(factor)), column.repeat_interleave(n)] = 0.0
        everyone = rows.take(torch.arange(n).repeat(len(portion)))
        write = Scale(coefficient_site(block), columns, factor, per_row=True)
        without = row_means(bench.run(model, everyone, (KEY_LOGPROB,), (write,))[KEY_LOGPROB], everyone)
        drops.append(plain - without.reshape(len(portion), n))
    return np.concatenate(drops) if drops else np.zeros((0, n))


def filtered(
    bench: Bench, model: Checkpoint, related: Rows, unrelated: Rows, place: tuple[int, Sequence[int]]
) -> Filtered:
    """One candidate: ``place`` is its block and its unit, followed by those of the matched columns."""
    block, units = place[0], torch.tensor(place[1])
    own = ablation_drops(bench, model, related, block, units).mean(1)
    other = ablation_drops(bench, model, unrelated, block, units[:1]).mean(1)
    return Filtered(float(own[0]), float(other[0]), float(np.percentile(own[1:], 99)) if len(own) > 1 else 0.0)
