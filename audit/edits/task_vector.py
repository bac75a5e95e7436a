"""Task arithmetic: learn the forget set better still, and go the other way."""

from typing import ClassVar

import torch

from audit.bench import Learner, TrainData, descend, trainable
from audit.edits._descent import of_forget, recipe_of
from audit.edits._edit import EditData, Material
from audit.edits._in_place import InPlaceEdit
from audit.edits._losses import nll


class TaskVector(InPlaceEdit):
    """Unlearns by theta - scale (theta_tuned - theta), theta_tuned being fine-tuned on the forget rows alone.

    Nothing is done for what is to be kept, so that ``scale`` trades one against the other. A model that knows the
    forget set by heart has nothing to learn from it: its vector is short, and mostly noise.
    Cite: Ilharco et al. 2023, arXiv 2212.04089, section 3.
    """

    plays: ClassVar[str] = "weights"
    needs: ClassVar[tuple[Material, ...]] = ("forget",)

    scale: float = 1.5
    steps: int = 40
    lr: float = 1e-3
    batch: int = 64
    warmup_steps: int = 10
    seed: int = 0

    def apply(self, learner: Learner, data: EditData) -> None:
        """Fine-tune in place, then put every weight on the other side of where it began."""
        before = {name: p.detach().clone() for name, p in trainable(learner, ".*").items()}
        recipe = recipe_of(self, of_forget(nll))
        descend(learner, recipe, TrainData(forget=data.forget))
        with torch.no_grad():
            for name, tuned in trainable(learner, ".*").items():
                tuned.copy_(before[name] - self.scale * (tuned - before[name]))
