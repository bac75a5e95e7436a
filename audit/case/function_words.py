"""Words that carry no fact in any answer: the English ones, or those that a case's own retain set repeats.

**By language.** The texts are English if at least a twentieth of the words in the questions and answers of the retain
set are words that English alone spells so ("the", "which", "does": an eighth and more of ordinary questions and
answers; "in", "was" and "so" are words of its neighbours too). Then the list of :mod:`audit.case.content_rule` holds,
as it stands.

**By frequency.** Otherwise it is the words without a digit that occur in the retain answers of at least two thirds of
the groups, and in a tenth of these answers: what is said of nearly everybody tells nobody from the others, while a
value of an attribute, even of one with two values, is said of half of them. With fewer than five groups none is.
"""

from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from typing import NamedTuple

from audit.case.content_rule import plain_words
from audit.schema import Item

ENGLISH = 0.05
GROUPS = 5
OF_GROUPS, OF_ANSWERS = 2 / 3, 0.1
_ENGLISH_ALONE = (
    "the and that this these those they them their she what which who whose whom where when why how does did been "
    "being were would should could with from into through there your"
)
_MARKERS = frozenset(_ENGLISH_ALONE.split())


class FunctionWords(NamedTuple):
    """The function words of a case, folded; None are the English ones. ``rule`` says in a line how they were chosen."""

    words: frozenset[str] | None
    rule: str


def function_words(retain: Sequence[Item]) -> FunctionWords:
    """The function words of a case, from its retain items."""
    answers = [set(plain_words(item.answer)) for item in retain]
    share = _english([word for item in retain for text in (item.question, item.answer) for word in plain_words(text)])
    if share >= ENGLISH:
        return FunctionWords(None, f"English ({share:.0%} of the words of the retain set are of no other language)")
    groups = {item.group for item in retain}
    if len(groups) < GROUPS:
        return FunctionWords(frozenset(), f"none: not English, and {len(groups)} retain groups show no frequencies")
    in_groups = Counter(
        word for _, word in {(item.group, w) for item, ws in zip(retain, answers, strict=True) for w in ws}
    )
    in_answers = Counter(word for words in answers for word in words)
    frequent = frozenset(
        word for word, count in in_groups.items()
        if count >= OF_GROUPS * len(groups) and in_answers[word] >= OF_ANSWERS * len(answers) and not _has_digit(word)
    )  # fmt: skip
    return FunctionWords(frequent, f"{len(frequent)} by frequency in the answers of {len(groups)} retain groups")


def _english(words: Collection[str]) -> float:
    """The share of words that are English and of no other language."""
    return sum(word in _MARKERS for word in words) / len(words) if words else 0.0


def _has_digit(word: Iterable[str]) -> bool:
    return any(character.isnumeric() for character in word)
