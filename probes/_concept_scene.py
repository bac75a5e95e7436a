"""One concept in one case: who shows it, beside which other picture each is held, and what a model says of both.

Everything is a contrast: what a model gives to the concept's own answer before a picture that shows it, less what it
gives to the same answer to the same question before a picture that does not. So a model that names the concept whatever
it is shown, or never, has none of it, and whatever an attack forces out of any picture counts for nothing.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy import ndarray

from audit.probing import (
    KEY_LOGPROB,
    Bench,
    CaseModels,
    Checkpoint,
    Item,
    OpenCase,
    PersonRows,
    Rows,
    Texts,
    Write,
    person_rows_of,
    row_means,
    stacked,
)
from probes._concept_items import ConceptItems, Option, answering, concept_items, strangers
from probes._concept_pictures import Picture

FORGET = Texts(cohort="forget")
Change = Callable[[Picture, Item], Picture]


class Pair(NamedTuple):
    """Rows of items before pictures that show the concept, and the same before pictures that do not."""

    present: Rows
    absent: Rows

    @property
    def rows(self) -> Rows:
        """Both, the present ones first."""
        return stacked([self.present, self.absent])

    def take(self, index: Int[torch.Tensor, " row"]) -> "Pair":
        """Some of the pairs."""
        return Pair(self.present.take(index), self.absent.take(index))


class Response(NamedTuple):
    """Probability of the concept's own answer, by item: before its own picture, and before one without the concept."""

    present: Float[ndarray, "*variant row"]
    absent: Float[ndarray, "*variant row"]

    @property
    def contrast(self) -> Float[ndarray, "*variant row"]:
        """How much more it is said of the pictures that show it."""
        return self.present - self.absent

    @property
    def nats(self) -> Float[ndarray, "*variant row"]:
        """The same in log-probability."""
        least = np.finfo(float).tiny
        return np.log(np.maximum(self.present, least)) - np.log(np.maximum(self.absent, least))

    def mean(self) -> "Response":
        """The mean over variants."""
        return Response(self.present.mean(0), self.absent.mean(0))


def _of_few(sheet: PersonRows, most: int, seed: int) -> PersonRows:
    """The rows of at most ``most`` pictures, drawn by the seed."""
    if len(sheet.people) <= most:
        return sheet
    people = sorted(np.random.default_rng(seed).permutation(len(sheet.people))[:most].tolist())
    rows = np.flatnonzero(np.isin(sheet.person, people))
    return PersonRows(
        sheet.rows.take(torch.from_numpy(rows)), tuple(sheet.items[n] for n in rows),
        tuple(sheet.people[n] for n in people), np.searchsorted(people, sheet.person[rows]),
    )  # fmt: skip


class ConceptScene:
    """The trained forget items of a case with a picture without the concept for each, in every model of the case."""

    def __init__(self, bench: Bench, case: OpenCase, cast: CaseModels, most: int) -> None:
        self.bench, self.case, self.cast = bench, case, cast
        self.models: Mapping[str, Checkpoint] = cast.by_name()
        self.items: ConceptItems = concept_items(case)
        self.sheet: PersonRows = _of_few(person_rows_of(case, FORGET), most, case.case.seed)
        groups = [item.group for item in (*self.sheet.items, *self.items.forget)]
        self.stranger = strangers(groups, self.items.without, case.case.seed) if self.items.without else {}

    @property
    def unusable(self) -> str:
        """Why nothing can be compared in this case, or an empty string."""
        if self.stranger:
            return ""
        return "no retained picture is without the concept: each of them has an item that says so"

    # ---- rows ----------------------------------------------------------------------------------------------------
    def plain(self) -> Pair:
        """The trained items as they are."""
        return self.pair(self.sheet.items)

    def pair(
        self, items: Sequence[Item], options: Sequence[Option] | None = None, change: Change | None = None
    ) -> Pair:
        """Items with their own answers or others, their pictures as they are or changed."""
        queries = items if options is None else list(map(answering, items, options))
        answers = [item.answer for item in items] if options is None else [option.answer for option in options]
        others = [self.stranger[item.group] for item in items]
        if change is None:
            present = self.case.rows_of(queries, answers)
            shown = self.case.rows_of(others, [other.answer for other in others])
            return Pair(present, replace(present, extra=shown.extra))
        pictures = self.case.pictures
        own = {item.id: change(pictures[item.id], item) for item in items}
        without = {item.id: change(pictures[other.id], item) for item, other in zip(items, others, strict=True)}
        return Pair(*(self.case.rows_of(queries, answers, pictures=shown) for shown in (own, without)))

    # ---- scores --------------------------------------------------------------------------------------------------
    def responses(self, name: str, pairs: Sequence[Pair], writes: Sequence[Write] = ()) -> list[Response]:
        """What a model says before every pair, all of them in one pass."""
        if not pairs:
            return []
        rows = stacked([part for pair in pairs for part in pair])
        means = row_means(self.bench.run(self.models[name], rows, (KEY_LOGPROB,), writes)[KEY_LOGPROB], rows)
        ends = np.cumsum([len(part) for pair in pairs for part in pair])[:-1]
        parts = np.split(np.exp(means), ends)
        return [Response(present, absent) for present, absent in zip(parts[::2], parts[1::2], strict=True)]

    def fold_of(self, folds: int) -> Int[ndarray, " row"]:
        """The part of whole pictures that each trained item is in."""
        parts = self.case.folds(FORGET, folds)
        number = {group: n for n, part in enumerate(parts) for group in part.group_ids}
        return np.array([number[group] for group in self.sheet.rows.group_ids])

    def by_picture(self, items: Sequence[Item], values: Float[ndarray, " row"]) -> Float[ndarray, " person"]:
        """Means over each picture of the sheet; NaN where none of these items is of it."""
        place = {group: n for n, group in enumerate(self.sheet.people)}
        total, count = np.zeros(len(place)), np.zeros(len(place))
        for item, value in zip(items, values, strict=True):
            if item.group in place and np.isfinite(value):
                total[place[item.group]] += value
                count[place[item.group]] += 1
        return np.where(count > 0, total / np.maximum(count, 1), np.nan)
