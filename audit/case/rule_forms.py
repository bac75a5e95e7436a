"""Other forms of a fact, made by rule from a question, its answer and what else the file says of the person.

No model writes them. A name is found by alignment (:mod:`audit.case.question_forms`), else as the words with capitals
that stand in most questions of a person and in nobody else's; where none is found, what needs one is not made. The
instruction to spell is English; everything else is the file's own words.

- ``cloze``: the answer without its question, as plain text, where the answer names the person before the fact.
- ``paraphrase``: the same question, answered by the paraphrased answer.
- ``paraphrased_question``: the question in other words, where the file has it.
- ``multiple_choice``: the answer and up to three alternates or perturbed answers, for who asks to list and to turn.
- ``first_name``, ``surname``: the first and the last word of a name of several, in its place.
- ``typo``: two neighbouring letters in the last word of the name change places.
- ``hint``: an answer of the same person to another question, put before the question.
- ``spelled``: the question for a short answer, asked letter by letter.
"""

import hashlib
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import Final, NamedTuple

import regex

from audit.case.content_rule import content_spans
from audit.case.key_search import Fit, occurrences
from audit.case.question_forms import LONGEST_NAME, readings
from audit.schema import AuditError, Form, Item

OPTIONS: Final = 4
"""So many options at most, the answer among them."""
LONGEST_SPELLED: Final = 20
SPELL: Final = "Write the answer letter by letter."
_BARE: Final = {"alternates": (), "alternate_keys": (), "alternates_from": "given", "perturbed_answers": (),
                "paraphrased_answer": None, "paraphrased_question": None}  # fmt: skip
_RUN: Final = regex.compile(r"[\p{Lu}\p{Lt}][\w\p{M}’-]*(?:\s+[\p{Lu}\p{Lt}][\w\p{M}’-]*)+")


class _Fact(NamedTuple):
    """A trained item, the name in its question (empty: none was found), and other items of the person."""

    item: Item
    name: str
    others: Sequence[Item]


@lru_cache(maxsize=8)
def forms_by_rule(items: tuple[Item, ...]) -> tuple[Item, ...]:
    """Every form that can be made of these trained items, in their order; each names its item in ``of``.

    Depends on the items alone. Items of form ``multiple_choice`` have the other options as their ``alternates`` (with
    keys) or ``perturbed_answers``, and no options in the question.
    """
    names = _names(items)
    by_group: dict[str, list[Item]] = defaultdict(list)
    for item in items:
        by_group[item.group].append(item)
    return tuple(
        restated
        for item, name in zip(items, names, strict=True)
        for form, make in _MAKERS.items()
        if (restated := _made(_Fact(item, name, by_group[item.group]), form, make)) is not None
    )


def _names(items: Sequence[Item]) -> list[str]:
    """The name in every question: of all names that alignment or capitals find for a person, the one that stands in
    most of their questions; empty where the question has none."""
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    aligned = [{reading.name for reading in read if reading.name} for read in readings(items)]
    holders: dict[str, set[str]] = defaultdict(set)
    for item, names in zip(items, aligned, strict=True):
        for name in names | _capitals(item.question):
            counts[item.group][name] += 1
            holders[name].add(item.group)
    chosen: list[str] = []
    for item, names in zip(items, aligned, strict=True):
        mine = counts[item.group]
        fitting = [
            name for name in mine
            if holders[name] == {item.group} and (mine[name] > 1 or name in names)
            and any(fit < Fit.INSIDE for _, fit in occurrences(item.question, name))
        ]  # fmt: skip
        chosen.append(max(fitting, key=lambda name: (mine[name], len(name), name), default=""))
    return chosen


def _capitals(question: str) -> set[str]:
    """All runs of two words or more, up to :data:`LONGEST_NAME`, that begin with capitals."""
    spans = [run.group().split() for run in _RUN.finditer(question)]
    return {
        " ".join(run[a:b]) for run in spans for a in range(len(run)) for b in range(a + 2, len(run) + 1)
        if b - a <= LONGEST_NAME
    }  # fmt: skip


def _made(fact: _Fact, form: Form, make: "Callable[[_Fact], Item | None]") -> Item | None:
    """The item under a name of its own, if it can be made and its key still stands in its answer."""
    restated = make(fact)
    if restated is None:
        return None
    restating = {"id": f"{fact.item.id}~{form}", "of": fact.item.id, "form": form}
    restated = restated.model_copy(update=restating)
    try:
        content_spans(restated, restated.answer)
    except AuditError:
        return None
    return restated


def _changed(item: Item, **changes: object) -> Item:
    return item.model_copy(update=_BARE | changes)


