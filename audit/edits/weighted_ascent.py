"""Weighted gradient ascent: climb the loss of the forget tokens that the model still predicts."""

from pathlib import Path
from typing import ClassVar

from audit.bench import Bench
from audit.bench.shapes import Forward, Recipe
from audit.bench.training import TrainData
from audit.edits._edit import Edit, EditData
from audit.edits._lesson import Lesson, fit_lesson, of_both
from audit.edits._losses import Scalar, nll, weighted_ascent
from audit.nouns import Checkpoint


class WeightedAscent(Edit):
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

    def lesson(self, data: EditData, n_blocks: int) -> Lesson:
        """The recipe of these settings and its rows."""
        recipe = Recipe(
            "weighted_ascent", of_both(self._objective),
            steps=self.steps, lr=self.lr, batch=self.batch, warmup_steps=self.warmup_steps, seed=self.seed,
        )  # fmt: skip
        return Lesson(recipe, TrainData(data.forget, data.retain))

    def fit(self, bench: Bench, parent: Checkpoint, data: EditData, out: Path) -> Checkpoint:
        """Train on the forget and retain rows and write the changed tensors."""
        return fit_lesson(self, bench, parent, data, out)
