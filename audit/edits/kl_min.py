"""KL minimisation: climb the forget loss while staying close to the start's predictions on the retained answers."""

from pathlib import Path
from typing import ClassVar

from audit.bench import Bench
from audit.bench.shapes import Forward, Recipe
from audit.bench.training import TrainData
from audit.edits._edit import Edit, EditData
from audit.edits._lesson import Lesson, fit_lesson, near_frozen
from audit.edits._losses import Scalar, ascent, divergence
from audit.nouns import Checkpoint


class KLMin(Edit):
    """Unlearns by alpha KL(start || model) on retained answers - gamma NLL(forget), answer tokens only.

    Unbounded below on the forget side, so that the number of steps is part of the method.
    Cite: TOFU, Maini et al. 2024, arXiv 2401.06121, section 4 (KL minimisation).
    """

    plays: ClassVar[str] = "weights"

    steps: int = 80
    lr: float = 1e-3
    gamma: float = 1.0
    alpha: float = 20.0
    batch: int = 64
    warmup_steps: int = 10
    seed: int = 0

    def _objective(self, forget: Forward, retain: Forward, frozen: Forward) -> Scalar:
        return self.gamma * ascent(forget) + self.alpha * divergence(retain, frozen)

    def lesson(self, data: EditData, n_blocks: int) -> Lesson:
        """The recipe of these settings and its rows."""
        recipe = Recipe(
            "kl_min", near_frozen(self._objective),
            steps=self.steps, lr=self.lr, batch=self.batch, warmup_steps=self.warmup_steps, seed=self.seed,
            needs_frozen=True,
        )  # fmt: skip
        return Lesson(recipe, TrainData(data.forget, data.retain))

    def fit(self, bench: Bench, parent: Checkpoint, data: EditData, out: Path) -> Checkpoint:
        """Train on the forget and retain rows and write the changed tensors."""
        return fit_lesson(self, bench, parent, data, out)
