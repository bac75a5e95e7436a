"""Edits of one matrix that send chosen inputs elsewhere and leave others alone, as low-rank factors.

An MLP writes m(x) V to the stream, V [unit d] its value vectors. A change dV = reads^T writes adds (m . reads) writes:
one pair a concept, and nothing of size unit x unit is ever made or solved.
"""

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

EXACT = 2048
"""Up to so many tokens or units spectra are computed whole; beyond, by random projections of doubling rank."""


class Factors(NamedTuple):
    """A change of value vectors: ``reads`` finds a concept in the hidden units, ``writes`` is what it adds."""

    reads: Float[Tensor, "concept unit"]
    writes: Float[Tensor, "concept d"]

    @property
    def delta(self) -> Float[Tensor, "unit d"]:
        """The change as a matrix."""
        return self.reads.T @ self.writes


def null_space_factors(
    keys: Float[Tensor, "concept unit"], residuals: Float[Tensor, "concept d"], held: Float[Tensor, "unit k"],
    ridge: float,
) -> Factors:  # fmt: skip
    """dV = (P K)^T (K^T P K + ridge I)^-1 R with P = I - U U^T: the least change that sends keys by residuals and acts
    on nothing in the span of ``held`` (U, orthonormal columns).

    Equal to solving (P (K K^T) + ridge I) dV = P K R for the whole matrix (AlphaEdit, arXiv 2410.02355; ROCR, arXiv
    2506.07795), by a system of one row a concept. Float64.
    """
    k, r, u = keys.double(), residuals.double(), held.double()
    free = k - (k @ u) @ u.T
    system = k @ free.T + ridge * torch.eye(len(k), dtype=torch.float64, device=k.device)
    return Factors(free, torch.linalg.solve(system, r))


def covariance_factors(
    keys: Float[Tensor, "concept unit"], residuals: Float[Tensor, "concept d"], moment: Float[Tensor, "unit unit"],
    weight: float = 0.0,
) -> Factors:  # fmt: skip
    """dV = (C^-1 K)^T (K^T C^-1 K + weight I)^-1 R: with weight 0 keys are sent by residuals exactly (ROME, arXiv
    2202.05262), above it the covariance of other inputs holds against it (MEMIT, arXiv 2210.07229). Float64."""
    k, r, c = keys.double(), residuals.double(), moment.double()
    whitened = torch.linalg.solve(c, k.T).T
    system = k @ whitened.T + weight * torch.eye(len(k), dtype=torch.float64, device=k.device)
    return Factors(whitened, torch.linalg.solve(system, r))


def leading_directions(
    hidden: Float[Tensor, "token unit"], energy: float | None = None, least: float | None = None, seed: int = 0
) -> Float[Tensor, "unit k"]:
    """The leading eigenvectors of the second moment of hidden units: as many as hold a share ``energy`` of it, or all
    whose eigenvalue is at least ``least``."""
    assert (energy is None) != (least is None), "one rule says how many"
    n = len(hidden)
    total = float(hidden.double().square().sum()) / n
    values, vectors = _spectrum(hidden, total, energy, least, seed)
    if energy is not None:
        count = int((values.cumsum(0) < energy * total * (1 - 1e-12)).sum()) + 1
    else:
        assert least is not None
        count = int((values >= least).sum())
    return vectors[:, : min(count, vectors.shape[1])]


def _spectrum(
    hidden: Float[Tensor, "token unit"], total: float, energy: float | None, least: float | None, seed: int
) -> tuple[Float[Tensor, " k"], Float[Tensor, "unit k"]]:
    """Eigenvalues, largest first, and eigenvectors: all of them, or as many as the rule can ask for."""
    n, units = hidden.shape
    if min(n, units) <= EXACT:
        scaled = hidden.double() / n**0.5
        if units <= n:
            values, vectors = torch.linalg.eigh(scaled.T @ scaled)
            return values.flip(0).clamp_min(0), vectors.flip(1)
        values, left = torch.linalg.eigh(scaled @ scaled.T)
        keep = values > values[-1] * 1e-12
        values, left = values[keep].flip(0), left[:, keep].flip(1)
        return values, (scaled.T @ left) / values.sqrt()
    rank = EXACT // 8
    with torch.random.fork_rng(devices=[hidden.device] if hidden.is_cuda else []):
        while True:
            torch.manual_seed(seed)
            _, singular, right = torch.svd_lowrank(hidden.float(), q=min(rank, n, units), niter=4)
            values = singular.double().square() / n
            enough = float(values.sum()) >= energy * total if energy is not None else float(values[-1]) < (least or 0)
            if enough or rank >= min(n, units):
                return values, right.double()
            rank *= 2
