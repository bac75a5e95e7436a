"""Saliency unlearning: random labels, taught only to the weights on which the forget loss depends most."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Annotated, ClassVar

import torch
from pydantic import Field
from torch import Tensor

from audit.bench import Forward, Learner, TrainData, descend
from audit.edits._descent import needed, of_both, recipe_of
from audit.edits._edit import EditData, Material
from audit.edits._in_place import InPlaceEdit, summed_gradients
from audit.edits._losses import replacement
from audit.schema import AuditError


class SalUn(InPlaceEdit):
    """Unlearns by random-label training of the ``share`` of weights with the largest forget gradient at the start.

    The mask ranks |gradient of NLL(forget)| over all weights together; where fewer than ``share`` have any gradient,
    only those are salient (a quantile of zero would select everything). All other weights keep their bytes.
    Cite: Fan et al. 2024, arXiv 2310.12508, eq. 3-5.
    """

    plays: ClassVar[str] = "weights"
    needs: ClassVar[tuple[Material, ...]] = ("forget", "relabelled", "retain")

    share: Annotated[float, Field(gt=0, le=1)] = 0.5
    steps: int = 100
    lr: float = 1e-3
    gamma: float = 1.0
    alpha: float = 3.0
    batch: int = 64
    warmup_steps: int = 10
    seed: int = 0

    def apply(self, learner: Learner, data: EditData) -> None:
        """Train the salient weights in place. AuditError if the forget loss has no gradient at all."""
        rows = needed(data.relabelled, "other answers", "give the forget items alternates")
        masks = salient(summed_gradients(learner, data.forget, self.batch, _total_nll, torch.clone), self.share)

        def masked(grads: Mapping[str, Tensor]) -> dict[str, Tensor]:
            return {name: grad * masks[name] for name, grad in grads.items()}

        recipe = replace(
            recipe_of(self, of_both(lambda other, retain: replacement(other, retain, self.gamma, self.alpha))),
            gradient_transform=masked,
        )
        descend(learner, recipe, TrainData(rows, data.retain))


def _total_nll(forward: Forward) -> Tensor:
    return -forward.logprob.sum()


def salient(grads: Mapping[str, Tensor], share: float) -> dict[str, Tensor]:
    """Masks of the ``share`` of all entries that are largest in size; entries of zero are never salient."""
    size = torch.cat([grad.abs().flatten() for grad in grads.values()])
    n = max(1, round(share * len(size)))
    bound = size.kthvalue(len(size) - n + 1).values
    if not bool(size.any()):
        raise AuditError("salun: the forget loss has no gradient here", "give forget rows that the model can score")
    return {name: (grad.abs() >= bound) & (grad != 0) for name, grad in grads.items()}
