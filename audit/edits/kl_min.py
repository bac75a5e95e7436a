"""KL minimisation: climb the forget loss while staying close to the start's predictions on the retained answers."""

from dataclasses import replace
from typing import ClassVar

from audit.bench import Forward, TrainData
from audit.edits._descent import Descent, TrainingRun, near_frozen, recipe_of
from audit.edits._edit import EditData
from audit.edits._losses import Scalar, ascent, divergence


class KLMin(Descent):
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

    def lesson(self, data: EditData, n_blocks: int) -> TrainingRun:
        """The recipe of these settings and its rows."""
        recipe = replace(recipe_of(self, near_frozen(self._objective)), needs_frozen=True)
        return TrainingRun(recipe, TrainData(data.forget, data.retain))
