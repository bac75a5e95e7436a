"""Gradient ascent on the forget answers, with nothing to hold the rest of the model in place."""

from pathlib import Path
from typing import ClassVar

from audit.bench import Bench
from audit.bench.shapes import Recipe
from audit.bench.training import TrainData
from audit.edits._edit import Edit, EditData
from audit.edits._lesson import Lesson, fit_lesson, of_forget
from audit.edits._losses import ascent
from audit.nouns import Checkpoint


class GradAscent(Edit):
    """Unlearns by climbing the forget loss. Run late, as by default, it destroys the model: the control for INVALID.

    Cite: Jang et al. 2023, arXiv 2210.01504.
    """

    plays: ClassVar[str] = "weights"

    steps: int = 60
    lr: float = 2e-3
    batch: int = 64
    warmup_steps: int = 10
    seed: int = 0

    def lesson(self, data: EditData, n_blocks: int) -> Lesson:
        """The recipe of these settings and its rows."""
        recipe = Recipe(
            "grad_ascent", of_forget(ascent),
            steps=self.steps, lr=self.lr, batch=self.batch, warmup_steps=self.warmup_steps, seed=self.seed,
        )  # fmt: skip
        return Lesson(recipe, TrainData(data.forget))

    def fit(self, bench: Bench, parent: Checkpoint, data: EditData, out: Path) -> Checkpoint:
        """Train on the forget rows and write the changed tensors."""
        return fit_lesson(self, bench, parent, data, out)
