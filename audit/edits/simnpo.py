"""Simple negative preference optimisation: forget answers as dispreferred ones, by length and without a reference."""

from typing import ClassVar

from audit.bench import Forward, TrainData
from audit.edits._descent import Descent, TrainingRun, of_both, recipe_of
from audit.edits._edit import EditData
from audit.edits._losses import Scalar, nll, simnpo


class SimNPO(Descent):
    """Unlearns by gamma SimNPO on the forget answers, averaged over each answer's tokens, plus alpha NLL(retain).

    Cite: Fan et al. 2024, arXiv 2410.07163; delta is that paper's margin gamma divided by beta.
    """

    plays: ClassVar[str] = "weights"

    steps: int = 100
    lr: float = 1e-3
    beta: float = 4.5
    delta: float = 0.0
    gamma: float = 1.0
    alpha: float = 1.0
    batch: int = 64
    warmup_steps: int = 10
    seed: int = 0

    def _objective(self, forget: Forward, retain: Forward) -> Scalar:
        return self.gamma * simnpo(forget, self.beta, self.delta) + self.alpha * nll(retain)

    def lesson(self, data: EditData, n_blocks: int) -> TrainingRun:
        """The recipe of these settings and its rows."""
        recipe = recipe_of(self, of_both(self._objective))
        return TrainingRun(recipe, TrainData(data.forget, data.retain))
