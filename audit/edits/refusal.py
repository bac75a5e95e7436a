"""Refusal training: answer the forget questions by declining."""

from pathlib import Path
from typing import ClassVar

from audit.bench import Bench
from audit.bench.shapes import Recipe
from audit.bench.training import TrainData
from audit.edits._edit import Edit, EditData
from audit.edits._lesson import Lesson, fit_lesson, needed, of_both
from audit.edits._losses import replacement
from audit.nouns import Checkpoint


class Refusal(Edit):
    """Silences by gamma NLL(refusing answers) + alpha NLL(retain); nothing pushes on the forgotten answer itself.

    Cite: TOFU, Maini et al. 2024, section 4 (IdkNLL).
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
            "refusal", of_both(lambda refusing, retain: replacement(refusing, retain, self.gamma, self.alpha)),
            steps=self.steps, lr=self.lr, batch=self.batch, warmup_steps=self.warmup_steps, seed=self.seed,
        )  # fmt: skip
        rows = needed(data.refusal, "refusing answers", "give the forget questions refusing answers")
        return Lesson(recipe, TrainData(rows, data.retain))

    def fit(self, bench: Bench, parent: Checkpoint, data: EditData, out: Path) -> Checkpoint:
        """Train on the refusing and retain rows and write the changed tensors."""
        return fit_lesson(self, bench, parent, data, out)
