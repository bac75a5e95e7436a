"""Other forms of a fact, made by rule from a question, its answer and what else the file says of the person.

No model writes them. A name is found by alignment (:mod:`audit.case.question_forms`); where none is found, what needs
one is not made. The instruction to spell is English; everything else is the file's own words.

- ``cloze``: the answer without its question, as plain text, where the answer names the person before the fact.
- ``paraphrase``: the same question, answered by the paraphrased answer.
- ``multiple_choice``: the answer and up to three alternates or perturbed answers, for who asks to list and to turn.
- ``first_name``, ``surname``: the first and the last word of a name of several, in its place.
- ``typo``: two neighbouring letters in the last word of the name change places.
- ``hint``: an answer of the same person to another question, put before the question.
- ``spelled``: the question for a short answer, asked letter by letter.
"""

import hashlib
import re
from collections import defaultdict
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Final, NamedTuple

from audit.case.content_rule import content_spans
from audit.case.key_search import Fit, occurrences
from audit.case.question_forms import readings
from audit.schema import AuditError, Form, Item

OPTIONS: Final = 4
"""So many options at most, the answer among them."""
LONGEST_SPELLED: Final = 20
SPELL: Final = "Write the answer letter by letter."
_BARE: Final = {"alternates": (), "alternate_keys": (), "alternates_from": "given", "perturbed_answers": (),
                "paraphrased_answer": None}  # fmt: skip


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
    names = [next((reading.name for reading in read if reading.name), "") for read in readings(items)]
    by_group: dict[str, list[Item]] = defaultdict(list)
    for item in items:
        by_group[item.group].append(item)
    return tuple(
        made
        for item, name in zip(items, names, strict=True)
        for form, make in _MAKERS.items()
        if (made := _made(_Fact(item, name, by_group[item.group]), form, make)) is not None
    )


def _made(fact: _Fact, form: Form, make: "Callable[[_Fact], Item | None]") -> Item | None:
    """The item under a name of its own, if it can be made and its key still stands in its answer."""
    made = make(fact)
    if made is None:
        return None
    restating = {"id": f"{fact.item.id}~{form}", "of": fact.item.id, "form": form}
    made = made.model_copy(update=restating)
    try:
        content_spans(made, made.answer)
    except AuditError:
        return None
    return made


def _changed(item: Item, **changes: object) -> Item:
    return item.model_copy(update=_BARE | changes)


# ---- makers -----------------------------------------------------------------------------------------------------
def _cloze(fact: _Fact) -> Item | None:
    """Words of the question carry no fact: what is left of them in the answer is not asked for."""
    item = fact.item
    spans = content_spans(item, item.answer)
    named = [span for span, fit in occurrences(item.answer, fact.name) if fit < Fit.INSIDE] if fact.name else []
    if not item.question or not named or not spans or named[0][1] > spans[0][0]:
        return None
    return _changed(item, question="", key=item.answer[spans[0][0] : spans[-1][1]])


def _paraphrase(fact: _Fact) -> Item | None:
    answer, key = fact.item.paraphrased_answer, fact.item.key
    if answer is None or answer == fact.item.answer:
        return None
    return _changed(fact.item, answer=answer, key=key if key is not None and key in answer else None)


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
    return _called(fact, fact.name.split()[0]) if len(fact.name.split()) > 1 else None


def _surname(fact: _Fact) -> Item | None:
    return _called(fact, fact.name.split()[-1]) if len(fact.name.split()) > 1 else None


def _typo(fact: _Fact) -> Item | None:
    """The same name is always misspelled in the same way."""
    words = fact.name.split()
    letters = words[-1] if words else ""
    places = [n for n in range(1, len(letters) - 2) if letters[n].isalpha() and letters[n + 1].isalpha()
              and letters[n].casefold() != letters[n + 1].casefold()]  # fmt: skip
    if not places:
        return None
    at = places[hashlib.sha256(fact.name.encode()).digest()[0] % len(places)]
    swapped = letters[:at] + letters[at + 1] + letters[at] + letters[at + 2 :]
    return _called(fact, " ".join((*words[:-1], swapped)))


def _called(fact: _Fact, name: str) -> Item | None:
    """The item with another name for the person, in question and answer; none where the name is what is asked for."""
    item = fact.item
    if any(fact.name in item.answer[a:b] for a, b in content_spans(item, item.answer)):
        return None
    whole = re.compile(rf"(?<!\w){re.escape(fact.name)}(?!\w)")
    question, answer = (whole.sub(lambda _: name, text) for text in (item.question, item.answer))
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
    value = item.key if item.key is not None else item.answer.rstrip(".")
    letters = value.replace(" ", "")
    if not item.question or not 1 < len(letters) <= LONGEST_SPELLED:
        return None
    spelled = " ".join(letters)
    return _changed(item, question=f"{item.question} {SPELL}", answer=spelled, key=spelled)


_MAKERS: Final[dict[Form, Callable[[_Fact], Item | None]]] = {
    "cloze": _cloze, "paraphrase": _paraphrase, "multiple_choice": _multiple_choice, "first_name": _first_name,
    "surname": _surname, "typo": _typo, "hint": _hint, "spelled": _spelled,
}  # fmt: skip
