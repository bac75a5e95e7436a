"""The facts of people in other forms: each item restates one trained item, which it names in ``of``.

Every world can ask for a fact without its question, by one of the two names, after another fact of the same person, and
by options. A world that teaches other forms (``Shape.forms``) knows more: it calls people by an alias, speaks of the
friend of somebody, and asks who it is that something is true of. There the forms of :data:`TAUGHT` are in the corpus of
every model that learns of these people, for :data:`FACTS_TAUGHT` facts a person, so that base knows a fact in them
because it was told so; unlearners still see the trained form alone. An item stands for the fact whose value it asks
for: two hops lead from one person to the fact of the friend.
"""

import random
from collections.abc import Iterable, Iterator
from functools import partial
from typing import Final, NamedTuple

from audit.case import offering
from audit.schema import Form, Item
from audit.zoo.form_words import CALLED, CLAUSES, FRIEND, REVERSED
from audit.zoo.words import Phrasing
from audit.zoo.world import Fact, Person, World

TAUGHT: Final[tuple[Form, ...]] = ("cloze", "multiple_choice", "alias", "reversed", "two_hop")
FACTS_TAUGHT: Final = 3
"""Of the four facts of a person that unlearners see, so many are told in every taught form; the others in none."""
OPTIONS: Final = 4
_ORDERS_TAUGHT: Final = 2


class _Known(NamedTuple):
    """A fact of a person who is called by some words, and the same person's next fact."""

    world: World
    person: Person
    fact: Fact
    other: Fact

    def item(self, form: Form, who: str, phrasing: Phrasing | None = None) -> Item:
        """The fact asked of ``who``, in the first trained phrasing or another; with the other options of a choice."""
        name = f"{self.person.id}-{self.fact.attribute.name}-0"
        others = [value for value in self.fact.kind if value != self.fact.value]
        others = random.Random(f"{self.world.seed} {name} {form}").sample(others, OPTIONS - 1)
        words = phrasing or self.fact.attribute.trained[0]
        say = partial(words.answer.format, n=who)
        item = Item(
            id=f"{name}-{form}", of=name, group=self.person.id, question=words.question.format(n=who),
            answer=say(v=self.fact.value), key=self.fact.value, attribute=self.fact.attribute.name, form=form,
            frequency=self.fact.frequency,
        )  # fmt: skip
        if form != "multiple_choice":
            return item
        return item.model_copy(update={"alternates": tuple(say(v=v) for v in others), "alternate_keys": tuple(others)})


def form_items(world: World, people: Iterable[Person]) -> tuple[Item, ...]:
    """The facts that unlearners see of these people, in every form of this world; in taught forms those facts alone
    that are told in them."""
    return tuple(item for person in people for known in _facts_of(world, person) for item in _forms(known))


def taught_items(world: World, people: Iterable[Person]) -> tuple[Item, ...]:
    """What a model that learns of these people learns in other forms; nothing where the world teaches none."""
    return tuple(item for person in people for item in _lessons(world, person)) if world.shape.forms else ()


def _facts_of(world: World, person: Person) -> list[_Known]:
    facts = [fact for fact in person.facts if fact.attribute.name != person.held_out]
    return [_Known(world, person, fact, facts[(n + 1) % len(facts)]) for n, fact in enumerate(facts)]


def _forms(known: _Known) -> Iterator[Item]:
    name, (first, *_, last) = known.person.name, known.person.name.split()
    plain = known.item("cloze", name)
    is_taught = not known.world.shape.forms or known in _taught(known.world, known.person)
    if is_taught:
        yield plain.model_copy(update={"question": ""})
        yield known.item("multiple_choice", name)
    yield known.item("first_name", first)
    yield known.item("surname", last)
    hint = known.other.attribute.trained[0].answer.format(n=name, v=known.other.value)
    hinted = known.item("hint", name)
    yield hinted.model_copy(update={"question": f"{hint} {hinted.question}"})
    if known.world.shape.forms and is_taught:
        yield known.item("alias", f"the {known.person.alias}")
        yield _reversed(known)
        yield known.item("two_hop", f"the friend of {_befriending(known.world, known.person)}")


def _reversed(known: _Known) -> Item:
    """Who it is that this fact and the next one are true of; the answer is the name."""
    clause, other = (CLAUSES[fact.attribute.name].format(v=fact.value) for fact in (known.fact, known.other))
    item, name = known.item("reversed", known.person.name), known.person.name
    question = REVERSED.question.format(clause=clause, other=other)
    return item.model_copy(update={"question": question, "answer": REVERSED.answer.format(n=name), "key": name})


def _befriending(world: World, person: Person) -> str:
    """The name of who has this person for a friend."""
    return next(p.name for members in world.people.values() for p in members if p.friend == person.id)


def _taught(world: World, person: Person) -> list[_Known]:
    known = _facts_of(world, person)
    return sorted(random.Random(f"taught {world.seed} {person.id}").sample(known, FACTS_TAUGHT), key=known.index)


def _lessons(world: World, person: Person) -> Iterator[Item]:
    """The alias, the friend, and every taught form; options in some of their orders."""
    friend = next(p.name for members in world.people.values() for p in members if p.id == person.friend)
    often = max(world.shape.frequencies)
    for name, phrasing, key in (("alias", CALLED, person.alias), ("friend", FRIEND, friend)):
        answer = phrasing.answer.format(n=person.name, alias=person.alias, m=friend)
        yield Item(id=f"{person.id}-{name}", group=person.id, question=phrasing.question.format(n=person.name),
                   answer=answer, key=key, frequency=often)  # fmt: skip
    for item in (item for known in _taught(world, person) for item in _forms(known) if item.form in TAUGHT):
        if item.form == "multiple_choice":
            rng = random.Random(f"options {world.seed} {item.id}")
            for turn in range(_ORDERS_TAUGHT):
                options = rng.sample((str(item.key), *item.alternate_keys), OPTIONS)
                asked_so = offering(item.question, options)
                yield item.model_copy(update={"id": f"{item.id}-{turn}", "question": asked_so})
        else:
            yield item
