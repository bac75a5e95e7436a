"""Where the key of an item stands in an answer: as whole words, whatever way its characters are composed.

Occurrences are told apart by their ends. The best is free on both sides; next come ends where a word ends by Unicode
segmentation; in scripts without spaces, where a dictionary may part words otherwise than the user does, whole
characters (grapheme clusters) will do. Any other occurrence lies inside a longer word.
"""

import unicodedata
from collections.abc import Iterator, Sequence
from enum import IntEnum
from functools import lru_cache
from typing import NamedTuple

import regex

from audit.wording import Span, clusters, runs, unspaced, words

_WORD_BEFORE = regex.compile(r"(?<=[\p{L}\p{N}_][\p{WB=Extend}\p{WB=ZWJ}\p{WB=Format}]*)")
_WORD_AFTER = regex.compile(r"[\p{WB=Extend}\p{WB=ZWJ}]|[\p{WB=Extend}\p{WB=ZWJ}\p{WB=Format}]*[\p{L}\p{N}_]")


class Fit(IntEnum):
    """How an occurrence sits among the words round it, the best first."""

    FREE = 0
    WHOLE_WORDS = 1
    WHOLE_CHARACTERS = 2
    INSIDE = 3


class Occurrence(NamedTuple):
    """Where a key stands in a text, in code points, and how well."""

    span: Span
    fit: Fit


@lru_cache(maxsize=16384)
def occurrences(text: str, key: str) -> tuple[Occurrence, ...]:
    """Every place of the text that is canonically equal to the key, the best fit first, then by place."""
    places = [Occurrence((start, end), _fit(text, start, end)) for start, end in _equal(text, key)]
    return tuple(sorted(places, key=lambda occurrence: occurrence.fit))


def longer_word(text: str, span: Span) -> str:
    """The words of the text that a span begins or ends inside of, with what stands between them."""
    touched = [(start, end) for start, end in words(text) if start < span[1] and end > span[0]]
    return text[min((span[0], *(a for a, _ in touched))) : max((span[1], *(b for _, b in touched)))]


def _fit(text: str, start: int, end: int) -> Fit:
    if not _WORD_BEFORE.match(text, start) and not _WORD_AFTER.match(text, end):
        return Fit.FREE
    inside = {place for begin, stop in runs(text) for place in range(begin + 1, stop)}
    within = [place for place in (start, end) if place in inside]
    if not within:
        return Fit.WHOLE_WORDS
    characters = all(unspaced(text, place) for place in within) and clusters(text).issuperset(within)
    return Fit.WHOLE_CHARACTERS if characters else Fit.INSIDE


# ---- canonical equivalence --------------------------------------------------------------------------------------
def _equal(text: str, key: str) -> Iterator[Span]:
    """The spans of the text that decompose to what the key decomposes to; never a part of a combining sequence."""
    wanted = unicodedata.normalize("NFD", key)
    if not wanted:
        return
    decomposed, places = (text, range(len(text) + 1)) if text.isascii() else _decomposed(text)
    start = decomposed.find(wanted)
    while start >= 0:
        first, last = places[start], places[start + len(wanted)]
        if first is not None and last is not None:
            yield first, last
        start = decomposed.find(wanted, start + 1)


@lru_cache(maxsize=1024)
def _decomposed(text: str) -> tuple[str, Sequence[int | None]]:
    """A text in NFD, and the places between combining sequences: where in NFD -> where in the text, or None."""
    pieces, places, start = list[str](), list[int | None]([0]), 0
    for end in range(1, len(text) + 1):
        if end == len(text) or not unicodedata.combining(text[end]):
            pieces.append(unicodedata.normalize("NFD", text[start:end]))
            places += [*[None] * (len(pieces[-1]) - 1), end]
            start = end
    return "".join(pieces), places
