"""Relearn: an attack that shows some of the forgotten people again, and asks nothing of the others."""

from dataclasses import replace
from typing import ClassVar

from audit.bench import TrainData
from audit.edits._descent import Descent, TrainingRun, of_forget, recipe_of
from audit.edits._edit import EditData, Material
from audit.edits._losses import nll


class Relearn(Descent):
    """Fine-tunes on the forget rows it is given, answer tokens only: give it half of the forget people.

    What it was shown says nothing, since any model learns it. What the others' facts do is the evidence: facts that are
    independent of what was shown cannot be learned from it, only found again. The learning rate is constant, so that
    the model after k steps does not depend on how many follow.

    Cite: Deeb and Roger 2024, arXiv 2410.08827 (retraining on T, testing on V).
    """

    plays: ClassVar[str] = "weights"
    needs: ClassVar[tuple[Material, ...]] = ("forget",)

    steps: int = 32
    lr: float = 1e-3
    batch: int = 32
    warmup_steps: int = 2
    seed: int = 0

    def lesson(self, data: EditData, n_blocks: int) -> TrainingRun:
        """The recipe of these settings and its rows."""
        recipe = replace(recipe_of(self, of_forget(nll)), schedule="constant")
        return TrainingRun(recipe, TrainData(data.forget))
