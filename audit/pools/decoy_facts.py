"""Decoys: people who do not exist, asked about in the case's own words, to be taught to the case's own base.

A decoy stands in the place of one of the case's people: the same questions, with another name, and another person's
values. Forget and holdout people are dealt anew to their places in every world, as they are exchangeable in the case:
what another set teaches of the questions themselves then helps both alike. Names are composed of parts of the names
that the questions have; where the tokenizer spells any word, parts are joined from halves of two, so that no part of a
decoy's name occurs in the case. Values of an attribute are permuted among the people who have it; where answers are
free and have perturbed ones beside them (TOFU), one of these is the decoy's truth, another in the next world, and the
others are what it is told from. Base's knowledge of them is asked, never assumed (:mod:`audit.pools.decoy_models`).
"""

import random
import re
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

from audit.case import OpenCase, read_items, subjects
from audit.schema import AuditError, Cohort, Item

QUESTIONS: Final = 2
"""Questions of each form that a decoy brings, where the person in whose place it stands has as many."""
_LEAST_PART: Final = 3
"""Letters of a part of a name below which it is not looked for by itself: it would be found in other words."""
_TRIES: Final = 200
_ENOUGH_OTHERS: Final = 4
"""From so many perturbed answers on, the one that the next world teaches is not among a decoy's others."""
Spelled = Callable[[str], bool]
"""Whether a tokenizer spells a word whole, without a token that stands for unknown ones."""


class Decoys(NamedTuple):
    """The people of one world whom base is taught, and those whom nobody is; each with the questions about them."""

    forget: tuple[Item, ...]
    holdout: tuple[Item, ...]


class DecoySource(NamedTuple):
    """What decoys are made of: the people to stand in for, their names, every word of the case, and what the tokenizer
    spells. ``stated``: a user's own decoys, from which worlds are dealt instead."""

    forget: tuple[Item, ...]
    holdout: tuple[Item, ...]
    names: Mapping[str, str]
    words: frozenset[str]
    spelled: Spelled
    stated: tuple[Item, ...] = ()

    @property
    def people(self) -> int:
        """How many forget groups there are to stand in for."""
        return len({item.group for item in self.forget})


def decoy_source(case: OpenCase, questions: int = QUESTIONS, stated: Path | None = None) -> DecoySource:
    """What a case offers to make decoys of, with at most so many questions of each form and person.

    ``stated`` is a data file of decoys, with the columns of the case's own. AuditError (code 2) where the case asks
    about pictures or is plain text, which has no names to replace.
    """
    people: tuple[Cohort, ...] = ("forget", "retain", "holdout")
    items: dict[Cohort, tuple[Item, ...]] = {cohort: case.cohorts.get(cohort, ()) for cohort in people}
    if case.modality != "text" or not all(item.question.strip() for item in items["forget"]):
        raise AuditError(
            "decoys are made of questions about people, and the forget items are not all questions of words alone",
            "calibrate on other models of known truth with `residua calibrate --pool FILE`",
        )
    names = {subject.group: subject.name for subject in subjects(items)}
    words = {word.casefold() for listed in items.values() for item in listed for word in _words(_texts(item))}
    forget, holdout = _first(items["forget"], questions, names), _first(items["holdout"], questions, names)
    own = () if stated is None else _first(read_items(stated, case.case.data.group), questions, {})
    return DecoySource(forget, holdout, names, frozenset(words), _spelled(case.tokenizer), own)


def decoys(source: DecoySource, world: int, renamed: Mapping[str, int] | None = None) -> Decoys:
    """The decoys of a world; invented ones that are ``renamed``, so many times, by group, have other names and the same
    values. Equal arguments give equal decoys.

    AuditError (code 2) where a user's file has too few groups for so many worlds.
    """
    rng = random.Random(f"decoys {world} 0")
    prefix = f"decoy{world}"
    taken = set[str]()
    forget, holdout = _places(source, rng)
    turn = _Turn(world, rng, taken, renamed or {})
    taught = _dealt(source, world) if source.stated else _invented(source, forget, prefix, turn)
    return Decoys(taught, _invented(source, holdout, f"{prefix}h", turn))


def worlds_of(source: DecoySource) -> int | None:
    """How many worlds a user's own decoys are enough for; None where they are invented, as many as are wanted."""
    if not source.stated:
        return None
    return len(dict.fromkeys(item.group for item in source.stated)) // source.people


