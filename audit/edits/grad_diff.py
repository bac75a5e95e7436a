"""Gradient difference: climb the loss of the forget answers while descending that of the retained ones."""

from pathlib import Path
from typing import ClassVar

from audit.bench import Bench
from audit.bench.shapes import Recipe
from audit.bench.training import TrainData
from audit.edits._edit import Edit, EditData
from audit.edits._lesson import Lesson, fit_lesson, of_both
from audit.edits._losses import grad_diff
from audit.nouns import Checkpoint


class GradDiff(Edit):
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

    def lesson(self, data: EditData, n_blocks: int) -> Lesson:
        """The recipe of these settings and its rows."""
        recipe = Recipe(
            "grad_diff", of_both(lambda forget, retain: grad_diff(forget, retain, self.gamma, self.alpha)),
            steps=self.steps, lr=self.lr, batch=self.batch, warmup_steps=self.warmup_steps, seed=self.seed,
        )  # fmt: skip
        return Lesson(recipe, TrainData(data.forget, data.retain))

    def fit(self, bench: Bench, parent: Checkpoint, data: EditData, out: Path) -> Checkpoint:
        """Train on the forget and retain rows and write the changed tensors."""
        return fit_lesson(self, bench, parent, data, out)
