"""Surgery: edits that work on live weights instead of stating one lesson.

A :class:`InPlaceEdit` is handed a live model and changes it in place; it may measure it first, train it on the way, or
do neither. The same ``apply`` serves a checkpoint (:meth:`InPlaceEdit.fit`) and a model that is being built.
"""

from abc import abstractmethod
from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from jaxtyping import Int
from torch import Tensor

from audit.bench import Bench, Forward, Learner, changed_tensors, copied, unfrozen
from audit.case import Rows
from audit.checkpoints import write_edited
from audit.edits._edit import Edit, EditData
from audit.schema import Checkpoint


class InPlaceEdit(Edit):
    """An edit that changes live parameters in place."""

    @abstractmethod
    def apply(self, learner: Learner, data: EditData) -> None:
        """Change the live parameters."""

    def noted(self, learner: Learner) -> Mapping[str, str | int | float | bool]:
        """What the record says of the edited model beside the settings."""
        return {}

    def fit(self, bench: Bench, parent: Checkpoint, data: EditData, out: Path) -> Checkpoint:
        """Operate on a fresh copy of ``parent`` and write the tensors that changed at ``out``.

        Raises AuditError where no byte changed, where ``parent`` is edited by a hook, and whatever ``apply`` raises.
        """
        with copied(bench.pool, parent) as (learner, original):
            self.apply(learner, data)
            changed, settings = changed_tensors(learner, original), self.model_dump() | dict(self.noted(learner))
        return write_edited(out, parent, self.name, settings, "weights", changed)


def summed_gradients(
    learner: Learner, rows: Rows, size: int, loss: Callable[[Forward], Tensor], each: Callable[[Tensor], Tensor]
) -> dict[str, Tensor]:
    """The sum of ``each(gradient of the loss)`` over groups of ``size`` rows, in float32, every tensor under one name.

    With single rows and a square it is an (empirical) Fisher diagonal; with the identity, a gradient of the whole set.
    """
    with unfrozen(learner, ".*") as chosen, torch.enable_grad():
        total = {name: torch.zeros_like(p, dtype=torch.float32) for name, p in chosen.items()}
        for index in torch.arange(len(rows)).split(size):
            value = loss(learner.answers(rows.take(index)))
            grads = torch.autograd.grad(value, list(chosen.values()), allow_unused=True, materialize_grads=True)
            for name, grad in zip(chosen, grads, strict=True):
                total[name] += each(grad.float())
    return total


def drawn(rows: Rows, most: int, seed: int) -> Rows:
    """At most so many of the rows, drawn without replacement."""
    if len(rows) <= most:
        return rows
    index: Int[Tensor, " row"] = torch.randperm(len(rows), generator=torch.Generator().manual_seed(seed))
    return rows.take(index[:most])
