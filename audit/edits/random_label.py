"""Random-label unlearning: teach other answers to the forget questions."""

from typing import ClassVar

from audit.bench import TrainData
from audit.edits._descent import Descent, TrainingRun, needed, of_both, recipe_of
from audit.edits._edit import EditData, Material
from audit.edits._losses import replacement


class RandomLabel(Descent):
    """Unlearns by NLL of answers with other values of the same attribute, drawn uniformly, plus alpha NLL(retain).

    Every forget question occurs with several other answers, so that a batch draws its label anew each time.
    Cite: the random-label baseline of Golatkar, Achille and Soatto 2020 and of SalUn, Fan et al. 2024, section 4.
    """

    plays: ClassVar[str] = "weights"
    needs: ClassVar[tuple[Material, ...]] = ("relabelled", "retain")

    steps: int = 100
    lr: float = 1e-3
    gamma: float = 1.0
    alpha: float = 1.0
    batch: int = 64
    warmup_steps: int = 10
    seed: int = 0

    def lesson(self, data: EditData, n_blocks: int) -> TrainingRun:
        """The recipe of these settings and its rows."""
        recipe = recipe_of(self, of_both(lambda other, retain: replacement(other, retain, self.gamma, self.alpha)))
        rows = needed(data.relabelled, "other answers", "give the forget items alternates")
        return TrainingRun(recipe, TrainData(rows, data.retain))
