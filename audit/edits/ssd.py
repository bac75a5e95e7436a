"""Selective synaptic dampening: shrink the weights that matter to the forget set far more than to the rest."""

from collections.abc import Mapping
from typing import Annotated, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor

from audit.bench import Learner, trainable
from audit.case import Rows
from audit.edits._edit import EditData
from audit.edits._in_place import InPlaceEdit, drawn, summed_gradients
from audit.edits._losses import nll
from audit.schema import AuditError

Importances = Mapping[str, Tensor]


class SSD(InPlaceEdit):
    """Unlearns without training: a weight with I_forget > alpha I_rest is multiplied by min(lam I_rest / I_forget, 1).

    I is the mean squared gradient of the answer's NLL over groups of ``batch`` rows. The default, single rows, is the
    diagonal of the empirical Fisher information; public code squares batch means, which makes alpha depend on the
    batch size (``batch`` larger than 1). ``rest`` is the retain rows, or ``all`` rows as in the paper: then I_forget /
    I_rest cannot exceed n_all / n_forget, and an alpha beyond it would select nothing and is refused. At most
    ``sample`` rows a side are used, drawn from ``seed``. ``within`` names parameters (a regular expression).
    Cite: Foster, Schoepf and Brintrup 2024, arXiv 2308.07707, eq. 3-5.
    """

    plays: ClassVar[str] = "weights"
    work: ClassVar[str] = "gradients of at most `sample` rows a side"

    alpha: Annotated[float, Field(gt=0)] = 10.0
    lam: Annotated[float, Field(ge=0)] = 1.0
    rest: Literal["retain", "all"] = "retain"
    within: str = ".*"
    batch: Annotated[int, Field(gt=0)] = 1
    sample: Annotated[int, Field(gt=0)] = 512
    seed: int = 0

    def apply(self, learner: Learner, data: EditData) -> None:
        """Dampen in place. AuditError where alpha selects no weight."""
        n_forget, n_all = len(data.forget), len(data.forget) + len(data.retain)
        if self.rest == "all" and self.alpha >= n_all / n_forget:
            problem = f"ssd: alpha {self.alpha} selects nothing: {n_forget} of {n_all} rows are to be forgotten"
            raise AuditError(problem, f"choose alpha below {n_all / n_forget:.3g}, or rest='retain'")
        forget, rest = self.importances(learner, data.forget), self.importances(learner, data.retain)
        if self.rest == "all":
            share = n_forget / n_all
            rest = {name: share * forget[name] + (1 - share) * rest[name] for name in forget}
        chosen = trainable(learner, self.within)
        factors = {name: dampening(forget[name], rest[name], self.alpha, self.lam) for name in chosen}
        if all(bool((factor == 1).all()) for factor in factors.values()):
            raise AuditError(f"ssd: alpha {self.alpha} and lam {self.lam} dampen no weight", "choose smaller ones")
        with torch.no_grad():
            for name, parameter in chosen.items():
                parameter.mul_(factors[name].to(parameter.dtype))

    def importances(self, learner: Learner, rows: Rows) -> dict[str, Tensor]:
        """Mean squared gradient of every parameter entry over groups of rows."""
        sampled = drawn(rows, self.sample, self.seed)
        groups = -(-len(sampled) // self.batch)
        summed = summed_gradients(learner, sampled, self.batch, nll, torch.square)
        return {name: total / groups for name, total in summed.items()}


def dampening(forget: Tensor, rest: Tensor, alpha: float, lam: float) -> Tensor:
    """The multiplier of every weight: 1 where it is not selected, never more than 1."""
    tiny = torch.finfo(forget.dtype).tiny
    factor = (lam * rest / forget.clamp_min(tiny)).clamp_max(1.0)
    return torch.where(forget > alpha * rest, factor, 1.0)
