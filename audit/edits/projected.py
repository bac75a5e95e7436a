"""Geometric disentanglement: unlearn only along directions that leave the retain loss where it is."""

from collections.abc import Mapping
from dataclasses import replace
from typing import ClassVar, Literal

import torch
from torch import Tensor

from audit.bench import Forward, SecondLoss, TrainData
from audit.edits._descent import Descent, TrainingRun, recipe_of
from audit.edits._edit import EditData
from audit.edits._losses import ascent, nll, npo

Grads = Mapping[str, Tensor]


class Projected(Descent):
    """Unlearns along the forget gradient minus its part along the retain gradient, plus a step that keeps the rest.

    The forget ``loss`` is NPO or gradient ascent. Inner products are in the metric of Adam's second moments, so that it
    is the step, not the raw gradient, which does not touch the retain loss to first order; this needs an Adam without
    momentum (betas[0] = 0) and without weight decay. The retain gradient is that of the step's batch, over all
    parameters together.
    Cite: Zhou et al. 2025 (geometric-disentanglement unlearning, GU), arXiv 2511.17100; NPO, arXiv 2404.05868, eq. 3.
    """

    plays: ClassVar[str] = "weights"

    loss: Literal["npo", "ascent"] = "npo"
    steps: int = 60
    lr: float = 3e-4
    beta: float = 0.1
    gamma: float = 1.0
    alpha: float = 5.0
    batch: int = 64
    warmup_steps: int = 10
    seed: int = 0

    def _forget(
        self, forget: Forward | None, _retain: Forward | None, frozen: Forward | None, _still: Forward | None
    ) -> Tensor:
        assert forget is not None
        if self.loss == "ascent":
            return self.gamma * ascent(forget)
        assert frozen is not None
        return self.gamma * npo(forget, frozen, self.beta)

    def _retain(self, _forget: Forward | None, retain: Forward | None, *_frozen: Forward | None) -> Tensor:
        assert retain is not None
        return self.alpha * nll(retain)

    def lesson(self, data: EditData, n_blocks: int) -> TrainingRun:
        """The recipe of these settings and its rows."""
        recipe = replace(
            recipe_of(self, self._forget),
            apart=SecondLoss(self._retain, disentangled),
            betas=(0.0, 0.999),
            needs_frozen=self.loss == "npo",
        )
        return TrainingRun(recipe, TrainData(data.forget, data.retain))


def inner(a: Grads, b: Grads, scale: Grads) -> Tensor:
    """The inner product of two gradients over all parameters, each entry weighted by ``scale``, in double precision."""
    return torch.stack([(a[name].double() * b[name] * scale[name]).sum() for name in a]).sum()


def orthogonal(forget: Grads, retain: Grads, scale: Grads) -> dict[str, Tensor]:
    """The forget gradient without its component along the retain gradient; all of it where there is none."""
    along, length = inner(retain, forget, scale), inner(retain, retain, scale)
    share = torch.where(length > 0, along / length, 0.0)
    return {name: forget[name] - share.to(forget[name].dtype) * retain[name] for name in forget}


def disentangled(forget: Grads, retain: Grads, scale: Grads) -> dict[str, Tensor]:
    """The gradient of a step: what is orthogonal of the forget side, and the retain side as it is."""
    return {name: grad + retain[name] for name, grad in orthogonal(forget, retain, scale).items()}
