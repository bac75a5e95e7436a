"""Alternates by rule where a file brings none: what is true of somebody else, said of this person.

A file of question, answer and group holds them already: for the same question form (:mod:`audit.case.question_forms`)
other people have other values. An alternate is the answer of another person with that person's name replaced by this
one's. Among the answers to one form those are taken that share the most words with the item's own at the beginning and
the end, as far as a third of the people do (the frame), and that differ in a few words between: the value. Free answers
that differ in more have no alternates: they could say the same in other words. Where an item names its key, other
people's keys take its place. Values that stand in any answer of the same group, in the question, or in anybody's answer
to the very same question, may be true and are left out, signs and accents aside; so are those that hold the item's own.
No model writes an alternate.

Lenders are the forget and the holdout people alike, because the tests permute these labels: whether an item is of the
one or the other must not decide where its alternates come from. To a model that learned the forget people their values
are as familiar as the item's own, so that nothing but the fact differs. Retained people come in where these have too
few values. A file that brings alternates or perturbed answers for half of its trained items is left as it is: two
kinds of pairs in one cohort could not be compared.
"""

import itertools
import random
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from typing import NamedTuple

from audit.case.alternates import LEAST, SWAPS
from audit.case.content_rule import content_spans
from audit.case.key_search import Fit, occurrences
from audit.case.question_forms import Form, Kind, Reading, Word, folded, readings, spoken, words_of
from audit.schema import AuditError, Cohort, Item
from audit.wording import unaccented

AUDITED: tuple[Cohort, ...] = ("forget", "holdout")
LENDERS: tuple[Cohort, ...] = (*AUDITED, "retain")
OWN_SHARE = 0.5
FRAME_SHARE = 1 / 3
LONGEST_VALUE = 8
"""Words in which an alternate may differ."""
MOST_LENDERS = 64
"""So many answers of other people are looked at for each item: many more than there are alternates to find."""


class _Lender(NamedTuple):
    """Somebody's answer to a question form, and the name that the question gives them."""

    item: Item
    name: str
    first: bool


class _Candidate(NamedTuple):
    """An answer that could stand in place of an item's own, what differs in it, and what the item has there."""

    text: str
    value: tuple[str, ...]
    own: tuple[str, ...]
    key: str | None = None


class _Line(NamedTuple):
    """Somebody's answer, said of this person, and how many words it shares with their own before and after."""

    group: str
    text: str
    words: tuple[str, ...]
    before: int
    after: int


class Rule(NamedTuple):
    """Alternates of one item, their keys where the item names its own, and by which kind of form they came."""

    alternates: tuple[str, ...]
    keys: tuple[str, ...]
    kind: Kind


def with_counterfactuals(by_cohort: Mapping[Cohort, tuple[Item, ...]], seed: int) -> dict[Cohort, tuple[Item, ...]]:
    """The items, those of forget and holdout people with alternates by rule where their file brings none.

    Drawn from ``seed``; depends on the items alone, not on their order. An item of which no form has two other values
    is left without. Where one file brings perturbed answers and no alternates, the other gets none either: which words
    carry a fact follows from what an item has, and forget and holdout people are held against one another.
    """
    lacking = [c for c in AUDITED if c in by_cohort and not _brings_its_own(by_cohort[c])]
    if not lacking or any(_perturbed_alone(by_cohort[c]) for c in AUDITED if c in by_cohort):
        return dict(by_cohort)
    lenders = [(c, item) for c in LENDERS for item in by_cohort.get(c, ()) if item.form == "trained"]
    read = dict(zip([item.id for _, item in lenders], readings([item for _, item in lenders]), strict=True))
    by_form: dict[Form, list[_Lender]] = defaultdict(list)
    for cohort, item in lenders:
        for reading in read[item.id]:
            by_form[reading.form].append(_Lender(item, reading.name, cohort in AUDITED))
    true, to_question = _answers(item for items in by_cohort.values() for item in items)

    def filled(item: Item) -> Item:
        if item.form != "trained" or item.alternates:
            return item
        rule = _rule(item, read[item.id], by_form, true[item.group] + to_question[_plain(item.question)], seed)
        if rule is None:
            return item
        added = {"alternates": rule.alternates, "alternate_keys": rule.keys, "alternates_from": rule.kind}
        return item.model_copy(update=added)

    return {c: tuple(map(filled, items)) if c in lacking else items for c, items in by_cohort.items()}


