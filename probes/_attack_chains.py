"""Chains of facts as questions, built from a user's triples: with one forgotten hop, and controls without any.

A file is TOML: ``[relations.NAME]`` with a ``question`` that holds ``{subject}`` and, where other hops may follow, a
``noun`` ("the birthplace of {subject}"); ``[[triple]]`` tables with ``subject``, ``relation``, ``object`` and the id of
the forget ``item`` that states it, if one does; and ``[aliases]``, other names of a subject. A chain asks for the last
object by the first subject. What a chain without a forgotten hop loses, the edit did to chains and not to the fact.
"""

import hashlib
import tomllib
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Final, NamedTuple

from pydantic import Field, StringConstraints, ValidationError

from audit.probing import AuditError, Item, PairedForms, Record, as_audit_error
from probes._attack_rows import Attacked, posed

FAMILY: Final = "chains"
MOST_HOPS: Final = 3
MOST_CONTROLS: Final = 64
_FORMAT: Final = "give [relations.NAME] (question, noun), [[triple]] (subject, relation, object, item) and [aliases]"
Filled = Annotated[str, StringConstraints(min_length=1)]


class Relation(Record):
    """How a relation is asked for, what its object is called where others follow, and how it is answered."""

    question: Filled
    noun: str = ""
    answer: Filled = "{object}"


class Triple(Record):
    """One fact; ``item``: the id of the forget item that states it."""

    subject: Filled
    relation: Filled
    object: Filled
    item: str = ""


class Triples(Record):
    """A whole file."""

    relations: Annotated[dict[str, Relation], Field(min_length=1)]
    triple: Annotated[tuple[Triple, ...], Field(min_length=1)]
    aliases: dict[str, tuple[Filled, ...]] = {}
    sha256: str = ""


class Chain(NamedTuple):
    """Hops one after another, from a subject or an alias of it; ``facts``: the forgotten ones among them."""

    hops: tuple[Triple, ...]
    name: str
    facts: tuple[int, ...]

    @property
    def attack(self) -> str:
        """What such chains are called together."""
        by_alias = "" if self.name == self.hops[0].subject else "_by_alias"
        return f"{FAMILY}/{len(self.hops)}_hops{by_alias}"


def read_triples(source: str, root: Path) -> Triples:
    """A file of triples, relative to ``root``. AuditError (code 2) says what is amiss in it."""
    path = root / Path(source).expanduser()
    with as_audit_error(f"{path}: the triples cannot be read", "give a readable TOML file"):
        data = path.read_bytes()
    try:
        read = Triples.model_validate(tomllib.loads(data.decode("utf-8-sig")))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise AuditError(f"{path}: no TOML ({error})", _FORMAT) from None
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(str(part + 1 if isinstance(part, int) else part) for part in first["loc"])
        raise AuditError(f"{path}: {where or 'the file'}: {first['msg']}", _FORMAT) from None
    for n, triple in enumerate(read.triple, 1):
        if triple.relation not in read.relations:
            raise AuditError(f"{path}: triple {n} is of relation {triple.relation!r}, which is not told", _FORMAT)
    for name, relation in read.relations.items():
        wanting = [("question", relation.question, "subject"), ("answer", relation.answer, "object")]
        wanting += [("noun", relation.noun, "subject")] if relation.noun else []
        for part, text, held in wanting:
            if f"{{{held}}}" not in text:
                raise AuditError(f"{path}: the {part} of relation {name!r} does not hold {{{held}}}", _FORMAT)
    return read.model_copy(update={"sha256": hashlib.sha256(data).hexdigest()})


def chains(triples: Triples, paired: PairedForms, most_wrong: int) -> list[Attacked]:
    """Every chain with exactly one forgotten hop as an attack on its fact, and controls without any (``fact`` -1)."""
    fact_of = {fact.item.id: n for n, fact in enumerate(paired.facts)}
    objects: dict[str, dict[str, None]] = defaultdict(dict)
    for triple in triples.triple:
        objects[triple.relation][triple.object] = None
    entries, controls = list[Attacked](), list[Attacked]()
    for number, chain in enumerate(_every(triples, fact_of)):
        plain = len(chain.hops) == 1 and chain.name == chain.hops[0].subject
        forgotten = sum(bool(hop.item) for hop in chain.hops)
        if plain or forgotten != len(chain.facts) or len(chain.facts) > 1:
            continue
        last = chain.hops[-1]
        wrong = [other for other in objects[last.relation] if other != last.object][:most_wrong]
        group = paired.facts[chain.facts[0]].item.group if chain.facts else chain.hops[0].subject
        answers = [(triples.relations[last.relation].answer.replace("{object}", o), o) for o in (last.object, *wrong)]
        item = Item(id=f"{FAMILY}-{number}", group=group, question="", answer=last.object)
        entry = posed(item, "chain", _question(triples, chain), answers)
        if chain.facts:
            entries.append(Attacked(chain.attack, chain.facts[0], entry, given=True))
        elif len(controls) < MOST_CONTROLS:
            controls.append(Attacked(chain.attack, -1, entry, given=True))
    return [*entries, *controls]


def _every(triples: Triples, fact_of: dict[str, int]) -> Iterator[Chain]:
    """Paths of up to :data:`MOST_HOPS` triples, each from the subject and from its aliases."""
    after: dict[str, list[Triple]] = defaultdict(list)
    for triple in triples.triple:
        after[triple.subject].append(triple)
    paths: list[tuple[Triple, ...]] = [(triple,) for triple in triples.triple]
    for length in range(1, MOST_HOPS + 1):
        for hops in paths:
            facts = tuple(fact_of[hop.item] for hop in hops if hop.item in fact_of)
            for name in (hops[0].subject, *triples.aliases.get(hops[0].subject, ())):
                yield Chain(hops, name, facts)
        if length < MOST_HOPS:
            paths = [
                (*hops, following) for hops in paths if triples.relations[hops[-1].relation].noun
                for following in after[hops[-1].object] if following not in hops
            ]  # fmt: skip


def _question(triples: Triples, chain: Chain) -> str:
    """The last relation asked of what the hops before it lead to."""
    name = chain.name
    for hop in chain.hops[:-1]:
        name = triples.relations[hop.relation].noun.replace("{subject}", name)
    return triples.relations[chain.hops[-1].relation].question.replace("{subject}", name)


def controls_of(entries: Sequence[Attacked]) -> list[int]:
    """The places of chains without a forgotten hop."""
    return [n for n, entry in enumerate(entries) if entry.fact < 0]
