"""The facts of a cohort with the items that ask for each of them in other forms, given by the data or made by rule."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Final, Literal, NamedTuple

from audit.case.form_links import Facts
from audit.case.rule_forms import forms_by_rule
from audit.schema import Cohort, Form, Item

MadeBy = Literal["data", "rule"]
TRAINED: Final[Form] = "trained"


class PairedFact(NamedTuple):
    """A trained item and what restates it, by form; a form may have several items of one fact."""

    item: Item
    forms: Mapping[Form, tuple[Item, ...]]


class PairedForms(NamedTuple):
    """Facts in the order of the file, and where the items of every form come from."""

    facts: tuple[PairedFact, ...]
    made_by: Mapping[Form, MadeBy]

    def dealt(self, most: int) -> frozenset[str]:
        """The ids of at most so many facts, dealt over the people as evenly as may be."""
        return frozenset(item.id for item in _dealt([fact.item for fact in self.facts], most))


def paired_forms(
    trained: Sequence[Item], by_cohort: Mapping[Cohort, tuple[Item, ...]], cohort: Cohort, most: int
) -> PairedForms:
    """At most ``most`` facts of a cohort, dealt over its people as evenly as may be, each with all its forms.

    ``trained`` are the cohort's audited items of form ``trained``. A fact is one of them: where several of a person
    have one attribute, those that something restates by their id, else the first. A form of which the data has an item
    is the data's alone; the others are made by rule.
    """
    given: dict[str, dict[Form, list[Item]]] = defaultdict(lambda: defaultdict(list))
    facts = Facts({cohort: tuple(trained)})
    held_out = (item for item in by_cohort.get(cohort, ()) if item.form != TRAINED)
    for item in (*by_cohort.get("forms", ()), *held_out):
        if (fact := facts.restated(item)) is not None:
            given[fact.id][item.form].append(item)
    chosen = _dealt(_distinct(trained, given.keys()), most)
    brought, people = {form for forms in given.values() for form in forms}, {item.group for item in chosen}
    for item in forms_by_rule(tuple(item for item in trained if item.group in people)):
        if item.form not in brought and item.of is not None:
            given[item.of][item.form].append(item)
    paired = tuple(
        PairedFact(item, {TRAINED: (item,), **{form: tuple(mine) for form, mine in given[item.id].items()}})
        for item in chosen
    )
    stated = dict.fromkeys(form for fact in paired for form in fact.forms)
    sources: dict[Form, MadeBy] = {form: "data" if form in brought or form == TRAINED else "rule" for form in stated}
    return PairedForms(paired, sources)


def _distinct(trained: Sequence[Item], restated: Iterable[str]) -> list[Item]:
    """One item for every fact: what is asked twice of one person in the same form is one fact."""
    by_attribute: dict[tuple[str, str], list[Item]] = defaultdict(list)
    for item in trained:
        by_attribute[item.group, item.id if item.attribute is None else item.attribute].append(item)
    wanted = set(restated)
    return [
        item for same in by_attribute.values() for item in [x for x in same if x.id in wanted] or same[:1]
    ]  # fmt: skip


def _dealt(items: Sequence[Item], most: int) -> list[Item]:
    """The first of everybody, then the second of everybody, up to ``most``; in the order of the file."""
    turn: dict[str, int] = defaultdict(int)
    turns: list[tuple[int, int]] = []
    for place, item in enumerate(items):
        turns.append((turn[item.group], place))
        turn[item.group] += 1
    return [items[place] for place in sorted(place for _, place in sorted(turns)[:most])]
