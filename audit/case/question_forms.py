"""Question forms by alignment: two questions ask the same thing of two groups if they differ in one name alone.

A question without the words that name its group is a skeleton; skeletons that questions of several groups share are
forms. No list of names is needed: a name is a run of words that few groups use, that stands in many questions of its
own group, and in whose place other groups have other words. Where groups ask in other words, the attribute that the
items state, or the opening words of the question with the shape of a short answer, stand for a form. No model is asked.
"""

from collections import Counter, defaultdict
from collections.abc import Hashable, Iterable, Sequence
from functools import lru_cache
from typing import Literal, NamedTuple

from audit.schema import Item
from audit.wording import runs

Kind = Literal["question form", "attribute", "opening words"]

LEAST_GROUPS = 3
"""A skeleton that fewer groups share is no form: one other person's value makes no choice of alternates."""
ENOUGH_GROUPS = 16
"""With so many groups a form has other values enough."""
LONGEST_NAME = 6
"""Words of a name, at most."""
FEW = 5
"""A word that names a group is used by at most a fifth of the groups; so few places to look make the search short."""
LITERAL = 2
"""So many words of a question must be left beside the name."""
MOST_NAMES = 3
SHORT_ANSWER = 4


class Word(NamedTuple):
    """A word or a sign; folded, and where it stands in its text."""

    folded: str
    begin: int
    end: int


class Form(NamedTuple):
    """What is the same in the questions of several groups. Equal keys are one form."""

    kind: Kind
    key: Hashable


class Reading(NamedTuple):
    """One way to read a question: its form, and the name in it as written (empty where it names nobody)."""

    form: Form
    name: str


@lru_cache(maxsize=1 << 14)
def words_of(text: str) -> tuple[Word, ...]:
    """The words of a text in their order, and between them every sign."""
    parts, at = list[Word](), 0
    for begin, end in (*runs(text), (len(text), len(text))):
        parts += [Word(text[n], n, n + 1) for n in range(at, begin) if not text[n].isspace()]
        parts += [Word(text[begin:end].casefold(), begin, end)] if end > begin else []
        at = end
    return tuple(parts)


def folded(words: Iterable[Word]) -> tuple[str, ...]:
    """The words alone."""
    return tuple(word.folded for word in words)


def spoken(word: str) -> bool:
    """Is it a word, and no sign?"""
    return any(character.isalnum() for character in word)


def readings(items: Sequence[Item]) -> tuple[tuple[Reading, ...], ...]:
    """How each item's question may be read, the most telling form first; empty for plain text.

    Depends on the set of items alone, not on their order.
    """
    aligned = _aligned(items)
    return tuple((*aligned[n], *_coarse(item)) if item.question.strip() else () for n, item in enumerate(items))


def _coarse(item: Item) -> list[Reading]:
    """Forms that need no alignment; they name nobody."""
    coarse: list[Reading] = []
    if item.attribute:
        coarse.append(Reading(Form("attribute", item.attribute), ""))
    opening, answer = folded(words_of(item.question))[:2], words_of(item.answer)
    if len(answer) <= SHORT_ANSWER:
        shape = tuple(_shape(item.answer[word.begin : word.end]) for word in answer)
        coarse.append(Reading(Form("opening words", (opening, shape)), ""))
    return coarse


def _shape(word: str) -> str:
    return "number" if word.isnumeric() else "sign" if not spoken(word) else "name" if word[0].isupper() else "word"


# ---- alignment --------------------------------------------------------------------------------------------------
class _Slot(NamedTuple):
    """A question with words [begin, end) taken out: the skeleton that is left, and what was taken."""

    skeleton: Hashable
    filler: tuple[str, ...]
    begin: int
    end: int


