"""MU-Mis: make the output of a class as insensitive to its images as that of any other class, without retained data."""

from collections.abc import Callable
from dataclasses import replace
from typing import Annotated, ClassVar, NamedTuple

import torch
from jaxtyping import Float, Int
from pydantic import Field
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from audit.bench import Forward, Learner, training_batches, unfrozen
from audit.case import Rows
from audit.edits._edit import EditData, Material
from audit.edits._images import pixels_of
from audit.edits._in_place import InPlaceEdit
from audit.schema import AuditError


class Sensitivity(NamedTuple):
    """Squared input gradient of the logit of each image's own class, and of another one."""

    own: Float[Tensor, " row"]
    other: Float[Tensor, " row"]

    @property
    def objective(self) -> Float[Tensor, ""]:
        """What is descended."""
        return (self.own - self.other).mean()

    @property
    def ratio(self) -> float:
        """How much more the own class's logit depends on the input than another's."""
        return float(self.own.detach().sum() / self.other.detach().sum().clamp_min(torch.finfo(torch.float32).tiny))


class MUMis(InPlaceEdit):
    """Unlearns by min E ||d f_c / d x||^2 - ||d f_c' / d x||^2 over the forget images: f_c the logit of the taught
    class, c' another one, drawn anew for every image at every step. No retained row is seen.

    It stops once the first is, against the second (averaged over the other classes), at most ``ratio`` of what it was
    at the start, over all forget images (looked at every ``check_every`` steps); or after ``steps``. The gradient of a
    gradient needs attention without a fused kernel. That training stops at a ratio is the paper's; its threshold, and
    AdamW, are ours.
    Cite: arXiv 2402.15109, the objective of misaligned input sensitivities.
    """

    plays: ClassVar[str] = "weights"
    of_images: ClassVar[bool] = True
    needs: ClassVar[tuple[Material, ...]] = ("forget",)

    steps: int = 60
    lr: float = 1e-3
    ratio: Annotated[float, Field(ge=0, lt=1)] = 0.3
    check_every: Annotated[int, Field(gt=0)] = 4
    batch: int = 64
    seed: int = 0

    def apply(self, learner: Learner, data: EditData) -> None:
        """Descend in place. AuditError where the rows are tokens, which have no gradient."""
        pixels_of(self.name, data.forget)
        chance = torch.Generator().manual_seed(self.seed)
        batches = training_batches(len(data.forget), min(self.batch, len(data.forget)), self.seed)
        with unfrozen(learner, ".*") as chosen, sdpa_kernel(SDPBackend.MATH), torch.enable_grad():
            optimiser = torch.optim.AdamW(list(chosen.values()), self.lr, (0.9, 0.95), weight_decay=0.0)
            enough = self.ratio * measured_ratio(learner, data.forget)
            for step in range(self.steps):
                rows = data.forget.take(next(batches))
                loss = sensitivity(learner, rows, drawn_others(chance)).objective
                if not torch.isfinite(loss):
                    raise AuditError(f"{self.name}: loss is {loss.item()} at step {step}", "lower its learning rate")
                optimiser.zero_grad(set_to_none=True)
                loss.backward()
                optimiser.step()
                if (step + 1) % self.check_every == 0 and measured_ratio(learner, data.forget) <= enough:
                    return


def measured_ratio(learner: Learner, rows: Rows) -> float:
    """How much more the logits of these images' classes depend on them than those of the other classes on average."""
    seen, watched = _watched(learner, rows)
    classes = range(seen.logits.shape[-1])
    every = torch.stack([_squares(seen.logits[:, label], watched, graph=False) for label in classes], 1)
    own = every.gather(1, seen.target[:, None])[:, 0]
    return Sensitivity(own, (every.sum(1) - own) / (len(classes) - 1)).ratio


Others = Callable[[Int[Tensor, " row"], int], Int[Tensor, " row"]]
"""Targets, number of classes -> for each another class."""


def drawn_others(chance: torch.Generator) -> Others:
    """Another class for each row, uniformly."""

    def other(target: Int[Tensor, " row"], classes: int) -> Int[Tensor, " row"]:
        shift = torch.randint(1, classes, target.shape, generator=chance).to(target.device)
        return (target + shift) % classes

    return other


def sensitivity(learner: Learner, rows: Rows, others: Others) -> Sensitivity:
    """How much the logits of each image's class and of another depend on its pixels, differentiably."""
    seen, watched = _watched(learner, rows)
    chosen = (seen.target, others(seen.target, seen.logits.shape[-1]))
    own, other = (_squares(seen.logits.gather(-1, label[:, None])[:, 0], watched, graph=True) for label in chosen)
    return Sensitivity(own, other)


def _watched(learner: Learner, rows: Rows) -> tuple[Forward, Tensor]:
    """A pass of images, and the pixels by which its logits can be differentiated."""
    name, pixels = pixels_of("mu_mis", rows)
    watched = pixels.detach().clone().requires_grad_(True)
    return learner.answers(replace(rows, extra={**rows.extra, name: watched})), watched


def _squares(logit: Float[Tensor, " row"], watched: Tensor, graph: bool) -> Float[Tensor, " row"]:
    """The squared gradient of each row's logit by its pixels; ``graph``: differentiably."""
    grad = torch.autograd.grad(logit.sum(), watched, create_graph=graph, retain_graph=True)[0]
    return grad.float().square().flatten(1).sum(1)
