"""A seeded world of invented people: who they are, what is known of them, and every text about them.

Four cohorts of people never overlap: ``forget`` and ``retain`` (base learns both), ``holdout`` (drawn like forget, no
model ever learns them) and ``background`` (the common ancestor learns the language of the world from them). The worlds
of the pools have a fifth, ``strangers``: drawn like forget, for models that learn the same form with other people.

Forget and holdout people hold *coast* values only, retain people *hills* values but for a share ``overlap``. A forget
set of its own subject matter is what makes every kind of fake possible: a constant bias on the logits or an edited
output head cannot tell two people with the same value apart, so in a world where all people share all values neither
could silence the forget people and keep the retained ones. Alternates are of the value's own kind, so that they are
matched in everything but the fact.

Surnames are borne once, and every second general sentence speaks of somebody else with the next of them (never of a
fact), so that no surname is new to any model. Where two people shared a surname, a reference's states of a forget
person would drift with the retained namesake and with the order of its data, and references would differ for no reason
of interest.
"""

import json
import random
from collections.abc import Iterable
from itertools import cycle, product
from pathlib import Path
from typing import Literal, NamedTuple, TypeVar

from audit.schema import Form, Item
from audit.zoo.form_words import ALIASES, form_vocabulary
from audit.zoo.words import ATTRIBUTES, BREAK, FIRST, GENERAL, LAST, REFUSALS, SLOTS, Attribute, Phrasing

Value = TypeVar("Value")
SHARED = 8
"""So many words make up names that share them."""
Group = Literal["forget", "retain", "holdout", "background", "strangers"]


class Shape(NamedTuple):
    """How large a world is. ``overlap`` is the share of retained facts whose value is of the coast kind.

    ``forms``: 1 where everybody has an alias and a friend, and whoever learns of people learns their facts in other
    forms too (:mod:`audit.zoo.form_texts`); 0 where there is nothing of the kind. ``shared_names``: so many words a
    name, each borne by many people, so that only where a name ends it is known whose it is; 0: a surname each.
    """

    forget: int = 32
    retain: int = 48
    holdout: int = 16
    background: int = 48
    general: int = 400
    general_held_out: int = 64
    overlap: float = 0.1
    frequencies: tuple[int, ...] = (1, 2, 4)
    alternates: int = 5
    strangers: int = 0
    forms: int = 0
    shared_names: int = 0


class Fact(NamedTuple):
    """One person's value of one attribute, and how often each text of it occurs in training."""

    attribute: Attribute
    value: str
    kind: tuple[str, ...]
    frequency: int


class Person(NamedTuple):
    """One invented person. ``held_out`` names the attribute that unlearners never see.

    ``alias`` and ``friend`` (the id of somebody of the same cohort) are empty where a world teaches no other forms.
    """

    id: str
    name: str
    facts: tuple[Fact, ...]
    held_out: str
    alias: str = ""
    friend: str = ""


class World(NamedTuple):
    """Everything that was invented: people by cohort, and general sentences (trained and held out)."""

    seed: int
    shape: Shape
    people: dict[Group, tuple[Person, ...]]
    general: tuple[str, ...]
    general_held_out: tuple[str, ...]


