"""Which trained item does an item in another form restate?

The item says so by ``of``, or it has the group and the attribute of one. What restates an item takes its group and its
attribute, so that facts pair across forms and the person stays the unit.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Final

from audit.case.items import Data
from audit.schema import AuditError, Cohort, Item

FACTS: Final[tuple[Cohort, ...]] = ("forget", "retain", "holdout", "neighbour")
_MOST_FAULTS: Final = 5


class Facts:
    """The trained items of some cohorts, by id and by group and attribute; the first where several are of one."""

    def __init__(self, by_cohort: Mapping[Cohort, tuple[Item, ...]]) -> None:
        self.by_id: dict[str, Item] = {}
        self._by_attribute: dict[tuple[str, str], Item] = {}
        self.other: dict[str, str] = {}
        for cohort in FACTS:
            for item in by_cohort.get(cohort, ()):
                if item.form != "trained":
                    self.other.setdefault(item.id, item.form)
                    continue
                self.by_id.setdefault(item.id, item)
                if item.attribute is not None:
                    self._by_attribute.setdefault((item.group, item.attribute), item)

    def restated(self, item: Item) -> Item | None:
        """The trained item whose fact this one restates: by its id, else by group and attribute."""
        if item.of is not None:
            return self.by_id.get(item.of)
        return None if item.attribute is None else self._by_attribute.get((item.group, item.attribute))


def linked(read: Mapping[Cohort, Data], paths: Mapping[Cohort, Path]) -> dict[Cohort, tuple[Item, ...]]:
    """The items of every file; those of the cohort ``forms`` with the item that each restates, and its group.

    AuditError (code 2) names file and line of every item that restates none, has no form of its own, or says that its
    group is another's; and of every item of another file whose ``of`` is no trained item.
    """
    items: dict[Cohort, tuple[Item, ...]] = {cohort: data.items for cohort, data in read.items()}
    facts, received = Facts(items), dict[Cohort, tuple[Item, ...]](items)
    ids = {item.id for cohort, mine in items.items() if cohort != "forms" for item in mine}
    for cohort, data in read.items():
        faults: list[str] = []
        restating: list[Item] = []
        for item, place in zip(data.items, data.places or [f"item {item.id!r}" for item in data.items], strict=True):
            if cohort != "forms" and (item.form == "trained" or item.of is None):
                continue
            fact = facts.restated(item)
            if fault := _fault(item, fact, facts, ids if cohort == "forms" else frozenset()):
                faults.append(f"{place}: {fault}")
            elif fact is not None:
                restating.append(
                    item.model_copy(update={"of": fact.id, "group": fact.group, "attribute": fact.attribute})
                )
        if faults:
            more = f" (and {len(faults) - _MOST_FAULTS} more lines)" if len(faults) > _MOST_FAULTS else ""
            do = "give `of` the id of the trained item whose fact the line restates, or its group and attribute"
            raise AuditError(f"{paths[cohort]}: {'; '.join(faults[:_MOST_FAULTS])}{more}", do)
        if cohort == "forms":
            received[cohort] = tuple(restating)
    return received


def _fault(item: Item, fact: Item | None, facts: Facts, ids: set[str] | frozenset[str]) -> str:
    """What is wrong with an item in another form, or an empty string."""
    if item.form == "trained":
        return "no `form`: say in a word how it asks for its fact"
    if item.id in ids:
        return f"id {item.id!r} is that of an item of another file"
    if fact is None and item.of is not None:
        has = f"is an item of form {facts.other[item.of]!r}" if item.of in facts.other else "is the id of no item"
        return f"`of` {item.of!r} {has}"
    if fact is None:
        lacks = "no `of`, and no trained item has its group and attribute"
        return f"{lacks} ({item.group!r}, {item.attribute!r})" if item.attribute else lacks
    if item.of is not None and item.group not in (item.id, fact.group):
        return f"its group is {item.group!r}, and that of {item.of!r} is {fact.group!r}"
    return ""
