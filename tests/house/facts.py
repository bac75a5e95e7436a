"""What a walk knows of a value: whether it is the parameter or holds it, in which fields, and of which class it is."""

from collections.abc import Iterable, Mapping
from typing import NamedTuple

from tests.house.definitions import UNKNOWN, Definitions, Kind


class Fact(NamedTuple):
    """One value. ``fields`` None: the parameter itself or made from it, so every part is; else the parts that are."""

    derived: bool = False
    kind: Kind = UNKNOWN
    fields: "Mapping[str, Fact] | None" = None

    def attribute(self, name: str, kind: Kind = UNKNOWN) -> "Fact":
        """A field of this value, ``kind`` being what its class says."""
        if self.fields is None:
            return Fact(self.derived, kind)
        part = self.fields.get(name, Fact())
        return part if part.kind != UNKNOWN else part._replace(kind=kind)

    def item(self) -> "Fact":
        """Any element of this value."""
        kind = self.kind.item or UNKNOWN
        if self.fields is None:
            return Fact(self.derived, kind)
        part = joined(self.fields.values())
        return part if kind == UNKNOWN else part._replace(kind=kind)

    def place(self, index: int, code: Definitions) -> "Fact":
        """The element at a place of a tuple or a record."""
        record = code.fields(self.kind.of) if self.kind.of is not None else []
        if index < len(record) and self.kind.of is not None:
            return self.attribute(record[index], code.field(self.kind.of, record[index]))
        if index < len(self.kind.places):
            return self.attribute(str(index), self.kind.places[index])
        if self.fields is not None and str(index) in self.fields:
            return self.fields[str(index)]
        return self.item()

    def holding(self, name: str, part: "Fact") -> "Fact":
        """This object with a value put into a field."""
        if self.derived and self.fields is None:
            return self
        fields = {**(self.fields or {}), name: part}
        return Fact(any(fact.derived for fact in fields.values()), self.kind, fields)


def row(parts: "list[Fact]") -> Fact:
    """A tuple of these, place by place."""
    fields = {str(place): part for place, part in enumerate(parts)}
    return Fact(any(part.derived for part in parts), Kind(places=tuple(part.kind for part in parts)), fields)


def elements(part: Fact) -> Fact:
    """A collection of such elements."""
    return Fact(part.derived, Kind(item=part.kind), {"*": part})


def joined(facts: Iterable[Fact]) -> Fact:
    """What holds of a value that is one of these."""
    listed = list(facts)
    kind = next((fact.kind for fact in listed if fact.kind != UNKNOWN), UNKNOWN)
    derived = [fact for fact in listed if fact.derived]
    if not derived:
        return Fact(False, kind)
    if any(fact.fields is None for fact in derived):
        return Fact(True, kind)
    fields: dict[str, Fact] = {}
    for name, part in (entry for fact in derived for entry in (fact.fields or {}).items()):
        fields[name] = joined([fields[name], part]) if name in fields else part
    return Fact(True, kind, fields)