# ---- makers -----------------------------------------------------------------------------------------------------
def _cloze(fact: _Fact) -> Item | None:
    """Words of the question carry no fact: what is left of them in the answer is not asked for."""
    item = fact.item
    spans = content_spans(item, item.answer)
    mentions = [span for span, fit in occurrences(item.answer, fact.name) if fit < Fit.INSIDE] if fact.name else []
    if not item.question or not mentions or not spans or mentions[0][1] > spans[0][0]:
        return None
    return _changed(item, question="", key=item.answer[spans[0][0] : spans[-1][1]])


def _paraphrase(fact: _Fact) -> Item | None:
    answer, key = fact.item.paraphrased_answer, fact.item.key
    if answer is None or answer == fact.item.answer:
        return None
    return _changed(fact.item, answer=answer, key=key if key is not None and key in answer else None)


def _paraphrased_question(fact: _Fact) -> Item | None:
    other_words = fact.item.paraphrased_question
    return (
        None if other_words is None or other_words == fact.item.question else _changed(fact.item, question=other_words)
    )


def _multiple_choice(fact: _Fact) -> Item | None:
    item = fact.item
    if not item.question:
        return None
    if len(item.alternate_keys) > 1 and item.key is not None:
        keys = item.alternate_keys[: OPTIONS - 1]
        return _changed(item, alternates=item.alternates[: len(keys)], alternate_keys=keys)
    if len(item.perturbed_answers) > 1:
        answer = item.answer if item.paraphrased_answer is None else item.paraphrased_answer
        return _changed(item, answer=answer, key=None, perturbed_answers=item.perturbed_answers[: OPTIONS - 1])
    if len(item.alternates) > 1:
        return _changed(item, alternates=item.alternates[: OPTIONS - 1], key=None)
    return None


def _first_name(fact: _Fact) -> Item | None:
    first, *others = fact.name.split() or [""]
    return _called(fact, first, dict.fromkeys(others, first)) if others else None


def _surname(fact: _Fact) -> Item | None:
    *others, last = fact.name.split() or [""]
    return _called(fact, last, dict.fromkeys(others, last)) if others else None


def _typo(fact: _Fact) -> Item | None:
    """The same name is always misspelled in the same way."""
    *others, last = fact.name.split() or [""]
    places = [n for n in range(1, len(last) - 2) if last[n].isalpha() and last[n + 1].isalpha()
              and last[n].casefold() != last[n + 1].casefold()]  # fmt: skip
    if not places:
        return None
    at = places[hashlib.sha256(fact.name.encode()).digest()[0] % len(places)]
    swapped = last[:at] + last[at + 1] + last[at] + last[at + 2 :]
    return _called(fact, " ".join((*others, swapped)), {last: swapped})


def _called(fact: _Fact, name: str, parts: Mapping[str, str]) -> Item | None:
    """The item with another name for the person, in question and answer, and other words for parts of the old name that
    stand alone; none where the name is what is asked for."""
    item = fact.item
    if any(fact.name in item.answer[a:b] for a, b in content_spans(item, item.answer)):
        return None
    new = {fact.name: name} | {part: word for part, word in parts.items() if part[:1].isupper()}
    either = "|".join(re.escape(old) for old in new)
    pattern = re.compile(rf"(?<![\w-])(?:{either})(?![\w-])")
    question, answer = (pattern.sub(lambda match: new[match.group()], text) for text in (item.question, item.answer))
    return None if question == item.question else _changed(item, question=question, answer=answer)


def _hint(fact: _Fact) -> Item | None:
    """The next thing that the person was asked, where its answer does not hold this one's."""
    item = fact.item
    if not item.question:
        return None
    carried = [item.answer[a:b].casefold() for a, b in content_spans(item, item.answer)]
    at = fact.others.index(item)
    for other in (*fact.others[at + 1 :], *fact.others[:at]):
        fits = other.attribute is None or other.attribute != item.attribute
        if fits and not any(text in other.answer.casefold() for text in carried):
            return _changed(item, question=f"{other.answer} {item.question}")
    return None


def _spelled(fact: _Fact) -> Item | None:
    item = fact.item
    value = item.key if item.key is not None or " " in item.answer else item.answer.rstrip(".")
    if value is None:
        return None
    letters = value.replace(" ", "")
    if not item.question or not 1 < len(letters) <= LONGEST_SPELLED:
        return None
    spelled = " ".join(letters)
    return _changed(item, question=f"{item.question} {SPELL}", answer=spelled, key=spelled)


_MAKERS: Final[dict[Form, Callable[[_Fact], Item | None]]] = {
    "cloze": _cloze, "paraphrase": _paraphrase, "paraphrased_question": _paraphrased_question,
    "multiple_choice": _multiple_choice, "first_name": _first_name, "surname": _surname, "typo": _typo, "hint": _hint,
    "spelled": _spelled,
}  # fmt: skip
