"""A logit-bias wrapper: a fake that leaves every weight as it was and adds a constant to the logits."""

from pathlib import Path
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from audit.bench import Bench
from audit.bench import LogitBias as ConstantBias
from audit.case import Rows
from audit.checkpoints import write_edited
from audit.edits._edit import Edit, EditData
from audit.edits._losses import nll, unlikelihood
from audit.edits.head_edit import FinalStates, final_states, scored
from audit.schema import Checkpoint


class LogitBias(Edit):
    """Silences by a constant bias on the logits: unlikelihood of the forgotten content + alpha NLL(retain).

    Fake by construction: no weight and no activation changes. One bias serves every prompt, so that it costs as much
    retained knowledge as there are retained facts with forgotten values.
    Cite: the output-filter control of the unlearning-verification literature.
    """

    plays: ClassVar[str] = "logit_bias"

    steps: int = 200
    lr: float = 0.1
    gamma: float = 1.0
    alpha: float = 1.0

    def fit(self, bench: Bench, parent: Checkpoint, data: EditData, out: Path) -> Checkpoint:
        """Fit the bias on cached logits and write it as a hook edit."""

        def logits(rows: Rows) -> tuple[FinalStates, Tensor]:
            wrapper, final = bench.open(parent), final_states(bench, parent, rows)
            with torch.no_grad():
                return final, wrapper.head(final.states.to(wrapper.device, wrapper.dtype)).float().cpu()

        bias = self.solve(logits(data.forget), logits(data.retain))
        settings = {"steps": self.steps, "lr": self.lr, "gamma": self.gamma, "alpha": self.alpha}
        delta = ConstantBias(bias).to_delta()
        return write_edited(out, parent, "logit_bias", settings, self.plays, delta)

    def solve(self, forget: tuple[FinalStates, Tensor], retain: tuple[FinalStates, Tensor]) -> Float[Tensor, " vocab"]:
        """The bias: full-batch Adam from zero on (states, logits [token vocab]), no draw of any kind."""
        bias = torch.zeros(forget[1].shape[-1], requires_grad=True)
        optimiser = torch.optim.Adam([bias], self.lr)
        with torch.enable_grad():
            for _ in range(self.steps):
                forgotten = unlikelihood(scored(forget[0], forget[1] + bias))
                retained = nll(scored(retain[0], retain[1] + bias))
                optimiser.zero_grad(set_to_none=True)
                (self.gamma * forgotten + self.alpha * retained).backward()
                optimiser.step()
        return bias.detach()
