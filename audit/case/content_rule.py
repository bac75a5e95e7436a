"""The content rule: which words of an answer carry the fact.

**Content rule.** The key, where the item names one: where it stands in the answer and an alternate has something else
at that very place; else its first occurrence as whole words (:mod:`audit.case.key_search`), and never inside a longer
word. A matched alternate has its own key: the one given, else what stands where the answer's key stood. Without a key,
an answer and its alternates carry the fact in the words in which they differ; where such words are the same ("C++" and
"C#", "-5" and "5"), in all that they say. Everything else (answers with neither, paraphrased and perturbed answers, so
that both sides of a truth ratio follow one rule): all words. Of these words, the ones that are in the question and the
function words (not the month May and the name Will) are left out, English ones or those of
:mod:`audit.case.function_words`, unless nothing would be left; without any word the whole answer. No model is asked.

Words are those of :mod:`audit.wording`, of any script; endings are not stripped, in no language.
"""

import re
from collections.abc import Iterable, Sequence
from collections.abc import Set as AbstractSet
from functools import lru_cache
from itertools import takewhile
from typing import NamedTuple

from audit.case.key_search import Fit, longer_word, occurrences
from audit.schema import AuditError, Item
from audit.wording import Span, folded, words

_POSSESSIVE = re.compile(r"['’]s$")
_QUOTED = 60
_FUNCTION_WORDS = (
    "a an the and or but nor so yet if than that this these those there here it its he she they them his her their "
    "him hers theirs i me my we us our you your who whom whose which what when where why how is am are was were be "
    "been being do does did done has have had having will would shall should can could may might must not no yes "
    "of in on at to from by for with about as into onto over under after before during between through per via "
    "also very just both each any all some such own same other"
)
_PROPER = re.compile(r"(?:(?<=[^.!?:\s] )(?:May|Will)|May(?=,? \d))\b")
"""The month and the name that are written as function words: with a capital where no sentence begins."""
SHOWN = 3
"""So many items with a fault are quoted at most."""
FUNCTION_WORDS = frozenset(_FUNCTION_WORDS.split())


# ---- the content rule -------------------------------------------------------------------------------------------
def content_spans(item: Item, answer: str, function_words: AbstractSet[str] | None = None) -> tuple[Span, ...]:
    """Which characters of ``answer`` carry the fact? Spans [start, end), by the content rule of this module.

    ``answer`` is one of the item's answers; ``function_words`` are folded words, the English ones if None. AuditError
    (code 2) if the item's key is not in the answer, or only inside a longer word.
    """
    key = _key_span(item, answer)
    if key is not None:
        return (key,)
    common = FUNCTION_WORDS if function_words is None else function_words
    carrying = _carrying(item, answer, common)
    if carrying and not _alike_in_words(item, answer, common):
        return _joined(word.span for word in carrying)
    start = len(answer) - len(answer.lstrip())
    return ((start, len(answer.rstrip())),)


def _carrying(item: Item, answer: str, common: AbstractSet[str]) -> "Sequence[_Word]":
    """The words of an answer that carry the fact, where no key says it."""
    given_away = set(plain_words(item.question))
    differing = _differing(item, answer)
    eligible = differing or _words(answer)
    return [
        word for word in eligible
        if word.plain not in given_away and (word.plain not in common or _PROPER.match(answer, word.span[0]))
    ] or differing  # fmt: skip


def _alike_in_words(item: Item, answer: str, common: AbstractSet[str]) -> bool:
    """Are the answer and an alternate other texts, whose words that carry the fact are the same?"""
    texts = dict.fromkeys((item.answer, *item.alternates))
    if item.key is not None or len(texts) < 2 or answer not in texts:
        return False
    carried = [tuple(text[slice(*word.span)] for word in _carrying(item, text, common)) for text in texts]
    return carried[0] in carried[1:]


def every_content_spans(
    items: Sequence[Item], answers: Sequence[str], function_words: AbstractSet[str] | None = None
) -> list[tuple[Span, ...]]:
    """:func:`content_spans` of many; one AuditError (code 2) for all items that have a fault."""
    spans, faults = list[tuple[Span, ...]](), list[AuditError]()
    for item, answer in zip(items, answers, strict=True):
        try:
            spans.append(content_spans(item, answer, function_words))
        except AuditError as fault:
            faults.append(fault)
    if faults:
        more = f" (and {len(faults) - SHOWN} more items)" if len(faults) > SHOWN else ""
        raise AuditError("; ".join(fault.what for fault in faults[:SHOWN]) + more, faults[0].do)
    return spans


