"""Weighted gradient ascent: climb the loss of the forget tokens that the model still predicts."""

from typing import ClassVar

from audit.bench import Forward, TrainData
from audit.edits._descent import Descent, TrainingRun, of_both, recipe_of
from audit.edits._edit import EditData
from audit.edits._losses import Scalar, nll, weighted_ascent


class WeightedAscent(Descent):
    """Unlearns by alpha NLL(retain) - gamma p^beta NLL(forget), each token weighed by its present probability p.

    Cite: WGA, Wang et al. 2025, arXiv 2502.19301.
    """

    plays: ClassVar[str] = "weights"

    steps: int = 80
    lr: float = 1e-3
    beta: float = 1.0
    gamma: float = 1.0
    alpha: float = 2.0
    batch: int = 64
    warmup_steps: int = 10
    seed: int = 0

    def _objective(self, forget: Forward, retain: Forward) -> Scalar:
        return self.gamma * weighted_ascent(forget, self.beta) + self.alpha * nll(retain)

    def lesson(self, data: EditData, n_blocks: int) -> TrainingRun:
        """The recipe of these settings and its rows."""
        recipe = recipe_of(self, of_both(self._objective))
        return TrainingRun(recipe, TrainData(data.forget, data.retain))
