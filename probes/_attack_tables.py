"""What came out under every attack, by model: people's means, the effect of each, and the tables that show them."""

from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from numpy import ndarray

from audit.probing import (
    CaseModels,
    HeatMap,
    Interval,
    Listing,
    OpenCase,
    PersonRows,
    Table,
    interval,
    item_table,
    stats,
)
from probes._attack_rows import DIRECT, AttackSheet
from probes._form_bias import Drop, common, drop_of, person_means

SAMPLING: Final = "sampling"
BLIND: Final = "blind here: base does not know the facts under this attack"
DIES: Final = "does not survive"
SURVIVES: Final = "survives"
TOO_FEW_PEOPLE: Final = "too few people"
COLUMNS: Final = (
    "attack", "facts", "people", "base", "suspect", "never trained", "effect", "lo", "hi", "note",
)  # fmt: skip
PUBLISHED: Final = (
    "attack", "suspect as published", "never trained as published", "wrong answers in suspect", "excess", "lo", "hi",
    "after its controls",
)  # fmt: skip
CAME_OUT: Final = "came out"
MAP_COLUMNS: Final = ("attack", "model", CAME_OUT)
MAP: Final = HeatMap(x="model", y="attack", value=CAME_OUT)
_MOST_DRAWN: Final = 24
"""So many attacks are drawn at most: those under which most came out."""
Scores = Mapping[str, Float[ndarray, "fact attack"]]


class Attempts(NamedTuple):
    """Every attack on every fact. ``excess``: what a model gives to the answer beyond wrong answers, by model; ``own``
    and ``wrong`` its two parts. ``drops``: the attack over people; None where nobody is asked so."""

    sheet: AttackSheet
    attacks: tuple[str, ...]
    own: Scores
    wrong: Scores
    excess: Scores
    people: tuple[str, ...]
    person: Int[ndarray, " fact"]
    drops: tuple[Drop | None, ...]

    @property
    def means(self) -> dict[str, Float[ndarray, "person attack"]]:
        """Every model's excess over the facts of each person."""
        return self.over_people(self.excess)

    def over_people(self, scores: Scores) -> dict[str, Float[ndarray, "person attack"]]:
        """Means over each person's facts."""
        return {name: person_means(x, self.person, len(self.people)) for name, x in scores.items()}

    @property
    def known(self) -> Bool[ndarray, " attack"]:
        """Under which attacks base knows the facts."""
        return np.array([drop is not None and not drop.blind for drop in self.drops])

    def effect(self, place: int) -> tuple[float, Interval | None]:
        """(suspect - null)/(base - null) of one attack, over the people who are asked so, with 95 %."""
        suspect, base, null = self._sides(place)
        bounds = interval((suspect - null)[:, None], (base - null)[:, None], 0)
        gap = float((base - null).mean())
        return float((suspect - null).mean()) / gap, bounds if isinstance(bounds, Interval) else None

    def beyond_null(self, place: int) -> tuple[float, tuple[float, float] | tuple[None, None]]:
        """Suspect less null of one attack in its own unit, with 95 %."""
        suspect, _, null = self._sides(place)
        return beyond(suspect - null)

    def _sides(self, place: int) -> tuple[ndarray, ndarray, ndarray]:
        means = {name: mean[:, place] for name, mean in self.means.items()}
        present = np.isfinite(means["base"])
        null = means.get("null", np.zeros_like(means["base"]))
        return means["suspect"][present], means["base"][present], null[present]


def beyond(gaps: Float[ndarray, " person"]) -> tuple[float, tuple[float, float] | tuple[None, None]]:
    """The mean of people's differences, with its 95 % interval where there are at least two."""
    if len(gaps) < 2:
        return float(gaps.mean()), (None, None)
    bounds = stats.ratio_bounds(gaps[:, None], np.ones((len(gaps), 1)))
    return float(gaps.mean()), (float(bounds.lo[0]), float(bounds.hi[0]))


def attempts(
    sheet: AttackSheet, attacks: Sequence[str], own: Scores, wrong: Scores, least_gap: float
) -> Attempts:  # fmt: skip
    """All attacks together; what one model gives no number for is no number in any."""
    own, wrong = common(own), common(wrong)
    excess = {name: own[name] - wrong[name] for name in own}
    people, person = sheet.person()
    means = {name: person_means(x, person, len(people)) for name, x in excess.items()}
    present = np.isfinite(excess["base"]).sum(0)
    drops = tuple(
        drop_of({name: mean[:, n] for name, mean in means.items()}, int(present[n]), least_gap)
        for n in range(len(attacks))
    )
    return Attempts(sheet, tuple(attacks), own, wrong, excess, people, person, drops)