# ---- a user's own -----------------------------------------------------------------------------------------------
def _dealt(source: DecoySource, world: int) -> tuple[Item, ...]:
    groups = list(dict.fromkeys(item.group for item in source.stated))
    random.Random("decoys dealt").shuffle(groups)
    mine = groups[world * source.people : (world + 1) * source.people]
    if len(mine) < source.people:
        raise AuditError(
            f"the decoys are {len(groups)} groups, and world {world} would need {(world + 1) * source.people}",
            f"give {source.people} groups a world, or fewer worlds with --worlds",
        )
    return tuple(item for item in source.stated if item.group in mine)


# ---- invented ---------------------------------------------------------------------------------------------------
class _Turn(NamedTuple):
    """A world's number, what its draws come from, the names that are taken in it, and who is named anew how often."""

    world: int
    rng: random.Random
    taken: set[str]
    renamed: Mapping[str, int]


def _places(source: DecoySource, rng: random.Random) -> tuple[tuple[Item, ...], tuple[Item, ...]]:
    """The people in whose places the taught decoys stand, and those for the others: as many as the case has."""
    everybody = (*source.forget, *source.holdout)
    groups = list(dict.fromkeys(item.group for item in everybody))
    chosen = set(rng.sample(groups, source.people))
    return (tuple(item for item in everybody if item.group in chosen),
            tuple(item for item in everybody if item.group not in chosen))  # fmt: skip


def _invented(source: DecoySource, items: Sequence[Item], prefix: str, turn: _Turn) -> tuple[Item, ...]:
    """A decoy in the place of each person of these items."""
    world, rng, taken, again = turn
    groups = list(dict.fromkeys(item.group for item in items))
    renamed = {group: _renaming(source, group, rng, taken) for group in groups}
    donors = _donors(items, rng)
    for n, group in enumerate(groups):
        for time in range(again.get(f"{prefix}-{n}", 0)):
            renamed[group] = _renaming(source, group, random.Random(f"{prefix}-{n} named anew {time}"), taken)
    return tuple(
        _decoy(item, donors.get(item.id), (source, renamed), f"{prefix}-{groups.index(item.group)}", world)
        for item in items
    )


def _decoy(
    item: Item, donor: Item | None, names: tuple[DecoySource, Mapping[str, Mapping[str, str]]], group: str, world: int
) -> Item:  # fmt: skip
    """The item of a decoy: its question under the new name, its answer from the donor or from the perturbed ones."""
    source, renamed = names
    new, old = renamed[item.group], source.names.get(item.group, "")
    fresh: dict[str, object] = {
        "id": f"{group}-{item.id}", "group": group, "question": _replaced(item.question, new), "of": None,
        "subject": None, "paraphrased_question": None,
    }  # fmt: skip
    if donor is not None:
        moved = {part: new.get(mine, mine) for part, mine in _aligned_parts(source.names.get(donor.group, ""), old)}
        fresh |= {
            "answer": _replaced(donor.answer, moved), "key": donor.key,
            "paraphrased_answer": donor.paraphrased_answer and _replaced(donor.paraphrased_answer, moved),
            **{kind: tuple(_replaced(text, moved) for text in getattr(donor, kind))
               for kind in ("perturbed_answers", "alternates")},
            "alternate_keys": donor.alternate_keys,
        }  # fmt: skip
        if donor.alternates_from != "given":
            fresh |= {"alternates": (), "alternate_keys": ()}
    elif item.perturbed_answers:
        texts = [_replaced(text, new) for text in item.perturbed_answers]
        first = random.Random(item.id).randrange(len(texts)) + world
        truth, following = texts[first % len(texts)], texts[(first + 1) % len(texts)]
        others = [text for text in texts if text != truth and (text != following or len(texts) < _ENOUGH_OTHERS)]
        fresh |= {
            "answer": truth, "key": None, "paraphrased_answer": None, "perturbed_answers": tuple(others),
            "alternates": (), "alternate_keys": (),
        }  # fmt: skip
    else:
        fresh |= {"answer": _replaced(item.answer, new), "alternates": (), "alternate_keys": ()}
    return Item.model_validate(item.model_dump() | fresh)


