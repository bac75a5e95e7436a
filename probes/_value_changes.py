"""What became of the columns that write a group's answers: vectors, coefficients, and what both write together."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional

from audit.probing import PersonRows
from probes._value_columns import Columns, ValueModel, groups_of, toward_answers

PEERS = 50
_UNITS_AT_ONCE = 256


class Moved(NamedTuple):
    """One model's value vectors of a block against base's: cosine, and distance in lengths of base's."""

    cosine: Float[Tensor, " unit"]
    distance: Float[Tensor, " unit"]


def moved(own: Float[Tensor, "unit d"], base: Float[Tensor, "unit d"]) -> Moved:
    """How far each value vector lies from base's. A cosine is at most 1."""
    own, base = own.float(), base.float()
    distance = (own - base).norm(dim=1) / base.norm(dim=1).clamp_min(1e-12)
    cosine = functional.cosine_similarity(own, base, dim=1).clamp(-1, 1)
    return Moved(torch.where(distance == 0, 1.0, cosine), distance)


def peers_of(
    vectors: Float[Tensor, "unit d"],
    activity: Float[Tensor, " unit"],
    units: Int[Tensor, " candidate"],
    count: int,
) -> Int[Tensor, "candidate peer"]:
    """For each of some units the ``count`` others of the block most like it in length and activity (mean size of the
    coefficient), in standard deviations of the logarithms."""
    features = torch.stack([vectors.float().norm(dim=1), activity.float()], 1).clamp_min(1e-9).log()
    features = (features - features.mean(0)) / features.std(0).clamp_min(1e-9)
    count = min(count, len(features) - 1)
    nearest: list[Tensor] = []
    for portion in units.split(_UNITS_AT_ONCE):
        gap = torch.cdist(features[portion], features)
        gap[torch.arange(len(portion)), portion] = float("inf")
        nearest.append(gap.topk(count, dim=1, largest=False).indices)
    return torch.cat(nearest) if nearest else torch.zeros(0, count, dtype=torch.long)


def percentile(
    values: Float[Tensor, " unit"], units: Int[Tensor, " candidate"], peers: Int[Tensor, "candidate peer"]
) -> Float[Tensor, " candidate"]:
    """The share of its peers that a unit exceeds; ties count half, so that where nothing moved everything is at .5."""
    own = values[units][:, None]
    return ((values[peers] < own).float() + 0.5 * (values[peers] == own).float()).mean(1)


def kinship(base: ValueModel, other: ValueModel) -> float:
    """Mean cosine of all value vectors with base's of the same place: about 0 where units are in another order."""
    cosines = [moved(other.vectors(b).cpu(), base.vectors(b).cpu()).cosine.mean() for b in range(base.blocks)]
    return float(torch.stack(cosines).mean())


class Drift(NamedTuple):
    """By group and column: cosine, distance, and the share of peers that moved less."""

    cosine: Float[Tensor, "group column"]
    distance: Float[Tensor, "group column"]
    percentile: Float[Tensor, "group column"]


def drift(base: ValueModel, other: ValueModel, columns: Columns, activity: Sequence[Float[Tensor, " unit"]]) -> Drift:
    """How far the columns moved from base, and how far among peers of their block."""
    filled = Drift(*(torch.zeros_like(columns.strength) for _ in range(3)))
    for block in range(base.blocks):
        within = columns.block == block
        if not bool(within.any()):
            continue
        units, which = columns.unit[within].unique(return_inverse=True)
        change = moved(other.vectors(block).cpu(), base.vectors(block).cpu())
        peers = peers_of(base.vectors(block).cpu(), activity[block], units, PEERS)
        filled.cosine[within], filled.distance[within] = change.cosine[units][which], change.distance[units][which]
        filled.percentile[within] = percentile(change.distance, units, peers)[which]
    return filled


class Activated(NamedTuple):
    """What a model does with the columns of base's choice, where the answers' content tokens are predicted.

    ``share``: by group, the coefficients' share of base's (projected on base's: 1 unchanged, 0 gone); ``trace``: by
    group, what coefficient times vector adds to the content token's logit over all columns, read by base's head;
    ``mean``: mean coefficients by group and column.
    """

    share: Float[Tensor, " group"]
    trace: Float[Tensor, " group"]
    mean: Float[Tensor, "group column"]


def activated(base: ValueModel, model: ValueModel, sheet: PersonRows, columns: Columns) -> Activated:
    """Coefficients and what they write, by group."""
    group = groups_of(sheet.rows, sheet.people)[sheet.rows.targets("key")[0]]
    toward = toward_answers(base, sheet.rows)
    groups = len(sheet.people)
    of, own, trace = torch.zeros(groups), torch.zeros(groups), torch.zeros(groups)
    mean = torch.zeros_like(columns.strength)
    tokens = torch.bincount(group, minlength=groups).clamp_min(1).float()
    for block in range(base.blocks):
        within = columns.block == block
        if not bool(within.any()):
            continue
        chosen = within[group]
        at = torch.where(within, columns.unit, 0)[group]
        was = base.coefficients(sheet.rows, block).gather(1, at) * chosen
        now = model.coefficients(sheet.rows, block).gather(1, at) * chosen
        per_unit = (toward @ model.vectors(block).float().cpu().T).gather(1, at)
        of.index_add_(0, group, (was * was).sum(1))
        own.index_add_(0, group, (was * now).sum(1))
        trace.index_add_(0, group, (now * per_unit).sum(1))
        mean.index_add_(0, group, now)
    return Activated(own / of.clamp_min(1e-12), trace / tokens, mean / tokens[:, None])