def _brings_its_own(items: Sequence[Item]) -> bool:
    trained = [item for item in items if item.form == "trained"]
    own = sum(bool(item.alternates or item.perturbed_answers) for item in trained)
    return own >= OWN_SHARE * len(trained)


def _perturbed_alone(items: Sequence[Item]) -> bool:
    """Do most trained items have perturbed answers, and no alternates?"""
    trained = [item for item in items if item.form == "trained"]
    perturbed = sum(bool(item.perturbed_answers and not item.alternates) for item in trained)
    return bool(trained) and perturbed >= OWN_SHARE * len(trained)


def _answers(items: Iterable[Item]) -> tuple[dict[str, list[str]], dict[str, list[str]]]:
    """The answers of every group, and those to every question."""
    of_group, to_question = defaultdict[str, list[str]](list), defaultdict[str, list[str]](list)
    for item in items:
        answer = _plain(item.answer)
        of_group[item.group].append(answer)
        if item.question.strip():
            to_question[_plain(item.question)].append(answer)
    return of_group, to_question


def _line(words: Iterable[str]) -> str:
    return f" {' '.join(words)} "


def _plain(text: str) -> str:
    return _bare(folded(words_of(text)))


@lru_cache(maxsize=1 << 14)
def _bare(words: tuple[str, ...]) -> str:
    """Words between blanks, without signs (where it is not all signs) and accents: what may be true if it is equal."""
    return unaccented(_line([word for word in words if spoken(word)] or words))


# ---- one item ---------------------------------------------------------------------------------------------------
def _rule(
    item: Item, read: Sequence[Reading], by_form: Mapping[Form, Sequence[_Lender]], true: Sequence[str], seed: int
) -> Rule | None:
    """The alternates of one item by the first of its forms that has enough of them."""
    for reading in read:
        rng = random.Random(f"{seed} {item.group} {item.id}")
        others = _drawn([x for x in by_form[reading.form] if x.item.group != item.group], rng)
        candidates = _keyed(item, others) if item.key is not None else _framed(item, reading.name, others)
        different: dict[str, _Candidate] = {}
        for candidate in candidates:
            value, own = _bare(candidate.value), _bare(candidate.own)
            same = own in value or sorted(value.split()) == sorted(own.split())  # May 3 is 3 May
            if not same and not any(value in text for text in (*true, _plain(item.question))):
                different.setdefault(value, candidate)
        chosen = list(different.values())[:SWAPS]
        if len(chosen) >= LEAST:
            keys = tuple(c.key for c in chosen if c.key is not None)
            return Rule(tuple(c.text for c in chosen), keys, reading.form.kind)
    return None


def _drawn(others: Sequence[_Lender], rng: random.Random) -> list[_Lender]:
    """At most :data:`MOST_LENDERS` in random order, forget and holdout people before retained ones."""
    ordered = sorted(others, key=lambda x: (x.item.group, x.item.id))
    rng.shuffle(ordered)
    return sorted(ordered, key=lambda x: not x.first)[:MOST_LENDERS]


