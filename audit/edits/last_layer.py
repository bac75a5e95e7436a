"""Last-layer-only training: a fake that rewrites the last block's output and leaves what lies below as it was."""

from pathlib import Path
from typing import ClassVar

from audit.bench import Bench
from audit.bench.shapes import Recipe
from audit.bench.training import TrainData
from audit.edits._edit import Edit, EditData
from audit.edits._lesson import Lesson, fit_lesson, of_both
from audit.edits._losses import nll, unlikelihood
from audit.nouns import Checkpoint

FINAL_NORM = r".*\.(norm|ln_f|final_layer_norm)\.(weight|bias)"


class LastLayer(Edit):
    """Silences by unlikelihood of the forgotten content + alpha NLL(retain), training the last block and final norm.

    Fake by construction: every earlier block keeps its bytes, so what it computes about the forget set is intact.
    Cite: unlikelihood as in Welleck et al. 2020, arXiv 1908.04319, eq. 4.
    """

    plays: ClassVar[str] = "weights"

    steps: int = 120
    lr: float = 2e-3
    gamma: float = 1.0
    alpha: float = 1.0
    batch: int = 64
    warmup_steps: int = 10
    seed: int = 0

    def lesson(self, data: EditData, n_blocks: int) -> Lesson:
        """The recipe of these settings and its rows."""
        recipe = Recipe(
            "last_layer", of_both(lambda forget, retain: self.gamma * unlikelihood(forget) + self.alpha * nll(retain)),
            steps=self.steps, lr=self.lr, batch=self.batch, warmup_steps=self.warmup_steps, seed=self.seed,
            trainable=rf".*\.{n_blocks - 1}\..*|{FINAL_NORM}",
        )  # fmt: skip
        return Lesson(recipe, TrainData(data.forget, data.retain))

    def fit(self, bench: Bench, parent: Checkpoint, data: EditData, out: Path) -> Checkpoint:
        """Train the last block on the forget and retain rows and write the changed tensors."""
        return fit_lesson(self, bench, parent, data, out)
