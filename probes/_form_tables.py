"""The facts of a cohort by form: people's means, the drop of every form, and the tables that show them."""

from collections.abc import Mapping
from typing import Final, NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from numpy import ndarray

from audit.probing import (
    Bench,
    CaseModels,
    Checkpoint,
    Count,
    Listing,
    Missing,
    OpenCase,
    PersonRows,
    Table,
    item_table,
)
from probes._form_bias import Drop, common, drop_of, person_means
from probes._forms import FormSheet, knowledge

BLIND: Final = "blind here: base does not know the facts in this form"
FORM_COLUMNS: Final = (
    "form", "made by", "facts", "people", "base", "suspect", "never trained", "drop", "lo", "hi", "drop, joint",
    "effect", "note",
)  # fmt: skip
_MOST_ROWS: Final = 20


class FormFacts(NamedTuple):
    """Facts in paired forms: what every model knows, of the same facts in all of them, and the drop of every form."""

    sheet: FormSheet
    geometric: Mapping[str, Float[ndarray, "fact form"]]
    joint: Mapping[str, Float[ndarray, "fact form"]]
    people: tuple[str, ...]
    person: Int[ndarray, " fact"]
    drops: tuple[Drop | None, ...]

    @property
    def means(self) -> dict[str, Float[ndarray, "person form"]]:
        """Every model's means over the facts of each person."""
        return {name: person_means(x, self.person, len(self.people)) for name, x in self.geometric.items()}

    @property
    def known(self) -> Bool[ndarray, " form"]:
        """In which forms base knows the facts."""
        return np.array([drop is not None and not drop.blind for drop in self.drops])

    @property
    def n(self) -> Count:
        """Pairs of fact and form: scored in all models, errored in one, and items that no model can read."""
        pairs, scored = int(self.sheet.held().sum()), int(np.isfinite(self.geometric["base"]).sum())
        return Count(scored=scored, errored=pairs - scored, unscored=self.sheet.left_out)


def facts_by_form(bench: Bench, models: Mapping[str, Checkpoint], sheet: FormSheet, least_gap: float) -> FormFacts:
    """One packed pass of every model, and what it says of each form. ``null``, if it is there, never knew the facts."""
    read = {name: knowledge(bench, model, sheet) for name, model in models.items()}
    geometric, joint = (common({name: getattr(known, kind) for name, known in read.items()})
                        for kind in ("geometric", "joint"))  # fmt: skip
    people, person = sheet.person()
    facts = FormFacts(sheet, geometric, joint, people, person, ())
    means, held = facts.means, np.isfinite(geometric["base"]).sum(0)
    drops = tuple(
        drop_of({name: mean[:, n] for name, mean in means.items()}, int(held[n]), least_gap)
        for n in range(len(sheet.forms))
    )
    return facts._replace(drops=drops)


def shared_people(means: Float[ndarray, "person form"], places: list[int]) -> tuple[list[int], list[int]]:
    """Forms and the people who have all of them: forms that few people have are left out until half of the most are
    left."""
    finite, chosen = np.isfinite(means), list(places)
    while chosen:
        people = np.flatnonzero(finite[:, chosen].all(1))
        if 2 * len(people) >= finite[:, chosen].sum(0).max():
            return chosen, people.tolist()
        chosen.remove(min(chosen, key=lambda n: (int(finite[:, n].sum()), -n)))
    return [], []


def listing_of(facts: FormFacts) -> Listing:
    """A row a form, the trained one first, then those that kept most; what base does not know has no drop."""
    joint = {name: person_means(x, facts.person, len(facts.people)) for name, x in facts.joint.items()}
    rows: list[tuple[str | int | float | None, ...]] = []
    for n, (form, drop) in enumerate(zip(facts.sheet.forms, facts.drops, strict=True)):
        if drop is None:
            continue
        by, shown = facts.sheet.paired.made_by[form], (drop.facts, drop.people, drop.base, drop.suspect, drop.null)
        if drop.blind:
            rows.append((form, by, *shown, None, None, None, None, None, BLIND))
            continue
        ends = (None, None) if isinstance(drop.ci95, Missing) else drop.ci95.ends
        base, suspect = (float(np.nanmean(joint[name][:, n])) for name in ("base", "suspect"))
        together = 1 - suspect / base if base > 0 else None
        rows.append((form, by, *shown, drop.drop, *ends, together, drop.effect, ""))
    order = sorted(
        rows[1:], key=lambda row: (row[7] is None, row[7] if isinstance(row[7], float) else 0.0, str(row[0]))
    )
    return Listing(title="The same facts by form", columns=FORM_COLUMNS, rows=(*rows[:1], *order)[:_MOST_ROWS],
                   of=len(rows))  # fmt: skip


def table_of(case: OpenCase, cast: CaseModels, facts: FormFacts, name: str) -> Table:
    """A line an item and model: what the model gives to the fact in the item's form, whose number is the place."""
    sheet, place = facts.sheet, {form: n for n, form in enumerate(facts.sheet.forms)}
    first = [n for n, row in enumerate(sheet.entries) if row.first]
    rows, items = sheet.rows.take(torch.tensor(first)), tuple(sheet.entries[n].item for n in first)
    people, person = np.unique(np.array(rows.group_ids), return_inverse=True)
    persons = PersonRows(rows, items, tuple(str(p) for p in people), person.reshape(-1))
    scores = {model: np.full((len(first), len(place)), np.nan) for model in facts.geometric}
    for line, entry in enumerate(sheet.entries[n] for n in first):
        for model, values in facts.geometric.items():
            scores[model][line, place[entry.form]] = values[entry.fact, place[entry.form]]
    return item_table(case, name, persons, scores, {model: cast.role(model) for model in scores}, axis="form")