def _keyed(item: Item, others: Sequence[_Lender]) -> list[_Candidate]:
    """The item's own answer with other people's keys wherever its own stands."""
    try:
        ((begin, end),) = content_spans(item, item.answer)
    except AuditError:
        return []  # every such item is named at once where items become rows
    own, places = folded(words_of(item.answer[begin:end])), [(begin, end)]
    for (a, b), fit in occurrences(item.answer, item.key or ""):
        if fit < Fit.INSIDE and all(b <= start or stop <= a for start, stop in places):
            places.append((a, b))

    def with_key(key: str) -> str:
        text = item.answer
        for a, b in sorted(places, reverse=True):
            text = text[:a] + key + text[b:]
        return text

    keys = [x.item.key for x in others if x.item.key is not None]
    return [_Candidate(with_key(key), folded(words_of(key)), own, key) for key in keys]


def _framed(item: Item, name: str, others: Sequence[_Lender]) -> list[_Candidate]:
    """Other people's answers in the longest frame of the item's own that enough people share; it may be empty."""
    own = folded(words_of(item.answer))
    restated = [(x.item.group, text) for x in others if (text := _restated(x, name, item)) is not None]
    lines = [_Line(group, text, words := folded(words_of(text)), *_common(own, words)) for group, text in restated]
    needed = max(LEAST, FRAME_SHARE * len({line.group for line in lines}))
    frames = sorted(
        itertools.product({0, *(line.before for line in lines)}, {0, *(line.after for line in lines)}),
        key=lambda frame: (-sum(frame), frame),
    )
    for a, b in frames:
        if len(own) - a - b > LONGEST_VALUE:
            break
        sharing = [x for x in lines if x.before >= a and x.after >= b and len(x.words) > a + b < len(own)]
        mine = own[a : len(own) - b]
        values = [(x, x.words[a : len(x.words) - b]) for x in sharing]
        fit = [(x, v) for x, v in values if any(map(spoken, v)) and len(v) <= LONGEST_VALUE]
        candidates = [_Candidate(x.text, v, mine) for x, v in fit if _bare(mine) not in _bare(v)]
        if len({x.group for x in sharing}) >= needed and len({x.value for x in candidates}) >= LEAST:
            return candidates
    return []


def _common(own: Sequence[str], other: Sequence[str]) -> tuple[int, int]:
    """How many words two answers share at the beginning and, beyond these, at the end; one of either is left over."""
    most = min(len(own), len(other)) - 1
    a = 0
    while a < most and own[a] == other[a]:
        a += 1
    b = 0
    while a + b < most and own[-1 - b] == other[-1 - b]:
        b += 1
    return a, b


# ---- names ------------------------------------------------------------------------------------------------------
def _restated(lender: _Lender, name: str, item: Item) -> str | None:
    """The lender's answer with this person's name in place of the lender's; None where that cannot be done.

    Nor is it where a part of the lender's name stands apart and the same part of this person's does not in their own
    answer (it may be a value), or where no name is known and the answer speaks of what only the lender was asked about.
    """
    answer = lender.item.answer
    theirs, mine = words_of(lender.name), words_of(name)
    words = words_of(answer)
    if not theirs or not mine:
        elsewhere = {*folded(words_of(item.question)), *folded(words_of(item.answer))}
        about = set(folded(words_of(lender.item.question))) - elsewhere
        return None if about & set(folded(words)) else answer
    texts, full = folded(words), folded(theirs)
    parts = _line(folded(words_of(item.answer))).replace(_line(folded(mine)), "  ").split()
    swaps = {word.folded: name[m.begin : m.end] for word, m in zip(theirs, mine, strict=False)}
    text, at, n = "", 0, 0
    while n < len(words):
        word = words[n]
        if texts[n : n + len(full)] == full:
            new, stop = name, words[n + len(full) - 1].end
            n += len(full)
        elif word.folded in full and _is_name(answer, word):
            new, stop = swaps.get(word.folded, ""), word.end
            if len(theirs) != len(mine) or new.casefold() not in parts:
                return None
            n += 1
        else:
            n += 1
            continue
        text, at = text + answer[at : word.begin] + new, stop
    return text + answer[at:]


def _is_name(text: str, word: Word) -> bool:
    """Part of a name that stands on its own: a capital marks it where the script has any."""
    return text[word.begin].isupper()
