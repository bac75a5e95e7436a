"""A shift of the first states in an early layer: found on some people, chosen by others, read as a prefix is.

What a trigger of many words or of a meaning does has to pass through the shallow states; a shift of them that is no
longer than they are needs no words. It is no string: it says that something can be moved there, and gives no key.
"""

from typing import Final, NamedTuple

import numpy as np
from jaxtyping import Float, Int
from numpy import ndarray

from audit.probing import (
    KEY_LOGPROB,
    Bench,
    Checkpoint,
    SearchRows,
    Shift,
    ShiftPlace,
    SoftBudget,
    row_means,
)
from probes._trigger_budgets import TriggerBudget
from probes._trigger_people import PlacedRows, TriggerFold, TriggerPeople
from probes._trigger_soft import content

SHIFTED: Final = ShiftPlace(block=0, n=8, first=1)
"""Positions 1 to 8 of every prompt; the first of all is where attention sinks."""
DEPTH: Final = 4
"""The input of the block after so many parts of the model's depth."""


class ShiftReading(NamedTuple):
    """One model under its own shifts. ``forget`` [row]: probability of everybody's content tokens under the shift of
    their fold, which saw none of them; ``holdout`` [fold other]: of holdout people's."""

    block: int
    forget: Float[ndarray, " row"]
    holdout: Float[ndarray, "fold other"]

    def at_best(self, fold_of: Int[ndarray, " row"]) -> Float[ndarray, "row 1"]:
        """Probability of everybody's content tokens under the shift of their fold."""
        return self.forget[:, None]

    def others_at_best(self) -> tuple[Float[ndarray, "other 1"], ...]:
        """Probability of holdout people's content tokens under the shift of each fold; empty without them."""
        return tuple(x[:, None] for x in self.holdout if len(x))


class ShiftSearch(NamedTuple):
    """What is searched in every model alike: as long and from as many starts as virtual tokens are."""

    budget: TriggerBudget
    seed: int

    def reading(self, bench: Bench, checkpoint: Checkpoint, people: TriggerPeople) -> ShiftReading:
        """Search in one model on every fold's people, and read it; from the store where that was done before."""
        place = SHIFTED._replace(block=bench.open(checkpoint).n_blocks // DEPTH)
        folds = [self._fold(bench, checkpoint, people, fold, place) for fold in people.folds]
        forget = np.empty(len(people.everybody.rows))
        for fold, read in zip(people.folds, folds, strict=True):
            forget[fold.read.number.numpy()] = np.exp(read["read"])
        return ShiftReading(place.block, forget, np.exp(np.stack([read["holdout"] for read in folds])))

    def _fold(
        self, bench: Bench, checkpoint: Checkpoint, people: TriggerPeople, fold: TriggerFold, place: ShiftPlace
    ) -> dict[str, ndarray]:
        readers = {"read": fold.read} | ({} if people.holdout is None else {"holdout": people.holdout})
        rows = [part.rows.hash for part in (fold.search, fold.validation, *readers.values())]
        identity = ["shift", checkpoint.key, self.budget._asdict(), list(place), rows, self.seed]

        def compute() -> dict[str, ndarray]:
            with bench.without_store():
                shift = self._found(bench, checkpoint, fold, place)
                read = {name: read_shifted(bench, checkpoint, placed, shift) for name, placed in readers.items()}
            return {"holdout": np.zeros(0), **read}

        return bench.cached(identity, compute)

    def _found(self, bench: Bench, checkpoint: Checkpoint, fold: TriggerFold, place: ShiftPlace) -> Shift:
        budget, rows = self.budget, SearchRows(fold.search.rows, fold.validation.rows)
        effort = SoftBudget(budget.steps, budget.lr, budget.restarts, token_budget=bench.token_budget)
        return bench.soft_shift(checkpoint, rows, place, content, effort, self.seed).write()


def read_shifted(bench: Bench, checkpoint: Checkpoint, placed: PlacedRows, shift: Shift) -> Float[ndarray, " row"]:
    """Mean log-probability (nats) of each row's content tokens with the same shift in every row."""
    return row_means(bench.run(checkpoint, placed.rows, (KEY_LOGPROB,), (shift,))[KEY_LOGPROB], placed.rows)


def shiftable(people: TriggerPeople) -> bool:
    """Does some prompt of each side of every fold reach the first position that is shifted?"""
    sides = [part.rows for fold in people.folds for part in (fold.search, fold.validation)]
    return all(int(rows.answer_spans[:, 0].max()) > SHIFTED.first for rows in sides)
