"""States of known features: sparse sums of directions that fire with unequal frequency, far from the origin."""

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from saes import SparseCoder


class Planted(NamedTuple):
    """Directions of length 1 [feature d], and states [row d]."""

    directions: Tensor
    states: Tensor


def planted(rows: int, d: int = 32, features: int = 48, k: float = 3, seed: int = 0) -> Planted:
    """On average ``k`` features a row, the first ten times as often as the last, offset by ten times the spread."""
    g = torch.Generator().manual_seed(seed)
    directions = functional.normalize(torch.randn(features, d, generator=g), dim=1)
    often = torch.linspace(1, 0.1, features)
    active = torch.rand(rows, features, generator=g) < often / often.sum() * k
    codes = active * (1 + torch.rand(rows, features, generator=g))
    states = codes @ directions + 0.01 * torch.randn(rows, d, generator=g)
    return Planted(directions, states + 10 * states.std() * torch.randn(d, generator=g))


def mean_max_cosine(directions: Tensor, coder: SparseCoder) -> float:
    """How well every planted direction is met by the decoder row that is most like it."""
    return float((directions @ functional.normalize(coder.W_dec, dim=1).T).max(1).values.mean())


def random_coder(activation: str, d: int = 6, features: int = 10, k: int = 3, seed: int = 0) -> SparseCoder:
    """Weights that mean nothing, decoder rows of unequal norms."""
    g = torch.Generator().manual_seed(seed)
    weights = [torch.randn(*shape, generator=g) for shape in ((d, features), (features,), (features, d), (d,))]
    threshold = torch.rand(features, generator=g)
    return SparseCoder(
        *weights,
        activation=activation,  # type: ignore[arg-type]
        k=k if activation == "topk" else None,
        threshold=threshold if activation == "jumprelu" else None,
    )
