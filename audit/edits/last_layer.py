"""Last-layer-only training: a fake that rewrites the last block's output and leaves what lies below as it was."""

from dataclasses import replace
from pathlib import Path
from typing import ClassVar

from audit.bench import Bench, TrainData, train_one
from audit.edits._descent import Descent, TrainingRun, of_both, recipe_of
from audit.edits._edit import EditData
from audit.edits._images import last_block
from audit.edits._losses import nll, unlikelihood
from audit.schema import Checkpoint

FINAL_NORM = r".*\.(norm|ln_f|final_layer_norm)\.(weight|bias)"
IMAGE_NORM = r"[^.]*\.layernorm\.(weight|bias)"


class LastLayer(Descent):
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

    def fit(self, bench: Bench, parent: Checkpoint, data: EditData, out: Path) -> Checkpoint:
        """Train a copy of ``parent``; what the last block of a classifier of images is, its own modules say."""
        if parent.modality != "image":
            return super().fit(bench, parent, data, out)
        recipe, rows = self.lesson(data, bench.open(parent).n_blocks)
        recipe = replace(recipe, trainable=f"{last_block(bench.open(parent))}|{IMAGE_NORM}")
        return train_one(bench.pool, parent, recipe, rows, {recipe.steps: out})[0]

    def lesson(self, data: EditData, n_blocks: int) -> TrainingRun:
        """The recipe of these settings and its rows."""
        recipe = replace(
            recipe_of(
                self, of_both(lambda forget, retain: self.gamma * unlikelihood(forget) + self.alpha * nll(retain))
            ),
            trainable=rf"\D*\.{n_blocks - 1}\..*|{FINAL_NORM}",
        )
        return TrainingRun(recipe, TrainData(data.forget, data.retain))
