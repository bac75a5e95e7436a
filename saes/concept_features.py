"""Which features speak for a concept, by the two published rules, and how far each is to be moved.

Both rules compare the states of a concept with other states and know nothing of positions, of labels of single states
or of what the model answers. Sources: SAeUron's score of normalised means (arXiv 2501.18052, released code), and the
firing rates of arXiv 2410.19278 as SAEBench has them.
"""

from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from audit.bench import GatedClamp
from audit.schema import Site
from saes.sparse_coder import SparseCoder

TYPICAL = 0.95
"""A feature's typical code is this quantile of its active codes on the concept's states."""
_CODES_AT_ONCE = 1 << 23


class ConceptCodes(NamedTuple):
    """What every feature does on a concept's states and on others, in float64.

    ``mean`` and ``rate``: its mean code and the share of states in which it is active, ``others_mean`` and
    ``others_rate`` the same elsewhere, ``overall`` its mean over both; ``typical``: the quantile :data:`TYPICAL` of its
    active codes on the concept's states, 0 where it never is.
    """

    mean: Float[Tensor, " feature"]
    others_mean: Float[Tensor, " feature"]
    rate: Float[Tensor, " feature"]
    others_rate: Float[Tensor, " feature"]
    overall: Float[Tensor, " feature"]
    typical: Float[Tensor, " feature"]


