"""Gradient difference: climb the loss of the forget answers while descending that of the retained ones."""

from typing import ClassVar

from audit.bench import TrainData
from audit.edits._descent import Descent, TrainingRun, of_both, recipe_of
from audit.edits._edit import EditData
from audit.edits._losses import grad_diff


class GradDiff(Descent):
    """Unlearns by alpha NLL(retain) - gamma NLL(forget), answer tokens only.

    Unbounded below on the forget side, so that the number of steps is part of the method.
    Cite: Liu, Liu and Stone 2022 (continual learning and private unlearning); TOFU, Maini et al. 2024, section 4.
    """

    plays: ClassVar[str] = "weights"

    steps: int = 60
    lr: float = 5e-4
    gamma: float = 1.0
    alpha: float = 1.0
    batch: int = 64
    warmup_steps: int = 10
    seed: int = 0

    def lesson(self, data: EditData, n_blocks: int) -> TrainingRun:
        """The recipe of these settings and its rows."""
        recipe = recipe_of(self, of_both(lambda forget, retain: grad_diff(forget, retain, self.gamma, self.alpha)))
        return TrainingRun(recipe, TrainData(data.forget, data.retain))
