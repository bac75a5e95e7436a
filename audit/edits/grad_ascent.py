"""Gradient ascent on the forget answers, with nothing to hold the rest of the model in place."""

from typing import ClassVar

from audit.bench import TrainData
from audit.edits._descent import Descent, TrainingRun, of_forget, recipe_of
from audit.edits._edit import EditData, Material
from audit.edits._losses import ascent


class GradAscent(Descent):
    """Unlearns by climbing the forget loss. Run late, as by default, it destroys the model: the control for INVALID.

    Cite: Jang et al. 2023, arXiv 2210.01504.
    """

    plays: ClassVar[str] = "weights"
    needs: ClassVar[tuple[Material, ...]] = ("forget",)

    steps: int = 60
    lr: float = 2e-3
    batch: int = 64
    warmup_steps: int = 10
    seed: int = 0

    def lesson(self, data: EditData, n_blocks: int) -> TrainingRun:
        """The recipe of these settings and its rows."""
        recipe = recipe_of(self, of_forget(ascent))
        return TrainingRun(recipe, TrainData(data.forget))
