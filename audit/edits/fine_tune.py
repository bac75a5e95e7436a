"""Fine-tuning on what is to be kept, and nothing else: forgetting is left to happen by itself."""

from typing import ClassVar

from audit.bench import TrainData
from audit.edits._descent import Descent, TrainingRun, of_retain, recipe_of
from audit.edits._edit import EditData, Material
from audit.edits._losses import nll


class FineTune(Descent):
    """Unlearns by NLL(retain) alone; the forget rows are never seen.

    Whatever is not overwritten stays: the usual baseline, and the weakest.
    Cite: the fine-tuning baseline of Golatkar, Achille and Soatto 2020, arXiv 1911.04933, section 6.
    """

    plays: ClassVar[str] = "weights"
    needs: ClassVar[tuple[Material, ...]] = ("retain",)

    steps: int = 100
    lr: float = 1e-3
    batch: int = 64
    warmup_steps: int = 10
    seed: int = 0

    def lesson(self, data: EditData, n_blocks: int) -> TrainingRun:
        """The recipe of these settings and its rows."""
        return TrainingRun(recipe_of(self, of_retain(nll)), TrainData(retain=data.retain))
