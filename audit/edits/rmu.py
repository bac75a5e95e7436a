"""Representation misdirection: steer the states of forget answers to a random direction and hold the others still."""

from dataclasses import replace
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from audit.bench import Forward, TrainData
from audit.edits._descent import Descent, TrainingRun, recipe_of
from audit.edits._edit import EditData
from audit.edits._losses import Scalar, n_rows
from audit.schema import AuditError, Site


class RMU(Descent):
    """Unlearns by gamma MSE(forget states, c u) + alpha MSE(retain states, those of the start) after one block.

    ``layer`` is that block: a whole number counts blocks from 0, a fraction is of the depth (0.0 the first block, 1.0
    the last), so that shallow and deep are settings. u is uniform on [0, 1)^d, brought to length 1, drawn from
    ``seed``; c (``steering``) is in units of the residual stream, whose norm grows with depth and model. States are
    those that predict an answer's tokens; errors are averaged over d, over each row's tokens, then over rows. (Public
    code takes the states at the answer's own tokens, which come too late for answers of one token, and divides by a
    mean over all rows where each row's own length is meant.)
    Cite: Li et al. 2024, arXiv 2403.03218, section 4.
    """

    plays: ClassVar[str] = "weights"

    layer: int | float = 0.5
    steering: float = 20.0
    steps: int = 80
    lr: float = 1e-3
    gamma: float = 1.0
    alpha: float = 50.0
    batch: int = 64
    warmup_steps: int = 10
    blocks_only: bool = False
    seed: int = 0

    def site(self, n_blocks: int) -> Site:
        """Where states are steered. AuditError if the model has no such block."""
        block = self.layer if isinstance(self.layer, int) else round(self.layer * (n_blocks - 1))
        if not 0 <= block < n_blocks:
            raise AuditError(
                f"rmu: layer {self.layer} is none of {n_blocks} blocks", f"0 to {n_blocks - 1}, or 0.0 to 1.0"
            )
        return Site(part="resid_out", block=block)

    def lesson(self, data: EditData, n_blocks: int) -> TrainingRun:
        """The recipe of these settings and its rows. With ``blocks_only`` the input embedding keeps its bytes."""
        site = self.site(n_blocks)

        def objective(
            forget: Forward | None, retain: Forward | None, _frozen: Forward | None, still: Forward | None
        ) -> Tensor:
            assert forget is not None and retain is not None and still is not None
            steered = answer_states(forget, site)
            target = self.steering * direction(steered.shape[-1], self.seed).to(steered)
            retained = state_mse(retain, answer_states(retain, site), answer_states(still, site))
            return self.gamma * state_mse(forget, steered, target) + self.alpha * retained

        blocks = "|".join(str(block) for block in range((site.block or 0) + 1))
        recipe = replace(
            recipe_of(self, objective),
            needs_frozen=True,
            at_sites=(site,),
            trainable=rf"\D*\.(?:{blocks})\..*" if self.blocks_only else ".*",
        )
        return TrainingRun(recipe, TrainData(data.forget, data.retain))


def direction(d: int, seed: int) -> Float[Tensor, " d"]:
    """A fixed direction: uniform entries in [0, 1), brought to length 1."""
    drawn = torch.rand(d, generator=torch.Generator().manual_seed(seed))
    return drawn / drawn.norm()


def answer_states(forward: Forward, site: Site) -> Float[Tensor, "token d"]:
    """The states that predict each row's answer, packed; of a network that pools a map, its mean."""
    states = forward.states[site]
    return states.mean(1)[forward.row] if forward.at is None else states[forward.row, forward.at]


def state_mse(forward: Forward, states: Float[Tensor, "token d"], target: Float[Tensor, "*token d"]) -> Scalar:
    """Mean over rows of the row's mean squared error over its answer tokens and d."""
    error = (states.float() - target.float()).square().mean(-1)
    n = n_rows(forward)
    count = torch.bincount(forward.row, minlength=n)
    return (torch.zeros(n, device=error.device).index_add(0, forward.row, error) / count).mean()
