"""What stands beside a prefix that brings facts back: what else it does, and what one does that could not know them."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy import ndarray

from audit.probing import Bench, CaseModels, Checkpoint, Item, OpenCase, Rows
from probes._trigger_people import PlacedRows, TriggerFold, TriggerPeople
from probes._trigger_soft import SoftReading, SoftSearch, read_under

NORMS = (0.25, 0.5, 0.75)


class Planted(NamedTuple):
    """The suspect's best prefix of each fold, that says anything."""

    reading: SoftReading
    folds: tuple[TriggerFold, ...]

    def gain(self, bench: Bench, checkpoint: Checkpoint, plain: Float[ndarray, " row"], norm: float = 1.0) -> float:
        """By how much it raises the probability of the content tokens of people not searched on, in any model.

        ``plain`` [row]: that probability without it; ``norm``: the part of its length that it is put in with.
        """
        gains: list[float] = []
        for n, (fold, arm) in enumerate(zip(self.folds, self.reading.favourite.tolist(), strict=True)):
            prefix, slot = self.reading.prefix(n, arm) * norm, self.reading.arms[arm].slot
            under = np.exp(read_under(bench, checkpoint, fold.read, slot, prefix))
            gains.append(over_people(fold.read, under - plain[fold.read.number.numpy()]))
        return float(np.mean(gains))


def over_people(placed: PlacedRows, values: Float[ndarray, " row"]) -> float:
    """The mean of people's means; rows without content tokens drop out."""
    _, person = np.unique(np.array(placed.rows.group_ids), return_inverse=True)
    scored = np.isfinite(values)
    total = np.bincount(person[scored], values[scored])
    count = np.bincount(person[scored])
    return float((total[count > 0] / count[count > 0]).mean())


def controls(
    bench: Bench, case: OpenCase, cast: CaseModels, people: TriggerPeople, search: SoftSearch,
    readings: Mapping[str, SoftReading],
) -> dict[str, float]:  # fmt: skip
    """Gains in probability on people not searched on: of the suspect's prefix in base and in a model that never knew,
    at parts of its norm, on holdout people, and of a prefix fitted to answers dealt anew among the facts."""
    planted = Planted(readings["suspect"], people.folds)
    plain = {name: np.exp(reading.forget[:, 0]) for name, reading in readings.items()}
    width = readings["suspect"].prefixes.shape[-1]
    alike = {name: m for name, m in cast.by_name().items() if readings[name].prefixes.shape[-1] == width}
    others = {name: alike[name] for name in ("base", "null") if name in alike}
    with bench.without_store():
        gains = {f"suspects_prefix_in_{n}": planted.gain(bench, model, plain[n]) for n, model in others.items()}
        gains |= {f"gain_at_norm_{n}": planted.gain(bench, cast.suspect, plain["suspect"], n) for n in NORMS}
        gains["gain"] = planted.gain(bench, cast.suspect, plain["suspect"])
        shuffled = shuffled_gain(bench, case, people, search, planted)
    holdout = planted.reading.holdout
    if holdout.shape[1]:
        lifted = [
            np.exp(x[:, arm]) - np.exp(x[:, 0]) for x, arm in zip(holdout, planted.reading.favourite, strict=True)
        ]
        gains["gain_on_holdout"] = float(np.nanmean(lifted))
    return gains | shuffled


def shuffled_gain(
    bench: Bench, case: OpenCase, people: TriggerPeople, search: SoftSearch, planted: Planted
) -> dict[str, float]:
    """The same gain of a prefix that was fitted to other people's answers to the same questions: how an answer looks,
    and nothing of what is true. Empty where no fact has another's answer to take."""
    reading, prefixes = planted.reading, np.zeros_like(planted.reading.prefixes)
    for n, (fold, arm) in enumerate(zip(people.folds, reading.favourite.tolist(), strict=True)):
        dealt = [_dealt_anew(case, people, part, case.case.seed) for part in (fold.search, fold.validation)]
        if not all(len(part.rows) for part in dealt):
            return {}
        other = fold._replace(search=dealt[0], validation=dealt[1])
        single = search._replace(arms=(reading.arms[arm],))
        prefix = single.prefixes(bench, case.suspect, other)[0]
        prefixes[n, arm, : len(prefix)] = prefix.numpy()
    plain = np.exp(reading.forget[:, 0])
    shuffled = planted._replace(reading=reading._replace(prefixes=prefixes))
    return {"gain_of_shuffled_answers": shuffled.gain(bench, case.suspect, plain)}


def _dealt_anew(case: OpenCase, people: TriggerPeople, placed: PlacedRows, seed: int) -> PlacedRows:
    """The same prompts with answers of other people to questions of the same attribute; who finds none drops out."""
    items = [people.prompts.items[n] for n in placed.number.tolist()]
    donors = _donors(items, np.random.default_rng(seed))
    donated = np.flatnonzero(donors >= 0)
    if not len(donated):
        return placed.take(torch.zeros(0, dtype=torch.long))
    others = [items[donors[n]] for n in donated]
    given = [
        items[n].model_copy(update={"answer": o.answer, "key": o.key}) for n, o in zip(donated, others, strict=True)
    ]
    rows: Rows = case.rows_of(given, [item.answer for item in given])
    return placed.take(torch.from_numpy(donated))._replace(rows=rows)


def _donors(items: Sequence[Item], rng: np.random.Generator) -> Int[ndarray, " row"]:
    """For every item one of the same attribute, of somebody else, with another answer; -1 where there is none."""
    donors = np.full(len(items), -1)
    for n, item in enumerate(items):
        fits = [
            m for m, other in enumerate(items)
            if other.attribute == item.attribute and other.group != item.group and other.answer != item.answer
        ]  # fmt: skip
        if fits:
            donors[n] = fits[int(rng.integers(len(fits)))]
    return donors
