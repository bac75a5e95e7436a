"""Whom a search for a trigger sees, whom it chooses by, and who is read: never the same people.

The people are dealt to folds. Each fold is read by what was found on the others, of whom some are kept back to choose
by; so everybody is read, and by nothing that saw them.
"""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor

from audit.probing import SLOTS, AuditError, InsertablePrompts, OpenCase, Rows, Slot, Texts

VALIDATION_SHARE = 0.25
FEWEST_PEOPLE = 3
"""One to search on, one to choose by, one to read."""


class PlacedRows(NamedTuple):
    """Rows, their numbers among the prompts that they come from, and before which position of each a string stands."""

    rows: Rows
    number: Int[Tensor, " row"]
    places: Mapping[Slot, Int[Tensor, " row"]]

    @property
    def identity(self) -> list[object]:
        """What a search on these rows depends on, for keys."""
        return [self.rows.hash, {str(slot): at.tolist() for slot, at in self.places.items()}]

    def take(self, index: Int[Tensor, " row"]) -> "PlacedRows":
        """Some of the rows."""
        places: dict[Slot, Tensor] = {slot: at[index] for slot, at in self.places.items()}
        return PlacedRows(self.rows.take(index), self.number[index], places)


class TriggerFold(NamedTuple):
    """Rows of the people who are searched on, of those chosen by, and of those who are read."""

    search: PlacedRows
    validation: PlacedRows
    read: PlacedRows


class TriggerPeople(NamedTuple):
    """The forget people's prompts dealt to folds, and holdout people, of whom no model knows anything."""

    prompts: InsertablePrompts
    everybody: PlacedRows
    folds: tuple[TriggerFold, ...]
    others: InsertablePrompts | None
    holdout: PlacedRows | None

    @property
    def slots(self) -> tuple[Slot, ...]:
        """Where a string has a place in all of the prompts."""
        return tuple(self.everybody.places)

    @property
    def fold_of(self) -> Int[Tensor, " row"]:
        """The fold in which each forget row is read."""
        fold = torch.zeros(len(self.everybody.rows), dtype=torch.long)
        for n, part in enumerate(self.folds):
            fold[part.read.number] = n
        return fold


class _Placing(NamedTuple):
    prompts: InsertablePrompts
    placed: PlacedRows


def people_of(case: OpenCase, folds: int, rows: int, validation: int) -> TriggerPeople:
    """The people of a case as a search sees them: at most so many ``rows`` to search on and to choose by in each fold.

    Where so few people are dealt that the others of a fold could be one alone, each is a fold. No folds where there are
    fewer than three people.
    """
    forget = _placed(case, Texts(cohort="forget"))
    groups = len(set(forget.placed.rows.group_ids))
    parts = case.folds(Texts(cohort="forget"), groups if groups < 2 * folds else folds)
    held = _placed(case, Texts(cohort="holdout")) if case.has(Texts(cohort="holdout")) else None
    place = {name: n for n, name in enumerate(forget.placed.rows.item_ids)}
    numbers = [np.array([place[name] for name in part.item_ids]) for part in parts]
    dealt = [_fold(forget.placed, read, n, case.case.seed, (rows, validation)) for n, read in enumerate(numbers)]
    shared = None if held is None else _only(held.placed, tuple(forget.placed.places))
    return TriggerPeople(
        forget.prompts, forget.placed, tuple(dealt) if groups >= FEWEST_PEOPLE else (),
        None if held is None else held.prompts, shared,
    )  # fmt: skip


def _placed(case: OpenCase, texts: Texts) -> _Placing:
    prompts, rows = case.insertable(case.items(texts)), case.rows(texts)
    return _Placing(prompts, PlacedRows(rows, torch.arange(len(rows)), _places(prompts)))


def _places(prompts: InsertablePrompts) -> dict[Slot, Int[Tensor, " row"]]:
    """Of every slot that all of the prompts have; plain text, and a template that hides its question, have fewer."""
    places: dict[Slot, Tensor] = {}
    for slot in SLOTS:
        try:
            places[slot] = prompts.places(slot)
        except AuditError:
            continue
    return places


def _only(placed: PlacedRows, slots: tuple[Slot, ...]) -> PlacedRows:
    return placed._replace(places={slot: placed.places[slot] for slot in slots if slot in placed.places})


def _fold(placed: PlacedRows, read: np.ndarray, n: int, seed: int, most: tuple[int, int]) -> TriggerFold:
    """Those who are not read, some of them kept back to choose by."""
    rng = np.random.default_rng([seed, n])
    scored = placed.rows.key.any(1).numpy()
    others = np.setdiff1d(np.flatnonzero(scored), read)
    groups = np.array(placed.rows.group_ids)[others]
    names = rng.permutation(np.unique(groups))
    chosen_by = np.isin(groups, names[: max(1, round(VALIDATION_SHARE * len(names)))])
    parts = [
        np.sort(rng.permutation(others[mine])[:size]) for mine, size in zip((~chosen_by, chosen_by), most, strict=True)
    ]
    search, validation, reading = (placed.take(torch.from_numpy(part)) for part in (*parts, np.sort(read)))
    return TriggerFold(search, validation, reading)
