"""ROME and MEMIT: what a subject's name leads to is rewritten against the covariance of a block's other inputs."""

from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from audit.edits._edit import Material
from audit.edits._rank_one import Factors, covariance_factors
from audit.edits._redirection import Mode, Redirection


class ROME(Redirection):
    """Rewrites what the names of groups lead to: dW = r (C^-1 k)^T / (k^T C^-1 k), C the covariance of retained inputs.

    With ``weight`` 0 the keys are met exactly (ROME, one block); above it C counts so many times against them (MEMIT,
    published 15,000 on its own scale). By default the new state is the one under which ``answer`` follows (empty: the
    data's refusing answers); other modes and settings are those of ``rocr``.
    Cite: ROME, arXiv 2202.05262; MEMIT, arXiv 2210.07229.
    """

    plays: ClassVar[str] = "weights"

    needs: ClassVar[tuple[Material, ...]] = ("forget", "retain", "subjects", "refusal")

    mode: Mode = "reject"
    weight: float = 0.0
    jitter: float = 1e-3

    def identity(self) -> tuple[object, ...]:
        """The ridge of the covariance."""
        return (self.jitter,)

    def prepared(self, inputs: Float[Tensor, "token unit"]) -> Float[Tensor, "unit k"]:
        """The covariance (second moment), with a ridge of ``jitter`` times its mean diagonal."""
        x = inputs.double()
        moment = x.T @ x / len(x)
        return moment + self.jitter * moment.diagonal().mean() * torch.eye(len(moment), dtype=x.dtype, device=x.device)

    def solved(
        self, keys: Float[Tensor, "concept unit"], residuals: Float[Tensor, "concept d"], known: Float[Tensor, "unit k"]
    ) -> Factors:
        """The closed form, against the covariance."""
        return covariance_factors(keys, residuals, known, self.weight)
