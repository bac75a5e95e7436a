"""Whose facts are told in place of the forgotten ones.

A redirected concept shows in the answers: other people's values of the same attribute gain what the own value lost, and
those of one person more than all others'.
"""

from collections import defaultdict
from typing import Final, NamedTuple

import numpy as np
from jaxtyping import Float, Int
from numpy import ndarray

from audit.probing import (
    KEY_LOGPROB,
    Bench,
    CaseModels,
    Checkpoint,
    Count,
    Item,
    Listing,
    Measurement,
    Missing,
    Naming,
    OpenCase,
    PairedFact,
    Rows,
    Texts,
    blank,
    interval,
    row_means,
    stats,
)
from probes._form_bias import LISTED, person_means

SAID: Final = 0.5
"""A model says a value that has more than half of all probability."""
LEAST: Final = "no forget item names its key and attribute, or no retained item of these attributes does"
_MOST_RECEIVERS: Final = 5


class Redirects(NamedTuple):
    """Forgotten facts answered by other people's values: a row a fact and value, the own value's first.

    ``fact`` and ``value`` [row] number the facts and the values (-1: the fact's own); ``holders`` are the groups whose
    value of that attribute it is.
    """

    facts: tuple[Item, ...]
    rows: Rows
    fact: Int[ndarray, " row"]
    value: Int[ndarray, " row"]
    values: tuple[tuple[str, str], ...]
    holders: tuple[tuple[str, ...], ...]


def redirects_of(case: OpenCase, facts: tuple[PairedFact, ...], most: int) -> Redirects | None:
    """The rows of forgotten facts with retained people's values; None where no item names its key and attribute."""
    held: dict[tuple[str, str], dict[str, None]] = defaultdict(dict)
    for item in case.items(Texts(cohort="retain")) if case.has(Texts(cohort="retain")) else ():
        if item.key is not None and item.attribute is not None:
            held[item.attribute, item.key][item.group] = None
    by_attribute: dict[str, list[int]] = defaultdict(list)
    for n, (attribute, _) in enumerate(held):
        by_attribute[attribute].append(n)
    values = tuple(held)
    own = {(item.group, item.attribute, item.key) for item in case.items(Texts(cohort="forget"))}
    chosen: list[Item] = []
    rows: list[tuple[Item, str, int, int]] = []
    for fact in facts:
        item = fact.item
        if item.key is None or item.attribute is None or item.answer.count(item.key) != 1:
            continue
        others = [n for n in by_attribute[item.attribute] if (item.group, item.attribute, values[n][1]) not in own]
        said = [item.answer.replace(item.key, values[n][1]) for n in others[:most]]
        if said:
            posed = item.model_copy(update={
                "id": f"{item.id}~redirect", "alternates": tuple(said), "alternates_from": "given",
                "alternate_keys": tuple(values[n][1] for n in others[:most]),
            })  # fmt: skip
            rows.append((posed, item.answer, len(chosen), -1))
            rows += [(posed, text, len(chosen), n) for text, n in zip(said, others, strict=False)]
            chosen.append(item)
    if not rows:
        return None
    tokenised = case.rows_of([row[0] for row in rows], [row[1] for row in rows])
    places = (np.array([row[at] for row in rows]) for at in (2, 3))
    return Redirects(tuple(chosen), tokenised, *places, values, tuple(tuple(groups) for groups in held.values()))


class Told(NamedTuple):
    """What one model says of forgotten facts: the mass on other people's values, the likeliest value (-1: the own), and
    the mass that every retained person's values receive."""

    mass: Float[ndarray, " fact"]
    likeliest: Float[ndarray, "fact 2"]
    by_group: dict[str, float]


