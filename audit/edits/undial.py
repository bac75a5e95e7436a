"""Unlearning by distillation: the model learns from its own start, with the forgotten tokens' logits lowered."""

from dataclasses import replace
from typing import ClassVar

from audit.bench import Forward, TrainData
from audit.edits._descent import Descent, TrainingRun, against_frozen, recipe_of
from audit.edits._edit import EditData
from audit.edits._losses import Scalar, nll, undial


class UnDIAL(Descent):
    """Unlearns by gamma CE(start's logits, lowered by beta at the answer token) + alpha NLL(retain).

    It has a fixed end point: the start's own distribution without the forgotten token. What the start ranked second
    is taught as the answer.
    Cite: Dong et al. 2024, arXiv 2402.10052.
    """

    plays: ClassVar[str] = "weights"

    steps: int = 160
    lr: float = 2e-3
    beta: float = 10.0
    gamma: float = 2.0
    alpha: float = 1.0
    batch: int = 64
    warmup_steps: int = 10
    seed: int = 0

    def _objective(self, forget: Forward, retain: Forward, frozen: Forward) -> Scalar:
        return self.gamma * undial(forget, frozen, self.beta) + self.alpha * nll(retain)

    def lesson(self, data: EditData, n_blocks: int) -> TrainingRun:
        """The recipe of these settings and its rows."""
        recipe = replace(recipe_of(self, against_frozen(self._objective)), needs_frozen=True)
        return TrainingRun(recipe, TrainData(data.forget, data.retain))
