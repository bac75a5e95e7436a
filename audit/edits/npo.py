"""Negative preference optimisation: the forget answers as dispreferred ones, against the model it started from."""

from dataclasses import replace
from typing import ClassVar

from audit.bench import Forward, TrainData
from audit.edits._descent import Descent, TrainingRun, against_frozen, recipe_of
from audit.edits._edit import EditData
from audit.edits._losses import Scalar, nll, npo


class NPO(Descent):
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

    def lesson(self, data: EditData, n_blocks: int) -> TrainingRun:
        """The recipe of these settings and its rows."""
        recipe = replace(recipe_of(self, against_frozen(self._objective)), needs_frozen=True)
        return TrainingRun(recipe, TrainData(data.forget, data.retain))
