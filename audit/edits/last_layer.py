"""Last-layer-only training: a fake that rewrites the last block's output and leaves what lies below as it was."""

from pathlib import Path
from typing import ClassVar

from audit.bench import Bench
from audit.bench.shapes import Recipe
from audit.bench.training import TrainData, train_one
from audit.edits._edit import Edit, EditData
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

    def recipe(self, n_blocks: int) -> Recipe:
        """The training recipe of these settings for a model with so many blocks."""
        return Recipe(
            "last_layer", lambda forget, retain, _f, _r: self.gamma * unlikelihood(forget) + self.alpha * nll(retain),
            steps=self.steps, lr=self.lr, batch=self.batch, warmup_steps=self.warmup_steps, seed=self.seed,
            trainable=rf".*\.{n_blocks - 1}\..*|{FINAL_NORM}",
        )  # fmt: skip

    def fit(self, bench: Bench, parent: Checkpoint, data: EditData, out: Path) -> Checkpoint:
        """Train the last block on the forget and retain rows and write the changed tensors."""
        recipe = self.recipe(bench.open(parent).n_blocks)
        return train_one(bench, parent, recipe, TrainData(data.forget, data.retain), {self.steps: out})[0]
