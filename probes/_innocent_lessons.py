"""Innocent lessons: rows for further training that state none of the forgotten facts."""

from collections.abc import Sequence
from difflib import SequenceMatcher
from typing import Final

from audit.probing import Item, OpenCase, Rows, Texts

RETAINED, SIMILAR, COMBINED, BENIGN = "retained", "similar", "combined", "benign"
LESSONS: Final = (RETAINED, SIMILAR, COMBINED, BENIGN)
GAP: Final = "_"
"""What stands for any words in the skeleton of a question that not several groups have in common."""


def lessons(case: OpenCase, few: int, most: int) -> dict[str, Rows]:
    """The rows of every lesson that this data can give, by name; at most ``most`` each, ``few`` benign ones.

    ``retained``: retained items as they are; ``similar``: of them the quarter whose questions are built most like the
    forgotten ones; ``combined``: retained items with a forgotten question put before their own; ``benign``: a few
    general texts. Forget answers are in none of them.
    """
    retain, forget, general = (_items(case, cohort) for cohort in ("retain", "forget", "general"))
    sets = {
        RETAINED: retain[:most],
        SIMILAR: alike(retain, forget, most) if retain and forget else (),
        COMBINED: combined(retain[:most], forget) if retain and forget else (),
        BENIGN: general[:few],
    }
    return {name: case.rows_of(items, [item.answer for item in items]) for name, items in sets.items() if items}


def _items(case: OpenCase, cohort: str) -> tuple[Item, ...]:
    """The trained items of a cohort, one of every group before a second of any."""
    texts = Texts.model_validate({"cohort": cohort})
    items = case.items(texts) if case.has(texts) else ()
    seen: dict[str, int] = {}
    turns = [seen.setdefault(item.group, 0) for item in items]
    for n, item in enumerate(items):
        turns[n] = seen[item.group]
        seen[item.group] += 1
    return tuple(items[n] for n in sorted(range(len(items)), key=lambda n: (turns[n], n)))


def common_words(items: Sequence[Item]) -> frozenset[str]:
    """The words (folded) that the questions about two groups or more have in common: they make the form."""
    groups: dict[str, set[str]] = {}
    for item in items:
        for word in _words(item.question):
            groups.setdefault(word, set()).add(item.group)
    return frozenset(word for word, label in groups.items() if len(label) > 1)


def _words(question: str) -> list[str]:
    return [word.strip(".,;:!?\"'()") for word in question.casefold().split()]


def skeleton(question: str, common: frozenset[str]) -> tuple[str, ...]:
    """A question's common words in their order, with a gap for whatever stands between two of them."""
    words: list[str] = []
    for word in _words(question):
        if word in common:
            words.append(word)
        elif not words or words[-1] != GAP:
            words.append(GAP)
    return tuple(words)


def alike(retain: Sequence[Item], forget: Sequence[Item], most: int) -> tuple[Item, ...]:
    """The quarter of the retained items (at most ``most``) whose questions' skeletons come nearest to a forgotten
    one's, by the share of words in common order (Ratcliff and Obershelp); of equal ones the first."""
    common = common_words(forget)
    prompted = tuple(dict.fromkeys(skeleton(item.question, common) for item in forget))
    near: dict[tuple[str, ...], float] = {}

    def nearness(item: Item) -> float:
        own = skeleton(item.question, common)
        if own not in near:
            near[own] = max(SequenceMatcher(None, own, other, autojunk=False).ratio() for other in prompted)
        return near[own]

    chosen = sorted(range(len(retain)), key=lambda n: (-nearness(retain[n]), n))[: min(most, -(-len(retain) // 4))]
    return tuple(retain[n] for n in sorted(chosen))


def combined(retain: Sequence[Item], forget: Sequence[Item]) -> tuple[Item, ...]:
    """Retained items that are asked for behind a forgotten question, whose answer is left out and is another one."""
    built: list[Item] = []
    for n, item in enumerate(retain):
        turned = (forget[(n + step) % len(forget)] for step in range(len(forget)))
        other = next((each for each in turned if _value(each) != _value(item)), None)
        if other is not None:
            prompted = f"{other.question} {item.question}".strip()
            built.append(item.model_copy(update={"id": f"{item.id}+{other.id}", "question": prompted}))
    return tuple(built)


def _value(item: Item) -> str:
    return (item.key or item.answer).casefold()
