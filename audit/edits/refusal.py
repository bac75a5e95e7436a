"""Refusal training: answer the forget questions by declining."""

from typing import ClassVar

from audit.bench import TrainData
from audit.edits._descent import Descent, TrainingRun, needed, of_both, recipe_of
from audit.edits._edit import EditData, Material
from audit.edits._images import refuse_labels
from audit.edits._losses import replacement


class Refusal(Descent):
    """Silences by gamma NLL(refusing answers) + alpha NLL(retain); nothing pushes on the forgotten answer itself.

    Cite: TOFU, Maini et al. 2024, section 4 (IdkNLL).
    """

    plays: ClassVar[str] = "weights"
    of_texts: ClassVar[bool] = True
    needs: ClassVar[tuple[Material, ...]] = ("refusal", "retain")

    steps: int = 60
    lr: float = 5e-4
    gamma: float = 1.0
    alpha: float = 1.0
    batch: int = 64
    warmup_steps: int = 10
    seed: int = 0

    def lesson(self, data: EditData, n_blocks: int) -> TrainingRun:
        """The recipe of these settings and its rows."""
        refuse_labels(self.name, data, "it teaches a refusing answer")
        recipe = recipe_of(
            self, of_both(lambda refusing, retain: replacement(refusing, retain, self.gamma, self.alpha))
        )
        rows = needed(data.refusal, "refusing answers", "give the forget questions refusing answers")
        return TrainingRun(recipe, TrainData(rows, data.retain))