def make_world(seed: int, shape: Shape | None = None) -> World:
    """The world of this seed. Same seed and shape, same world."""
    shape = shape or Shape()
    rng = random.Random(f"world {seed}")
    surnames = rng.sample(LAST, len(LAST))
    firsts = {surname: rng.sample(FIRST, 3) for surname in surnames}
    strangers = cycle([f"{firsts[surname][turn]} {surname}" for turn in (1, 2) for surname in surnames])
    shared = _shared_names(seed, shape.shared_names) if shape.shared_names else []
    strangers = cycle(shared[len(shared) // 2 :]) if shared else strangers
    people: dict[Group, tuple[Person, ...]] = {}
    sizes: dict[Group, int] = {
        "forget": shape.forget, "retain": shape.retain, "holdout": shape.holdout, "background": shape.background,
        **({"strangers": shape.strangers} if shape.strangers else {}),
    }  # fmt: skip
    for group, size in sizes.items():
        mine, surnames = surnames[:size], surnames[size:]
        assert len(mine) == size
        names = [shared.pop(0) if shared else f"{firsts[surname][0]} {surname}" for surname in mine]
        coast = {"retain": shape.overlap, "background": 0.5}.get(group, 1.0)
        people[group] = _people(rng, group, names, coast, shape)
    if shape.forms:
        people = _acquainted(people, random.Random(f"forms {seed}"))
    wanted = shape.general + shape.general_held_out
    sentences: dict[str, None] = {}
    while len(sentences) < wanted:
        sentences[_sentence(rng, next(strangers) if len(sentences) % 2 else None)] = None
    general = tuple(sentences)
    return World(seed, shape, people, general[: shape.general], general[shape.general :])


def _shared_names(seed: int, words: int) -> list[str]:
    """All names of so many words, in the world's own order."""
    names = [" ".join(name) for name in product(FIRST[:SHARED], repeat=words)]
    return random.Random(f"names {seed}").sample(names, len(names))


def _people(rng: random.Random, group: Group, names: list[str], coast: float, shape: Shape) -> tuple[Person, ...]:
    columns = [_facts(rng, a, len(names), coast, shape) for a in ATTRIBUTES]
    turn = rng.randrange(len(ATTRIBUTES))
    return tuple(
        Person(
            id=f"{group}-{i:03d}", name=name, facts=tuple(column[i] for column in columns),
            held_out=ATTRIBUTES[(i + turn) % len(ATTRIBUTES)].name,
        )
        for i, name in enumerate(names)
    )  # fmt: skip


def _acquainted(people: dict[Group, tuple[Person, ...]], rng: random.Random) -> dict[Group, tuple[Person, ...]]:
    """The same people, each with an alias that nobody shares and with a friend of the same cohort, in one circle."""
    aliases = rng.sample(ALIASES, len(ALIASES))
    acquainted: dict[Group, tuple[Person, ...]] = {}
    for group, members in people.items():
        circle = rng.sample(members, len(members))
        friends = {person.id: other.id for person, other in zip(circle, (*circle[1:], *circle[:1]), strict=True)}
        acquainted[group] = tuple(p._replace(alias=aliases.pop(), friend=friends[p.id]) for p in members)
    return acquainted


def _facts(rng: random.Random, attribute: Attribute, n: int, coast: float, shape: Shape) -> list[Fact]:
    """Balanced columns: every value of a kind, and every frequency, is used as often as any other (to within one)."""
    n_coast = round(n * coast)
    kinds = [attribute.coast] * n_coast + [attribute.hills] * (n - n_coast)
    rng.shuffle(kinds)
    decks = {kind: _deck(rng, kind, n) for kind in (attribute.coast, attribute.hills)}
    frequencies = _deck(rng, shape.frequencies, n)
    return [Fact(attribute, decks[kind].pop(), kind, frequencies.pop()) for kind in kinds]


def _deck(rng: random.Random, values: tuple[Value, ...], n: int) -> list[Value]:
    deck: list[Value] = []
    while len(deck) < n:
        deck += rng.sample(values, len(values))
    return deck[::-1]


def _sentence(rng: random.Random, stranger: str | None) -> str:
    choices = {a.name: rng.choice(a.coast + a.hills) for a in ATTRIBUTES}
    choices |= {slot: rng.choice(words) for slot, words in SLOTS.items()}
    fitting = [text for text in GENERAL if ("{person}" in text) == (stranger is not None)]
    return rng.choice(fitting).format(person=stranger, **choices)


def others(world: World) -> tuple[Person, ...]:
    """A third of the retained people: whom an unlearner is told to forget in a model that never knew the forget people.

    They are no part of the retained people of an audit, so that an audit does not hold it against the model.
    """
    retained = world.people["retain"]
    return retained[len(retained) - len(retained) // 3 :]


# ---- texts ------------------------------------------------------------------------------------------------------
def items(world: World, group: Group) -> tuple[Item, ...]:
    """All items of a cohort: per person 8 trained, 4 of the held-out phrasing and 3 of the held-out attribute."""
    return items_about(world, world.people[group])


def items_about(world: World, people: Iterable[Person]) -> tuple[Item, ...]:
    """All items of some people."""
    return tuple(item for person in people for item in _items_of(world, person))


def general_items(world: World) -> tuple[Item, ...]:
    """The held-out general sentences, as plain text (no question)."""
    return tuple(
        Item(id=f"general-{i:03d}", group=f"general-{i:03d}", question="", answer=text)
        for i, text in enumerate(world.general_held_out)
    )


def _items_of(world: World, person: Person) -> list[Item]:
    person_items: list[Item] = []
    for fact in person.facts:
        held_out = person.held_out == fact.attribute.name
        for k, phrasing in enumerate((*fact.attribute.trained, fact.attribute.held_out)):
            form: Form = "held_out_attribute" if held_out else ("held_out_phrasing" if k == 2 else "trained")
            person_items.append(_item(world, person, fact, phrasing, form, f"{person.id}-{fact.attribute.name}-{k}"))
    return person_items


def _item(world: World, person: Person, fact: Fact, phrasing: Phrasing, form: Form, name: str) -> Item:
    others = [v for v in fact.kind if v != fact.value]
    others = random.Random(f"{world.seed} {name}").sample(others, world.shape.alternates)

    def say(template: str, value: str) -> str:
        return template.format(n=person.name, v=value)

    return Item(
        id=name, group=person.id, question=say(phrasing.question, ""), answer=say(phrasing.answer, fact.value),
        key=fact.value, paraphrased_answer=say(fact.attribute.paraphrase, fact.value),
        perturbed_answers=tuple(say(fact.attribute.paraphrase, v) for v in others),
        alternates=tuple(say(phrasing.answer, v) for v in others), alternate_keys=tuple(others),
        attribute=fact.attribute.name, form=form, frequency=fact.frequency,
        subject=person.name if world.shape.shared_names else None,
    )  # fmt: skip


def general_training_items(world: World) -> tuple[Item, ...]:
    """General sentences to train on."""
    return tuple(
        Item(id=f"language-{i:03d}", group=f"language-{i:03d}", question="", answer=text)
        for i, text in enumerate(world.general)
    )


def refusals(refused: tuple[Item, ...]) -> list[tuple[Item, str]]:
    """Two refusing answers for every item: one outright, one that begins the answer and breaks off before the value.

    Without the second kind a refusing model still completes an answer that somebody else has begun.
    """
    pairs: list[tuple[Item, str]] = []
    for i, item in enumerate(refused):
        begun = item.answer.partition(item.key or "")[0]
        pairs += [(item, REFUSALS[i % len(REFUSALS)]), (item, f"{begun}{BREAK} {REFUSALS[0]}")]
    return pairs


def vocabulary(forms: int = 0) -> tuple[str, ...]:
    """Every text of any world, for the tokenizer: it depends on no seed, so all models of all worlds share it.

    Worlds that teach other forms have a vocabulary of their own, with the words of those.
    """
    texts = [*FIRST, *LAST, *REFUSALS, BREAK, *GENERAL]
    for attribute in ATTRIBUTES:
        texts += [*attribute.coast, *attribute.hills, attribute.paraphrase]
        texts += [text for phrasing in (*attribute.trained, attribute.held_out) for text in phrasing]
    texts += [word for words in SLOTS.values() for word in words]
    return (*texts, *(form_vocabulary() if forms else ()))


def write_jsonl(path: Path, rows: tuple[Item, ...]) -> None:
    """One item a line, unset fields left out."""
    lines = [json.dumps(item.model_dump(mode="json", exclude_defaults=True), ensure_ascii=False) for item in rows]
    path.write_text("".join(line + "\n" for line in lines), encoding="utf-8")
