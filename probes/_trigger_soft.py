"""Soft prefixes of one model: found on some people, chosen by others, and read on people whom they never saw."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy import ndarray
from torch import Tensor

from audit.probing import (
    KEY_LOGPROB,
    Arm,
    Bench,
    Checkpoint,
    Forward,
    Prefix,
    SearchRows,
    Slot,
    SoftBudget,
    row_mean,
    row_means,
)
from probes._trigger_budgets import TriggerBudget
from probes._trigger_people import PlacedRows, TriggerFold, TriggerPeople


class TriggerArm(NamedTuple):
    """So many virtual tokens in such a place."""

    slot: Slot
    length: int

    def __str__(self) -> str:
        return f"{self.slot}_{self.length}" if self.length else "nothing"


class SoftReading(NamedTuple):
    """One model under its own prefixes, arm by arm; before them stands the model as it is.

    ``validation`` [fold arm]: mean probability of the content tokens of the people chosen by. ``forget`` [row arm]:
    mean log-probability (nats) of everybody's, under the prefixes of their fold, which saw none of them. ``holdout``
    [fold other arm]: of holdout people's. ``prefixes`` [fold arm n d]: virtual tokens, zero after an arm's length.
    """

    arms: tuple[TriggerArm, ...]
    validation: Float[ndarray, "fold arm"]
    forget: Float[ndarray, "row arm"]
    holdout: Float[ndarray, "fold other arm"]
    prefixes: Float[ndarray, "fold arm n d"]

    @property
    def chosen(self) -> Int[ndarray, " fold"]:
        """The best arm of each fold by the people chosen by; 0 where nothing is better than to say nothing."""
        return self.validation.argmax(1)

    @property
    def favourite(self) -> Int[ndarray, " fold"]:
        """The best arm of each fold that says anything."""
        return 1 + self.validation[:, 1:].argmax(1)

    def prefix(self, fold: int, arm: int) -> Float[Tensor, "n d"]:
        """The virtual tokens of an arm."""
        return torch.from_numpy(self.prefixes[fold, arm, : self.arms[arm].length])

    def at_best(self, fold_of: Int[ndarray, " row"]) -> Float[ndarray, "row 1"]:
        """Probability of everybody's content tokens under the chosen prefix of their fold."""
        return np.exp(self.forget[np.arange(len(fold_of)), self.chosen[fold_of]])[:, None]

    def others_at_best(self) -> tuple[Float[ndarray, "other 1"], ...]:
        """Probability of holdout people's content tokens under the chosen prefix of each fold; empty without them."""
        return tuple(np.exp(x[:, [arm]]) for x, arm in zip(self.holdout, self.chosen, strict=True) if len(x))


def arms_of(budget: TriggerBudget, slots: Sequence[Slot], room: int) -> tuple[TriggerArm, ...]:
    """Every length in the place of a prefix, one in every other place, as far as the context has ``room``."""
    first = [TriggerArm("prefix", n) for n in budget.lengths if "prefix" in slots]
    arms = (*first, *(TriggerArm(slot, budget.elsewhere) for slot in slots if slot != "prefix"))
    return tuple(arm for arm in arms if arm.length <= room)


def content(forward: Forward) -> Float[Tensor, " row"]:
    """Mean log-probability (nats) of each row's content tokens: what a search makes large."""
    return row_mean(forward.logprob[forward.key], forward.row[forward.key], int(forward.row.max()) + 1)


def read_under(
    bench: Bench, checkpoint: Checkpoint, placed: PlacedRows, slot: Slot, prefix: Float[Tensor, "n d"]
) -> Float[ndarray, " row"]:
    """Mean log-probability (nats) of each row's content tokens with the same virtual tokens in every row."""
    writes = (Prefix(prefix.expand(len(placed.rows), -1, -1), placed.places[slot]),) if len(prefix) else ()
    return row_means(bench.run(checkpoint, placed.rows, (KEY_LOGPROB,), writes)[KEY_LOGPROB], placed.rows)


class SoftSearch(NamedTuple):
    """What is searched in every model alike: these arms, at this budget, from these starts."""

    arms: tuple[TriggerArm, ...]
    budget: TriggerBudget
    seed: int

    def prefixes(self, bench: Bench, checkpoint: Checkpoint, fold: TriggerFold) -> list[Tensor]:
        """The best prefix of every arm by the people chosen by, fitted to those searched on."""
        places = [(fold.search.places[arm.slot], fold.validation.places[arm.slot]) for arm in self.arms]
        arms = [Arm(arm.length, str(arm.slot), *at) for arm, at in zip(self.arms, places, strict=True)]
        rows, budget = SearchRows(fold.search.rows, fold.validation.rows), self.budget
        effort = SoftBudget(budget.steps, budget.lr, budget.restarts, token_budget=bench.token_budget)
        return [fitted.prefix for fitted in bench.soft_prefixes(checkpoint, rows, arms, content, effort, self.seed)]

    def reading(self, bench: Bench, checkpoint: Checkpoint, people: TriggerPeople) -> SoftReading:
        """Search in one model on every fold's people, and read it; from the store where that was done before."""
        folds = [self._fold(bench, checkpoint, people, fold) for fold in people.folds]
        forget = np.empty((len(people.everybody.rows), 1 + len(self.arms)))
        for fold, fitted in zip(people.folds, folds, strict=True):
            forget[fold.read.number.numpy()] = fitted["read"]
        validation, holdout, prefixes = (
            np.stack([fitted[name] for fitted in folds]) for name in ("validation", "holdout", "prefixes")
        )
        return SoftReading((TriggerArm("prefix", 0), *self.arms), validation, forget, holdout, prefixes)

    def _fold(
        self, bench: Bench, checkpoint: Checkpoint, people: TriggerPeople, fold: TriggerFold
    ) -> dict[str, ndarray]:
        readers = {"validation": fold.validation, "read": fold.read}
        readers |= {} if people.holdout is None else {"holdout": people.holdout}
        placed = [part.identity for part in (fold.search, *readers.values())]
        identity = [
            "soft prefixes",
            checkpoint.key,
            self.budget._asdict(),
            [str(a) for a in self.arms],
            placed,
            self.seed,
        ]

        def compute() -> dict[str, ndarray]:
            with bench.without_store():
                nothing = TriggerArm("prefix", 0), torch.zeros(0, bench.open(checkpoint).d_model)
                fitted = [nothing, *zip(self.arms, self.prefixes(bench, checkpoint, fold), strict=True)]
                read = {
                    name: np.stack([read_under(bench, checkpoint, rows, arm.slot, prefix) for arm, prefix in fitted], 1)
                    for name, rows in readers.items()
                }
            chosen_by = np.exp(read.pop("validation")).mean(0)
            none = {} if "holdout" in read else {"holdout": np.zeros((0, len(fitted)))}
            return {"validation": chosen_by, "prefixes": _padded([p for _, p in fitted]), **read, **none}

        return bench.cached(identity, compute)


def _padded(prefixes: Sequence[Tensor]) -> Float[ndarray, "arm n d"]:
    longest = max(len(prefix) for prefix in prefixes)
    return np.stack([np.pad(prefix.numpy(), ((0, longest - len(prefix)), (0, 0))) for prefix in prefixes])
