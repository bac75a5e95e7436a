"""Which feature of one dictionary is which of another? By the directions that they write."""

from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy import ndarray
from scipy.optimize import linear_sum_assignment
from torch import Tensor
from torch.nn import functional

from audit.schema import AuditError
from saes.sparse_coder import SparseCoder


class FeatureMatch(NamedTuple):
    """Features of two dictionaries in pairs, each at most once, so that the cosines' sum is largest.

    ``first[i]`` is paired with ``second[i]``, ``cosine[i]`` between their decoder rows; ``first_rate`` and
    ``second_rate`` are how often each fires. ``mean_max_cosine``: of every feature of the first, the largest cosine
    with any of the second, on average; several may share that one.
    """

    first: Int[ndarray, " pair"]
    second: Int[ndarray, " pair"]
    cosine: Float[ndarray, " pair"]
    first_rate: Float[ndarray, " pair"]
    second_rate: Float[ndarray, " pair"]
    mean_max_cosine: float


def match_features(
    first: SparseCoder, second: SparseCoder, first_rates: Float[Tensor, " m"], second_rates: Float[Tensor, " n"]
) -> FeatureMatch:
    """Pair features by the cosine of their decoder rows, one to one (the assignment problem, Kuhn 1955).

    AuditError (code 2) for dictionaries of different widths.
    """
    if first.width != second.width:
        do = "match dictionaries of one site of models of one size"
        raise AuditError(f"dictionaries of widths {first.width} and {second.width} have no common directions", do)
    cosines = _unit_rows(first.W_dec) @ _unit_rows(second.W_dec).T
    table = cosines.numpy()
    rows, columns = linear_sum_assignment(table, maximize=True)
    return FeatureMatch(
        np.asarray(rows), np.asarray(columns), table[rows, columns], first_rates.double().numpy()[rows],
        second_rates.double().numpy()[columns], float(table.max(1).mean()),
    )  # fmt: skip


def _unit_rows(W_dec: Float[Tensor, "feature d"]) -> Float[Tensor, "feature d"]:
    """Rows of length 1 in float64; a row of zeros stays one, and is like nothing."""
    return functional.normalize(W_dec.detach().cpu().to(torch.float64), dim=1)