def _aligned(items: Sequence[Item]) -> list[list[Reading]]:
    """Per item the forms that its question has with others, best first, at most :data:`MOST_NAMES`."""
    words = [words_of(item.question) for item in items]
    slots = _slots(items, words)
    fillers: dict[Hashable, dict[str, set[tuple[str, ...]]]] = defaultdict(dict)
    for item, mine in zip(items, slots, strict=True):
        for slot in mine:
            fillers[slot.skeleton].setdefault(item.group, set()).add(slot.filler)
    forms = {skeleton for skeleton, by_group in fillers.items() if _is_form(by_group)}
    slots = [[slot for slot in mine if slot.skeleton in forms] for mine in slots]
    covered: dict[str, Counter[tuple[str, ...]]] = defaultdict(Counter)
    for item, mine in zip(items, slots, strict=True):
        covered[item.group].update({slot.filler for slot in mine})
    aligned: list[list[Reading]] = []
    for item, its, mine in zip(items, words, slots, strict=True):

        def rank(slot: _Slot, item: Item = item) -> tuple[object, ...]:
            # Where a name ends is uncertain: the shortest, so that no word of the question is taken with it; only
            # where few people share a part of it, and it stands in several questions, what most groups can replace.
            groups, often = len(fillers[slot.skeleton]), covered[item.group][slot.filler]
            short = often == 1 or groups >= ENOUGH_GROUPS
            width = (0, len(slot.filler), -groups) if short else (1, -groups, len(slot.filler))
            return bool(slot.filler), -often, *width, slot.begin

        best = sorted(mine, key=rank)[:MOST_NAMES]
        aligned.append([Reading(Form("question form", s.skeleton), _text(item.question, its, s)) for s in best])
    return aligned


def _text(question: str, words: Sequence[Word], slot: _Slot) -> str:
    return question[words[slot.begin].begin : words[slot.end - 1].end] if slot.end > slot.begin else ""


def _slots(items: Sequence[Item], words: Sequence[tuple[Word, ...]]) -> list[list[_Slot]]:
    """All ways to take a name, or nothing, out of each question.

    Beginnings and ends are numbered as they come (a trie each way), so that a skeleton is two numbers.
    """
    users: dict[str, set[str]] = defaultdict(set)
    for item, its in zip(items, words, strict=True):
        for word in its:
            users[word.folded].add(item.group)
    most = max(1, len({item.group for item in items}) // FEW)
    rare = {word for word, groups in users.items() if len(groups) <= most and spoken(word)}
    before: dict[tuple[int, str], int] = {}
    after: dict[tuple[int, str], int] = {}
    slots: list[list[_Slot]] = []
    for its in words:
        texts = folded(its)
        left, right, n = _chain(texts, before), _chain(texts[::-1], after), len(its)
        spans = [
            (a, b)
            for a in range(n) if texts[a] in rare
            for b in range(a + 1, min(a + LONGEST_NAME, n) + 1)
            if texts[b - 1] in rare and sum(map(spoken, texts[:a] + texts[b:])) >= LITERAL
        ]  # fmt: skip
        nobody = [_Slot(("whole", left[n]), (), 0, 0)] if n else []
        slots.append(nobody + [_Slot((left[a], right[n - b]), texts[a:b], a, b) for a, b in spans])
    return slots


def _chain(texts: Sequence[str], trie: dict[tuple[int, str], int]) -> list[int]:
    """The number of every beginning of a text, the empty one first."""
    numbers = [0]
    for text in texts:
        numbers.append(trie.setdefault((numbers[-1], text), len(trie) + 1))
    return numbers


def _is_form(fillers: dict[str, set[tuple[str, ...]]]) -> bool:
    """Do several groups share it, each with words of its own? Where too many fillers begin or end alike, a word of the
    question was taken for a part of the name."""
    if len(fillers) < LEAST_GROUPS:
        return False
    edges = (Counter(w for its in fillers.values() for w in {filler[at] for filler in its if filler}) for at in (0, -1))
    return all(max(words.values(), default=0) <= max(LEAST_GROUPS, len(fillers) // FEW) for words in edges)