def _joined(spans: Iterable[Span]) -> tuple[Span, ...]:
    """Spans in order, those that touch as one: scripts without spaces."""
    joined = list[Span]()
    for start, end in spans:
        begin = joined.pop()[0] if joined and joined[-1][1] == start else start
        joined.append((begin, end))
    return tuple(joined)


# ---- keys -------------------------------------------------------------------------------------------------------
def _key_span(item: Item, answer: str) -> Span | None:
    """Where the key that the item names for this answer stands, or None if it names none."""
    if answer == item.answer:
        return None if item.key is None else _place(item, answer, item.key)
    if answer not in item.alternates:
        return None
    index = item.alternates.index(answer)
    if index < len(item.alternate_keys):
        return _place(item, answer, item.alternate_keys[index])
    if item.key is None:
        return None
    start, end = _place(item, item.answer, item.key)
    stop = len(answer) - len(item.answer) + end
    return (start, stop) if start < stop and _beside(answer, item.answer, (start, end)) else None


def _place(item: Item, answer: str, key: str) -> Span:
    """Where a key stands: where an alternate has something else, or its first place as whole words.

    AuditError (code 2) if it is nowhere, or only inside a longer word and no alternate shows it.
    """
    places = occurrences(answer, key)
    texts = (item.answer, *item.alternates)
    shown = [span for span, _ in places if any(_beside(other, answer, span) for other in texts)]
    fitting = [*shown, *(span for span, fit in places if fit < Fit.INSIDE)]
    if fitting:
        return fitting[0]
    if not places:
        words = f"{key[:_QUOTED]!r} is not in the answer {answer[:_QUOTED]!r}"
        raise AuditError(f"item {item.id!r}: its key {words}", "correct the key")
    longer = longer_word(answer, places[0].span)
    raise AuditError(
        f"item {item.id!r}: its key {key!r} is in the answer only inside the longer word {longer!r}",
        f"give whole words as the key (here {longer!r}), or alternates that have another value at this place",
    )


def _beside(other: str, text: str, span: Span) -> bool:
    """Whether another text is the same before and after a span of this one, and has something else between."""
    before, after = text[: span[0]], text[span[1] :]
    fits = other.startswith(before) and other.endswith(after) and len(other) > len(before) + len(after)
    return fits and other != text


# ---- words ------------------------------------------------------------------------------------------------------
class _Word(NamedTuple):
    """A word of a text, and how it is compared with others."""

    span: Span
    plain: str


@lru_cache(maxsize=1024)
def _words(text: str) -> tuple[_Word, ...]:
    return tuple(_Word((start, end), _plain(text[start:end])) for start, end in words(text))


def _plain(word: str) -> str:
    """A word as it is compared with others: folded, without an English possessive."""
    return _POSSESSIVE.sub("", folded(word))


def plain_words(text: str) -> list[str]:
    """The words of a text as they are compared with others, in order."""
    return [word.plain for word in _words(text)]


def _differing(item: Item, answer: str) -> Sequence[_Word]:
    """The words in which an answer differs from its alternates; none where a key is named or there are no alternates.

    They stand between what all these texts begin with and what all end with, and are not in each of them.
    """
    texts = (item.answer, *item.alternates)
    if item.key is not None or not item.alternates or answer not in texts:
        return ()
    every = [plain_words(text) for text in texts]
    head = _alike(every)
    rest = [text[head:] for text in every]
    tail = _alike([text[::-1] for text in rest])
    shared = set.intersection(*(set(text[: len(text) - tail]) for text in rest))
    mine = _words(answer)[head:]
    return [word for word in mine[: len(mine) - tail] if word.plain not in shared]


def _alike(texts: Sequence[Sequence[str]]) -> int:
    """With how many equal words do all texts begin?"""
    return sum(1 for _ in takewhile(lambda at: len(set(at)) == 1, zip(*texts, strict=False)))