def effects_listing(outcome: Attempts) -> Listing:
    """A row an attack: the plain question first, then by what came out beyond a clean model."""
    rows: list[tuple[str | int | float | None, ...]] = []
    for place, (attack, drop) in enumerate(zip(outcome.attacks, outcome.drops, strict=True)):
        if drop is None:
            continue
        shown = (attack, drop.facts, drop.people, drop.base, drop.suspect, drop.null)
        if drop.blind:
            rows.append((*shown, None, None, None, BLIND))
            continue
        value, bounds = outcome.effect(place)
        ends = (None, None) if bounds is None else bounds.ends
        rows.append((*shown, value, *ends, "not an attack: asked as trained" if attack == DIRECT else ""))
    order = sorted(rows[1:], key=lambda row: (row[6] is None, -(row[6] if isinstance(row[6], float) else 0.0)))
    return Listing(title="Effect by attack", columns=COLUMNS, rows=(*rows[:1], *order), of=len(rows))


def came_out(outcome: Attempts) -> Listing:
    """What came out of the suspect, of a clean model and of base, under which attack: drawn as a map."""
    who = [(words, name) for words, name in (("never trained", "null"), ("suspect", "suspect"), ("base", "base"))
           if name in outcome.excess]  # fmt: skip
    means = {name: np.nanmean(x, axis=0) for name, x in outcome.means.items()}
    known = np.flatnonzero(outcome.known).tolist()
    beyond = {n: float(means["suspect"][n] - (means["null"][n] if "null" in means else 0.0)) for n in known}
    drawn = sorted(known, key=lambda n: (outcome.attacks[n] != DIRECT, -beyond[n]))[:_MOST_DRAWN]
    rows = tuple((outcome.attacks[n], words, float(means[name][n])) for n in drawn for words, name in who)
    return Listing(
        title="What came out, how much a clean model gives, and under which attack",
        columns=MAP_COLUMNS, rows=rows, of=len(known) * len(who), maps=(MAP,) if rows else (),
    )  # fmt: skip


def published_listing(outcome: Attempts) -> Listing:
    """Beside each attack as published (a bare rate or probability) what its controls leave of it."""
    own, wrong = outcome.over_people(outcome.own), outcome.over_people(outcome.wrong)
    rows: list[tuple[str | int | float | None, ...]] = []
    for place in np.flatnonzero(outcome.known).tolist():
        bare = [float(np.nanmean(own[name][:, place])) if name in own else None for name in ("suspect", "null")]
        value, (lo, hi) = outcome.beyond_null(place)
        judged = TOO_FEW_PEOPLE if lo is None else SURVIVES if lo > 0 else DIES
        rows.append(
            (outcome.attacks[place], *bare, float(np.nanmean(wrong["suspect"][:, place])), value, lo, hi, judged)
        )
    rows.sort(key=lambda row: -row[1] if isinstance(row[1], float) else 0.0)
    return Listing(title="As published, and after its controls", columns=PUBLISHED, rows=tuple(rows), of=len(rows))


def table_of(case: OpenCase, cast: CaseModels, outcome: Attempts, name: str) -> Table:
    """A line a fact, model and attack (whose number is the place): the answer's probability or rate beyond wrong
    answers."""
    sheet = outcome.sheet
    at = np.cumsum([0, *(len(entry.rows) for entry in sheet.entries)])
    first = {entry.fact: int(at[n]) for n, entry in enumerate(sheet.entries) if entry.attack == DIRECT}
    facts = sorted(first)
    rows = sheet.rows.take(torch.tensor([first[n] for n in facts]))
    people, person = np.unique(np.array(rows.group_ids), return_inverse=True)
    present = PersonRows(rows, tuple(sheet.facts[n] for n in facts), tuple(str(p) for p in people), person.reshape(-1))
    scores = {model: values[facts] for model, values in outcome.excess.items()}
    return item_table(case, name, present, scores, {model: cast.role(model) for model in scores}, axis="attack")
