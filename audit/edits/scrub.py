"""SCRUB: a student that stays with its teacher on what is kept and strays from it on what is to be forgotten."""

from dataclasses import replace
from typing import Annotated, ClassVar, NamedTuple

from pydantic import Field
from torch import Tensor

from audit.bench import Forward, TrainData
from audit.edits._descent import Descent, TrainingRun, recipe_of
from audit.edits._edit import EditData
from audit.edits._losses import Scalar, divergence, nll


class Cycle(NamedTuple):
    """An epoch of max steps on the forget rows, then one of min steps on the retained ones; max steps end after
    ``cycles`` of them."""

    up: int
    down: int
    cycles: int

    def climbs(self, step: int) -> bool:
        """Is this a max step?"""
        cycle, place = divmod(step, self.up + self.down)
        return cycle < self.cycles and place < self.up


class SCRUB(Descent):
    """Unlearns by turns: max steps climb KL(teacher || student) on the forget rows, min steps descend
    alpha KL(teacher || student) + gamma NLL on the retained ones. The teacher is the model that training starts from.

    A turn is an epoch of either side; after ``max_epochs`` of the former only min steps follow, which restore what the
    climb has cost. ``steps`` counts both kinds. (Rewinding to an earlier epoch, by which the paper tunes single images,
    is not done.)
    Cite: Kurmanji, Triantafillou, Hayes and Triantafillou 2023, arXiv 2302.09880, eq. 3 and algorithm 1.
    """

    plays: ClassVar[str] = "weights"

    steps: int = 120
    lr: float = 1e-3
    alpha: float = 1.0
    gamma: float = 1.0
    max_epochs: Annotated[int, Field(ge=1)] = 3
    batch: int = 64
    warmup_steps: int = 10
    seed: int = 0

    def cycle(self, data: EditData) -> Cycle:
        """How the two kinds of steps alternate on these rows."""
        up, down = (max(1, -(-len(rows) // self.batch)) for rows in (data.forget, data.retain))
        return Cycle(up, down, self.max_epochs)

    def climbed(self, forget: Forward, frozen: Forward) -> Scalar:
        """What a max step descends."""
        return -divergence(forget, frozen)

    def descended(self, retain: Forward, frozen: Forward) -> Scalar:
        """What a min step descends."""
        return self.alpha * divergence(retain, frozen) + self.gamma * nll(retain)

    def lesson(self, data: EditData, n_blocks: int) -> TrainingRun:
        """The recipe of these settings and its rows: one run's own, since it counts its steps."""
        turns, taken = self.cycle(data), 0

        def objective(
            forget: Forward | None, retain: Forward | None, frozen: Forward | None, still: Forward | None
        ) -> Tensor:
            nonlocal taken
            assert forget is not None and retain is not None and frozen is not None and still is not None
            climbs, taken = turns.climbs(taken), taken + 1
            return self.climbed(forget, frozen) if climbs else self.descended(retain, still)

        recipe = replace(recipe_of(self, objective), needs_frozen=True)
        return TrainingRun(recipe, TrainData(data.forget, data.retain))
