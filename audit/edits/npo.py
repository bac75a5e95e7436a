"""Negative preference optimisation: the forget answers as dispreferred ones, against the model it started from."""

from pathlib import Path
from typing import ClassVar

from audit.bench import Bench
from audit.bench.shapes import Forward, Recipe
from audit.bench.training import TrainData
from audit.edits._edit import Edit, EditData
from audit.edits._lesson import Lesson, against_frozen, fit_lesson
from audit.edits._losses import Scalar, nll, npo
from audit.nouns import Checkpoint


class NPO(Edit):
    """Unlearns by NPO on the forget answers, summed over the sequence, plus alpha NLL(retain).

    Cite: Zhang, Lin, Bai and Mei 2024, arXiv 2404.05868, eq. 3; the retain term as in its section 5 (NPO + RT).
    """

    plays: ClassVar[str] = "weights"

    steps: int = 80
    lr: float = 5e-4
    beta: float = 0.1
    gamma: float = 1.0
    alpha: float = 1.0
    batch: int = 64
    warmup_steps: int = 10
    seed: int = 0

    def _objective(self, forget: Forward, retain: Forward, frozen: Forward) -> Scalar:
        return self.gamma * npo(forget, frozen, self.beta) + self.alpha * nll(retain)

    def lesson(self, data: EditData, n_blocks: int) -> Lesson:
        """The recipe of these settings and its rows."""
        recipe = Recipe(
            "npo", against_frozen(self._objective),
            steps=self.steps, lr=self.lr, batch=self.batch, warmup_steps=self.warmup_steps, seed=self.seed,
            needs_frozen=True,
        )  # fmt: skip
        return Lesson(recipe, TrainData(data.forget, data.retain))

    def fit(self, bench: Bench, parent: Checkpoint, data: EditData, out: Path) -> Checkpoint:
        """Train on the forget and retain rows and write the changed tensors."""
        return fit_lesson(self, bench, parent, data, out)
