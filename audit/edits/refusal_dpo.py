"""Preference for refusing: a refusing answer preferred to the forgotten one, against the model it started from."""

from dataclasses import replace
from typing import ClassVar

from audit.bench import Forward, TrainData
from audit.edits._descent import Descent, TrainingRun, against_frozen, needed, paired, recipe_of
from audit.edits._edit import EditData, Material
from audit.edits._images import refuse_labels
from audit.edits._losses import Scalar, dpo, nll


class RefusalDPO(Descent):
    """Silences by gamma DPO(refusing answer over forget answer) + alpha NLL(retain).

    Unlike refusal training it pushes the forgotten answer down as well. A batch holds batch / 2 pairs.
    Cite: DPO, Rafailov et al. 2023, arXiv 2305.18290; for unlearning, TOFU, Maini et al. 2024, section 4 (IdkDPO).
    """

    plays: ClassVar[str] = "weights"
    of_texts: ClassVar[bool] = True
    needs: ClassVar[tuple[Material, ...]] = ("forget", "refusal", "retain")

    steps: int = 80
    lr: float = 1e-3
    beta: float = 0.05
    gamma: float = 1.0
    alpha: float = 5.0
    batch: int = 64
    warmup_steps: int = 10
    seed: int = 0

    def _objective(self, pairs: Forward, retain: Forward, frozen: Forward) -> Scalar:
        return self.gamma * dpo(pairs, frozen, self.beta) + self.alpha * nll(retain)

    def lesson(self, data: EditData, n_blocks: int) -> TrainingRun:
        """The recipe of these settings and its rows: pairs of a refusing answer and the answer to forget."""
        refuse_labels(self.name, data, "it prefers a refusing answer")
        recipe = replace(recipe_of(self, against_frozen(self._objective)), needs_frozen=True, paired=True)
        refusing = needed(data.refusal, "refusing answers", "give the forget questions refusing answers")
        return TrainingRun(recipe, TrainData(paired(refusing, data.forget), data.retain))
