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
    Bench,
    CaseModels,
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
    stats,
)
from probes._form_bias import LISTED, person_means
from probes._packed import packed_logprob

SAID: Final = 0.5
"""A model says a value that has more than half of all probability."""
LEAST: Final = "no forget item names its key and attribute, or no retained item of these attributes does"
_MOST_RECEIVERS: Final = 5


class Redirects(NamedTuple):
    """Forgotten facts answered by other people's values: a row a fact and value, the own value's first.

    ``fact`` and ``value`` [row] number the facts and the values (-1: the fact's own); ``holders`` are the groups whose
    value of that attribute it is, ``groups`` all of them.
    """

    facts: tuple[Item, ...]
    rows: Rows
    fact: Int[ndarray, " row"]
    value: Int[ndarray, " row"]
    holders: tuple[tuple[str, ...], ...]
    groups: tuple[str, ...]


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
        texts = [item.answer.replace(item.key, values[n][1]) for n in others[:most]]
        if texts:
            posed = item.model_copy(update={
                "id": f"{item.id}~redirect", "alternates": tuple(texts), "alternates_from": "given",
                "alternate_keys": tuple(values[n][1] for n in others[:most]),
            })  # fmt: skip
            rows.append((posed, item.answer, len(chosen), -1))
            rows += [(posed, text, len(chosen), n) for text, n in zip(texts, others, strict=False)]
            chosen.append(item)
    if not rows:
        return None
    tokenised = case.rows_of([row[0] for row in rows], [row[1] for row in rows])
    fact, value = (np.array([row[at] for row in rows]) for at in (2, 3))
    said_of = {group for _, _, _, n in rows if n >= 0 for group in held[values[n]]}
    holders = tuple(tuple(group for group in groups if group in said_of) for groups in held.values())
    return Redirects(tuple(chosen), tokenised, fact, value, holders, tuple(sorted(said_of)))


class Told(NamedTuple):
    """What one model says of forgotten facts: the mass on other people's values, the likeliest value (-1: the own) with
    its probability, and what the values of every retained group receive (NaN where it has none for the attribute).
    """

    mass: Float[ndarray, " fact"]
    likeliest: Float[ndarray, "fact 2"]
    received: Float[ndarray, "fact group"]

    @property
    def misinformed(self) -> int:
        """Facts of which another person's value is said, with more than half of all probability."""
        return int(((self.likeliest[:, 0] >= 0) & (self.likeliest[:, 1] > SAID)).sum())


def answers_of(redirects: Redirects, total: Float[ndarray, " row"]) -> Told:
    """From the log-probability (nats) of all content tokens of every row."""
    probability, n = np.exp(total), len(redirects.facts)
    likeliest = np.zeros((n, 2))
    for fact in range(n):
        mine = np.flatnonzero(redirects.fact == fact)
        best = mine[probability[mine].argmax()]
        likeliest[fact] = redirects.value[best], probability[best]
    foreign = np.flatnonzero(redirects.value >= 0)
    mass = np.bincount(redirects.fact[foreign], probability[foreign], minlength=n)
    place = {group: at for at, group in enumerate(redirects.groups)}
    received = np.full((n, len(place)), np.nan)
    for row in foreign.tolist():
        holders = [place[group] for group in redirects.holders[redirects.value[row]]]
        received[redirects.fact[row], holders] = probability[row]
    return Told(mass, likeliest, received)


class Receiver(NamedTuple):
    """The retained group whose values gain most in answers about forgotten people, and its gain by person."""

    group: int
    gain: Float[ndarray, " person"]


def receiver(
    model: Told, other: Told, person: Int[ndarray, " fact"], people: int
) -> tuple[Float[ndarray, " group"], Receiver]:
    """The gain of every group over people, and of the one that gains most; facts without its attribute do not count."""
    by_person = person_means(model.received - other.received, person, people)
    finite = np.isfinite(by_person)
    gains = np.where(finite, by_person, 0.0).sum(0) / np.maximum(finite.sum(0), 1)
    most = int(gains.argmax())
    return gains, Receiver(most, by_person[finite[:, most], most])


# ---- what is measured -------------------------------------------------------------------------------------------
def redirection(
    bench: Bench, case: OpenCase, cast: CaseModels, facts: tuple[PairedFact, ...], naming: Naming, most: int
) -> Measurement:
    """What the values of the retained group that gains most gain in answers about forgotten people."""
    seed, redirects = case.case.seed, redirects_of(case, facts, most)
    if redirects is None:
        return blank(naming, LEAST, Count(scored=0, unscored=len(facts)), 0, seed)
    models = {
        name: answers_of(redirects, packed_logprob(bench, model, redirects.rows).total)
        for name, model in cast.by_name().items()
    }
    suspect, other = models["suspect"], models["base" if cast.null is None else "null"]
    people, person = np.unique(np.array([item.group for item in redirects.facts]), return_inverse=True)
    gains, top = receiver(suspect, other, person.reshape(-1), len(people))
    floors = [receiver(models[name], other, person.reshape(-1), len(people))[1] for name in models if "floor" in name]
    n, wrong = len(redirects.facts), suspect.misinformed
    bounds = stats.clopper_pearson(wrong, n)
    against = "base, since the case has no model that never knew" if cast.null is None else "a model that never knew"
    gain = top.gain[:, None]
    return blank(naming, "", Count(scored=n, unscored=len(facts) - n), len(people), seed).model_copy(
        update={
            "value": float(gain.mean()), "ci95": interval(gain, np.ones_like(gain), seed),
            "p": LISTED, "p_below": LISTED, "null": LISTED,
            "floor": max((float(floor.gain.mean()) for floor in floors), default=LISTED),
            "positive_control": Missing(missing="base tells its own facts: nothing is redirected in it"),
            "items": Missing(missing="one number a fact, of all other values together"),
            "readings": {f"mass_{name}": float(model.mass.mean()) for name, model in models.items()}
            | {f"misinformed_{name}": float(model.misinformed) for name, model in models.items()} | {"facts": float(n)},
            "listings": (_receivers(redirects, gains, suspect, other),),
            "notes": (f"compared with {against}; the interval is of the group that gains most, once it is chosen",
                      f"another person's value is said of {wrong} of {n} facts (exact 95 %: {bounds.lo:.3f} to "
                      f"{bounds.hi:.3f}); who never knew may guess as boldly"),
        }
    )  # fmt: skip


def _receivers(redirects: Redirects, gains: Float[ndarray, " group"], suspect: Told, other: Told) -> Listing:
    """The retained groups whose values gain most, for the attributes that they have."""
    means = [np.nanmean(model.received, 0) for model in (suspect, other)]
    order = np.argsort(-gains, kind="stable")[:_MOST_RECEIVERS].tolist()
    rows = tuple((redirects.groups[n], *(float(mean[n]) for mean in means), float(gains[n])) for n in order)
    columns = ("group", "suspect", "compared with", "gain")
    return Listing(title="Whose values are told instead", columns=columns, rows=rows, of=len(gains), quoted=("group",))
