r"""The words of a text in any script, by Unicode segmentation (UAX 29), as spans of code points.

A word is a run of letters and digits with all that combines with them: combining marks, joiners, soft hyphens between
two letters. Single connectors join such runs: the apostrophes, stop and hyphens that keep "o'clock", "3.5", "U.S" and
"well-known" whole in English, and what UAX 29 puts between two letters of one word (the middle dot of Catalan, the
gershayim of Hebrew). Other than UAX 29, a comma, a colon or an underscore parts words in every script, and the dot that
lists things in Korean does as well.

Thai, Lao, Khmer, Burmese, Chinese and Japanese put no space between words: there the breaks are those of ICU's
dictionaries, taken only beside a letter of such a script and never inside a grapheme cluster. ICU is loaded when the
first such letter is met.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Iterable
from itertools import pairwise
from unicodedata import combining, normalize

import regex

Span = tuple[int, int]

_LETTER = r"[\p{L}\p{N}]"
_MARK = r"[\p{WB=Extend}\p{WB=ZWJ}]"
_IGNORED = r"[\p{WB=Extend}\p{WB=ZWJ}\p{WB=Format}]"
_UNSPACED = r"[\p{Line_Break=Complex_Context}\p{Ideographic}\p{Script=Hiragana}\p{Script=Katakana}ー]"
_RUN = rf"\p{{GCB=Prepend}}*{_LETTER}++(?:{_IGNORED}++{_LETTER}++)*+{_MARK}*+"


def _between(kind: str, connector: str) -> str:
    """A connector that joins two characters of one kind."""
    return rf"(?<={kind}{_IGNORED}*){connector}(?={_IGNORED}*{kind})"


_POINTS = r"\u2018\u2024\ufe52\uff07\uff0e"
_UAX_CONNECTORS = (
    _between(r"[^\P{L}\p{Script=Hangul}]", rf"[\u00b7\u0387\u055f\u05f4\u2027{_POINTS}]"),
    _between(r"\p{N}", f"[{_POINTS}]"),
    _between(r"\p{WB=Hebrew_Letter}", '"'),
)
_CONNECTOR = rf"(?:['’.\-\u2010\u2011\u058a\u05be]|{'|'.join(_UAX_CONNECTORS)}){_IGNORED}*"
_RUNS = regex.compile(_RUN)
_WORDS = regex.compile(rf"{_RUN}(?:{_CONNECTOR}{_RUN})*+")
_ALL_LETTERS = regex.compile(rf"{_LETTER}++")
_UNSPACED_LETTER = regex.compile(_UNSPACED)
_BESIDE_UNSPACED = regex.compile(rf"(?<={_UNSPACED}{_IGNORED}*)|(?={_UNSPACED})")
_INVISIBLE = regex.compile(r"[\p{WB=Format}\u200c\u200d]")
_SURROGATE = regex.compile(r"[\ud800-\udfff]")


def words(text: str) -> tuple[Span, ...]:
    """The spans [start, end) of the words of a text, in code points and in order; none is empty, none overlap."""
    return _parted(text, _WORDS)


def runs(text: str) -> tuple[Span, ...]:
    """The spans of the parts of words between connectors: "well" and "known" of "well-known"."""
    return _parted(text, _RUNS)


def unspaced(text: str, place: int) -> bool:
    """Whether a letter of a script that puts no space between words stands before or after a place of the text."""
    return _BESIDE_UNSPACED.match(text, place) is not None


def clusters(text: str) -> frozenset[int]:
    """Where the grapheme clusters of a text (what a reader takes for one character) begin and end."""
    if text.isascii() and "\r\n" not in text:
        return frozenset(range(len(text) + 1))
    from icu4py.breakers import CharacterBreaker

    known = _well_formed(text)
    return _in_code_points(known, (end for _, end in CharacterBreaker(known, "root").segments()))


def folded(word: str) -> str:
    """A word as it is compared with another: canonically equal spellings are one, and so are upper and lower case.

    The dot of i is left out, for Turkish folds case otherwise; so are soft hyphens, joiners and direction marks.
    """
    if word.isascii():
        return word.casefold()
    decomposed = normalize("NFD", normalize("NFD", word).casefold()).replace("i\u0307", "i").replace("ı", "i")
    return normalize("NFC", _INVISIBLE.sub("", decomposed))


def unaccented(text: str) -> str:
    """A text without the marks that combine with its letters, compatibility forms resolved."""
    if text.isascii():
        return text
    return "".join(letter for letter in normalize("NFKD", text) if not combining(letter))


def _parted(text: str, pattern: "regex.Pattern[str]") -> tuple[Span, ...]:
    """Matches of a pattern, cut where the dictionaries see a word end."""
    matches = pattern.finditer(text)
    if not _UNSPACED_LETTER.search(text):
        return tuple(match.span() for match in matches)
    cuts, parts = _dictionary_cuts(text), list[Span]()
    for start, end in (match.span() for match in matches):
        places = [start, *cuts[bisect_right(cuts, start) : bisect_left(cuts, end)], end]
        for a, b in pairwise(places):
            # only what stands beside a connector has to be looked at again
            letters = _ALL_LETTERS.fullmatch(text, a, b)
            parts += [(a, b)] if letters else (part.span() for part in pattern.finditer(text, a, b))
    return tuple(parts)


def _dictionary_cuts(text: str) -> list[int]:
    """Where a word ends in a script without spaces, in code points."""
    from icu4py.breakers import WordBreaker

    known = _well_formed(text)
    ends = _in_code_points(known, (end for _, end in WordBreaker(known, "root").segments()))
    return [place for place in sorted(ends & clusters(text)) if _BESIDE_UNSPACED.match(text, place)]


def _in_code_points(text: str, ends: Iterable[int]) -> frozenset[int]:
    """ICU counts in units of UTF-16: a character beyond the first plane is two."""
    if text.isascii() or max(text) <= "\uffff":
        return frozenset((0, *ends))
    place, places = 0, dict[int, int]()
    for index, character in enumerate(text):
        places[place] = index
        place += 1 + (character > "\uffff")
    places[place] = len(text)
    return frozenset(places[end] for end in (0, *ends))


def _well_formed(text: str) -> str:
    """Half a character has no encoding: it is shown to ICU as an unknown one of the same length."""
    return _SURROGATE.sub("\ufffd", text)