def concept_codes(
    coder: SparseCoder, concept: Float[Tensor, "state d"], others: Float[Tensor, "other d"]
) -> ConceptCodes:
    """The codes of a concept's states beside others, some states at a time."""
    own, active = _sums(coder, concept)
    elsewhere, active_elsewhere = _sums(coder, others)
    n, m = max(len(concept), 1), max(len(others), 1)
    fires = (active > 0).nonzero()[:, 0]
    typical = torch.zeros(coder.features, dtype=torch.float64)
    step = max(1, _CODES_AT_ONCE // n)
    for part in fires.split(step):
        codes = column_codes(coder, concept, part).double()
        codes = torch.where(codes > 0, codes, torch.nan)
        typical[part] = torch.from_numpy(np.nanquantile(codes.numpy(), TYPICAL, axis=0))
    both = (own + elsewhere) / max(len(concept) + len(others), 1)
    return ConceptCodes(own / n, elsewhere / m, active / n, active_elsewhere / m, both, typical)


def column_codes(
    coder: SparseCoder, states: Float[Tensor, "state d"], columns: Int[Tensor, " column"]
) -> Float[Tensor, "state column"]:
    """The codes of some features. AssertionError for a TopK dictionary, whose codes need all of them."""
    assert coder.k is None, "which features are the largest takes the codes of all"
    pre = states.float() @ coder.W_enc[:, columns].float() + _bias(coder, columns)
    return torch.where(pre > _threshold(coder)[columns], pre, 0.0)


def normalised_mean_scores(codes: ConceptCodes) -> Float[Tensor, " feature"]:
    """SAeUron's score: a feature's share in the sum of mean codes on the concept, less its share elsewhere."""
    own, elsewhere = codes.mean.sum().clamp_min(1e-300), codes.others_mean.sum().clamp_min(1e-300)
    return codes.mean / own - codes.others_mean / elsewhere


def above_percentile(scores: Float[Tensor, " feature"], percentile: float) -> Int[Tensor, " chosen"]:
    """The features whose score is positive and exceeds a percentile of all scores, the best first."""
    bar = max(float(np.percentile(scores.numpy(), percentile)), 0.0)
    order = torch.argsort(scores, descending=True, stable=True)
    return order[scores[order] > bar]


def by_firing_rate(codes: ConceptCodes, most_elsewhere: float, count: int) -> Int[Tensor, " chosen"]:
    """The ``count`` features that fire most often on the concept, of those that fire on less than the share
    ``most_elsewhere`` of other states; ties go to the smaller number. None that never fires on the concept."""
    rate = torch.where(codes.others_rate < most_elsewhere, codes.rate, 0.0)
    order = torch.argsort(rate, descending=True, stable=True)[:count]
    return order[rate[order] > 0]


class Moves(NamedTuple):
    """How a concept's features are moved: z_j <- z_j + slope_j z_j + offset_j where z_j exceeds gate_j."""

    features: Int[Tensor, " column"]
    gate: Float[Tensor, " column"]
    slope: Float[Tensor, " column"]
    offset: Float[Tensor, " column"]


def clamped(codes: ConceptCodes, features: Int[Tensor, " column"], kappa: float) -> Moves:
    """z_j <- -kappa typical_j wherever the feature is active. A kappa of 0 moves nothing: it is no ablation."""
    live = float(kappa != 0)
    zero = torch.zeros(len(features))
    return Moves(features, zero, zero - live, -kappa * codes.typical[features].float())


def clamped_to(features: Int[Tensor, " column"], strength: float) -> Moves:
    """z_j <- -strength wherever the feature is active, in the dictionary's own units (arXiv 2410.19278)."""
    zero = torch.zeros(len(features))
    return Moves(features, zero, zero - float(strength != 0), zero - strength)


def multiplied(codes: ConceptCodes, features: Int[Tensor, " column"], gamma: float) -> Moves:
    """z_j <- gamma mean_j z_j where z_j exceeds its mean over all states (SAeUron). A gamma of 0 moves nothing."""
    factor = gamma * codes.mean[features].float()
    slope = factor - 1 if gamma else torch.zeros(len(features))
    return Moves(features, codes.overall[features].float(), slope, torch.zeros(len(features)))


def joined(moves: "list[Moves] | tuple[Moves, ...]") -> Moves:
    """Several concepts' moves at once: a feature of two of them is moved once, from the lower gate and by the more
    negative slope and offset, so that neither concept is moved less than by itself."""
    features = torch.cat([move.features for move in moves]) if moves else torch.zeros(0, dtype=torch.long)
    unique, place = features.unique(return_inverse=True)
    least = [_least(torch.cat([getattr(m, part) for m in moves]) if moves else torch.zeros(0), place, len(unique))
             for part in ("gate", "slope", "offset")]  # fmt: skip
    return Moves(unique, *least)


def gated_clamp(coder: SparseCoder, site: Site, moves: Moves, leading: int = 0) -> GatedClamp:
    """The write of these moves: encoder columns, biases, thresholds and decoder rows of the features alone.

    AssertionError for a TopK dictionary, see :func:`saes.thresholds.with_threshold`.
    """
    assert coder.k is None, "which features are the largest takes the codes of all"
    at = moves.features
    threshold = torch.maximum(_threshold(coder)[at], moves.gate.float())
    return GatedClamp(
        site, at, coder.W_enc[:, at].T.float().contiguous(), _bias(coder, at), threshold, coder.W_dec[at].float(),
        moves.slope.float(), moves.offset.float(), leading,
    )  # fmt: skip


# ---- parts ------------------------------------------------------------------------------------------------------
def _sums(coder: SparseCoder, states: Float[Tensor, "state d"]) -> tuple[Tensor, Tensor]:
    """Of every feature the sum of its codes and the number of states in which it is active."""
    total, active = (torch.zeros(coder.features, dtype=torch.float64) for _ in range(2))
    for part in states.split(max(1, _CODES_AT_ONCE // coder.features)):
        codes = coder.encode(part)
        total += codes.double().sum(0)
        active += (codes > 0).sum(0)
    return total, active


def _bias(coder: SparseCoder, columns: Int[Tensor, " column"]) -> Float[Tensor, " column"]:
    """The encoder's bias with what centring takes off, summed in float64."""
    bias = coder.b_enc[columns].double()
    if coder.centred:
        bias = bias - coder.b_dec.double() @ coder.W_enc[:, columns].double()
    return bias.float()


def _threshold(coder: SparseCoder) -> Float[Tensor, " feature"]:
    zero = torch.zeros(coder.features)
    return zero if coder.threshold is None else coder.threshold.float().clamp_min(0)


def _least(values: Tensor, place: Tensor, count: int) -> Tensor:
    return torch.zeros(count).scatter_reduce(0, place, values, "amin", include_self=False)