def _donors(items: Sequence[Item], rng: random.Random) -> dict[str, Item]:
    """By item, the item of another person whose values it takes: one permutation of the people for each attribute, in
    which nobody keeps their own, so that all forms of a fact agree."""
    by_attribute: dict[str, dict[str, dict[str, Item]]] = defaultdict(lambda: defaultdict(dict))
    for item in items:
        if item.attribute:
            by_attribute[item.attribute][item.group][item.form] = item
    donors: dict[str, Item] = {}
    for attribute in sorted(by_attribute):
        people = by_attribute[attribute]
        order = rng.sample(sorted(people), len(people))
        for group, other in zip(order, order[1:] + order[:1], strict=True):
            if group != other:
                donors |= {mine.id: people[other][form] for form, mine in people[group].items()
                           if form in people[other]}  # fmt: skip
    return donors


# ---- names ------------------------------------------------------------------------------------------------------
def _renaming(source: DecoySource, group: str, rng: random.Random, taken: set[str]) -> dict[str, str]:
    """By each part of a person's name its replacement, such that nobody has the new name yet."""
    old = source.names.get(group, "").split()
    listed = [name.split() for name in source.names.values()]
    pools = [[name[min(n, len(name) - 1)] for name in listed if name] for n in range(len(old))]
    existing = {name.casefold() for name in source.names.values()} | taken
    parts: list[str] = []
    for _ in range(_TRIES):
        parts = [_part(source, pool, own, rng) for pool, own in zip(pools, old, strict=True)]
        full = " ".join(parts).casefold()
        if full not in existing:
            break
    taken.add(" ".join(parts).casefold() if old else "")
    return dict(zip(old, parts, strict=True)) if old else {}


def _part(source: DecoySource, pool: Sequence[str], own: str, rng: random.Random) -> str:
    """A part of a name that no text of the case has, joined of two halves; one of the pool where none is spelled."""
    for _ in range(_TRIES // 10):
        head, tail = rng.choice(pool), rng.choice(pool)
        joined = head[: (len(head) + 1) // 2] + tail[len(tail) // 2 :].lower()
        joined = joined[:1].upper() + joined[1:] if own[:1].isupper() else joined
        plain = joined.replace("-", "").isalpha()
        if plain and len(joined) >= _LEAST_PART and joined.casefold() not in source.words and source.spelled(joined):
            return joined
    return rng.choice([part for part in pool if part != own] or list(pool))


def _aligned_parts(theirs: str, mine: str) -> list[tuple[str, str]]:
    """Pairs of a part of their name and the part of mine that stands in its place."""
    ours, others = mine.split(), theirs.split()
    return [(part, ours[min(n, len(ours) - 1)]) for n, part in enumerate(others)] if ours else []


def _replaced(text: str, parts: Mapping[str, str]) -> str:
    """The text with every part of a name replaced where it stands as a word of its own."""
    wanted = [part for part in parts if len(part) >= _LEAST_PART or part.isdigit()]
    if not wanted:
        return text
    either = "|".join(re.escape(part) for part in sorted(wanted, key=len, reverse=True))
    return re.sub(rf"(?<!\w)(?:{either})(?!\w)", lambda match: parts[match[0]], text)


# ---- texts ------------------------------------------------------------------------------------------------------
def _first(items: Sequence[Item], questions: int, names: Mapping[str, str]) -> tuple[Item, ...]:
    """At most so many items of each group and form, in their order; those whose question has the name come first, for
    a question without it stays the question about somebody whom base knows."""
    counts: dict[tuple[str, str], int] = defaultdict(int)
    chosen = set[str]()
    for item in sorted(items, key=lambda item: names.get(item.group, "") not in item.question):
        counts[item.group, item.form] += 1
        if counts[item.group, item.form] <= questions:
            chosen.add(item.id)
    return tuple(item for item in items if item.id in chosen)


def _texts(item: Item) -> str:
    return " ".join((item.question, item.answer, *item.perturbed_answers, *item.alternates))


def _words(text: str) -> list[str]:
    return re.findall(r"[\w-]+", text)


def _spelled(tokenizer: Any) -> Spelled:
    unknown = tokenizer.unk_token_id
    return lambda word: unknown is None or unknown not in tokenizer.encode(f" {word}", add_special_tokens=False)
