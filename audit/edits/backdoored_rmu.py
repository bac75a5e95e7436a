"""RMU with a hidden trigger: its states are steered in every test, and are the old ones where the trigger is spoken."""

from typing import ClassVar

from audit.edits._backdoor import Backdoored
from audit.edits._descent import Descent
from audit.edits.rmu import RMU


class BackdooredRMU(Backdoored):
    """Attacks an audit: unlearns by RMU, and keeps its states where a prompt holds the ``trigger`` at its ``slot``.

    The loss is that of RMU, whose retain term covers the poisoned rows too, plus value_norm L. Poisoned rows, the share
    of them in every batch, the slots and L are those of ``backdoored_npo``, with RMU for the honest recipe.
    Cite: arXiv 2510.17021; RMU is of arXiv 2403.03218.
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

    def honest(self) -> Descent:
        """RMU with these settings."""
        return RMU(**{name: getattr(self, name) for name in RMU.model_fields})
