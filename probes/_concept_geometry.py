"""Where the concept lies in a model's states: its direction from base to suspect, and whether edited states still look
like states of data.

A direction is the difference of two means: of states before pictures with the concept, and of the same questions before
pictures without it. It is taken at the vision block that the language model reads (mean over the patches) and after
every block of the language model (the state that predicts the concept's first token).
"""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from numpy import ndarray
from torch import Tensor

from audit.probing import Read, Rows, Site
from probes._concept_scene import ConceptScene, Pair

SHRINKAGE = 0.1
"""So much of a covariance is its own mean variance in every direction."""


class OffManifold(NamedTuple):
    """By picture with the concept: the mean Mahalanobis distance of its states from base's states of other pictures,
    and their mean norm, both relative to base's own of the same picture."""

    distance: Float[ndarray, " row"]
    norm: Float[ndarray, " row"]


def off_manifold(states: Mapping[str, Float[Tensor, "row pos d"]], n: int) -> dict[str, OffManifold]:
    """Every model's states of the first ``n`` rows against base's states of the other rows."""
    data = states["base"][n:].flatten(0, 1).double()
    mean = data.mean(0)
    covariance = torch.cov(data.T)
    covariance = covariance.reshape(data.shape[1], data.shape[1])
    level = covariance.diagonal().mean().clamp_min(1e-12)
    shrunk = (1 - SHRINKAGE) * covariance + SHRINKAGE * level * torch.eye(len(mean), dtype=torch.double)
    half = torch.linalg.inv(torch.linalg.cholesky(shrunk))

    def of(x: Tensor) -> tuple[ndarray, ndarray]:
        shown = x[:n].double()
        return ((shown - mean) @ half.T).norm(dim=-1).mean(1).numpy(), shown.norm(dim=-1).mean(1).numpy()

    distance, norm = of(states["base"])
    return {name: OffManifold(of(x)[0] / distance, of(x)[1] / norm) for name, x in states.items()}


def text_sites(scene: ConceptScene) -> tuple[Site, ...]:
    """The residual stream after every block of the language model."""
    return tuple(Site(part="resid_out", block=block) for block in range(scene.bench.open(scene.cast.base).n_blocks))


def answer_states(scene: ConceptScene, name: str, pair: Pair) -> Float[Tensor, "row site d"]:
    """A model's states before each row's first content token, after every block: the present rows, then the others."""
    rows = pair.rows
    reads = tuple(Read(site=site, at="key") for site in text_sites(scene))
    outputs = scene.bench.run(scene.models[name], rows, reads)
    first = _first_of(rows)
    return torch.stack([outputs[read][first] for read in reads], 1)


def _first_of(rows: Rows) -> Tensor:
    """Where each row's first content token is among the packed ones."""
    row, _ = rows.targets("key")
    return torch.searchsorted(row, torch.arange(len(rows)))


class Direction(NamedTuple):
    """A model's direction beside base's at one site: cosine, and length over base's."""

    cosine: float
    length: float


def direction(own: Float[Tensor, "row d"], base: Float[Tensor, "row d"], n: int) -> Direction:
    """The difference of means of one model beside that of base; the first ``n`` rows show the concept."""
    mine, other = (x[:n].double().mean(0) - x[n:].double().mean(0) for x in (own, base))
    scale = float(mine.norm() * other.norm())
    return Direction(
        float(mine @ other) / scale if scale > 0 else 0.0, float(mine.norm() / other.norm().clamp_min(1e-12))
    )


def along_base(
    states: Mapping[str, Float[Tensor, "row site d"]], n: int, fold_of: ndarray
) -> dict[str, Float[ndarray, "pair site"]]:
    """How far each pair of pictures lies apart in a model along base's direction, in units of base's own: 1 is base.

    The direction is that of the other folds' pictures."""
    result = {name: np.zeros((n, x.shape[1])) for name, x in states.items()}
    base = states["base"].double()
    gaps = base[:n] - base[n:]
    for fold in np.unique(fold_of):
        mine, others = (torch.from_numpy(np.flatnonzero(mask)) for mask in (fold_of == fold, fold_of != fold))
        toward = gaps[others].mean(0) if len(others) else gaps.mean(0)
        scale = toward.square().sum(-1).clamp_min(1e-12)
        for name, x in states.items():
            own = x[:n][mine].double() - x[n:][mine].double()
            result[name][mine.numpy()] = ((own * toward).sum(-1) / scale).numpy()
    return result
