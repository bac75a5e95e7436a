"""Means over each row's tokens: the one way from packed token values to a number a row."""

from math import nan

import torch
from jaxtyping import Float, Int
from numpy import ndarray
from torch import Tensor

from audit.case.rows import Rows
from audit.schema import Positions


def row_mean(
    values: Float[Tensor, " token"], row: Int[Tensor, " token"], n: int, empty: float = nan
) -> Float[Tensor, " row"]:
    """Mean of packed token values over each of ``n`` rows, in their precision and with their gradient.

    ``row`` names the row of each token; a row without tokens is ``empty``.
    """
    count = torch.bincount(row, minlength=n)
    total = values.new_zeros(n).index_add(0, row, values)
    return torch.where(count > 0, total / count.clamp_min(1), empty)


def row_means(values: Float[Tensor, " token"], rows: Rows, at: Positions = "key") -> Float[ndarray, " row"]:
    """Mean of packed token values over each row, in double precision; NaN for a row without such tokens."""
    return row_mean(values.detach().double(), rows.targets(at)[0], len(rows)).numpy()