def told(redirects: Redirects, total: Float[ndarray, " row"]) -> Told:
    """From the log-probability (nats) of all content tokens of every row."""
    probability, n = np.exp(total), len(redirects.facts)
    foreign = redirects.value >= 0
    mass = np.bincount(redirects.fact[foreign], probability[foreign], minlength=n)
    likeliest = np.zeros((n, 2))
    for fact in range(n):
        mine = np.flatnonzero(redirects.fact == fact)
        best = mine[probability[mine].argmax()]
        likeliest[fact] = redirects.value[best], probability[best]
    received: dict[str, list[float]] = defaultdict(list)
    for value, p in zip(redirects.value[foreign].tolist(), probability[foreign].tolist(), strict=True):
        for group in redirects.holders[value]:
            received[group].append(p)
    return Told(mass, likeliest, {group: float(np.mean(p)) for group, p in received.items()})


def misinformed(suspect: Told, other: Told | None) -> int:
    """Facts of which the suspect says another person's value with more than half of all probability, and the other
    model (one that never knew) does not."""
    says = (suspect.likeliest[:, 0] >= 0) & (suspect.likeliest[:, 1] > SAID)
    if other is not None:
        says &= ~((other.likeliest[:, 0] == suspect.likeliest[:, 0]) & (other.likeliest[:, 1] > SAID))
    return int(says.sum())


# ---- what is measured -------------------------------------------------------------------------------------------
def redirection(
    bench: Bench, case: OpenCase, cast: CaseModels, facts: tuple[PairedFact, ...], naming: Naming, most: int
) -> Measurement:
    """The mass of other people's values in answers about forgotten people, and whose values gain most."""
    seed, redirects = case.case.seed, redirects_of(case, facts, most)
    if redirects is None:
        return blank(naming, LEAST, Count(scored=0, unscored=len(facts)), 0, seed)
    null = cast.base if cast.null is None else cast.null
    models = {"base": cast.base, "suspect": cast.suspect, "compared": null}
    by_name = {name: told(redirects, _totals(bench, model, redirects.rows)) for name, model in models.items()}
    suspect, other = by_name["suspect"], by_name["compared"]
    people, person = np.unique(np.array([item.group for item in redirects.facts]), return_inverse=True)
    gained = person_means((suspect.mass - other.mass)[:, None], person.reshape(-1), len(people))
    wrong, n = misinformed(suspect, other), len(redirects.facts)
    bounds = stats.clopper_pearson(wrong, n)
    against = "base, since the case has no model that never knew" if cast.null is None else "a model that never knew"
    return blank(naming, "", Count(scored=n, unscored=len(facts) - n), len(people), seed).model_copy(
        update={
            "value": float(gained.mean()), "ci95": interval(gained, np.ones_like(gained), seed),
            "p": LISTED, "p_below": LISTED, "null": LISTED, "floor": LISTED,
            "positive_control": Missing(missing="base tells its own facts: nothing is redirected in it"),
            "items": Missing(missing="one number a fact, of all other values together"),
            "readings": {f"mass_{name}": float(by_name[name].mass.mean()) for name in by_name}
            | {"misinformed": float(wrong), "facts": float(n)},
            "listings": (_receivers(suspect, other),),
            "notes": (f"compared with {against}", f"another person's value is said of {wrong} of {n} facts, and not by "
                      f"the other (exact 95 %: {bounds.lo:.3f} to {bounds.hi:.3f})"),
        }
    )  # fmt: skip


def _totals(bench: Bench, model: Checkpoint, rows: Rows) -> Float[ndarray, " row"]:
    """The log-probability (nats) of all content tokens of every row together."""
    tokens = np.bincount(rows.targets("key")[0].numpy(), minlength=len(rows))
    return row_means(bench.run(model, rows, (KEY_LOGPROB,))[KEY_LOGPROB], rows) * tokens


def _receivers(suspect: Told, other: Told) -> Listing:
    """The retained groups whose values gain most, for the attributes that they have."""
    gains = {group: mass - other.by_group.get(group, 0.0) for group, mass in suspect.by_group.items()}
    ranked = sorted(gains, key=lambda group: (-gains[group], group))
    rows = tuple(
        (group, suspect.by_group[group], other.by_group.get(group, 0.0), gains[group])
        for group in ranked[:_MOST_RECEIVERS]
    )
    columns = ("group", "suspect", "compared with", "gain")
    return Listing(title="Whose values are told instead", columns=columns, rows=rows, of=len(ranked), quoted=("group",))
