"""Matched alternates: for every item a text that was learned and texts that differ from it in the fact alone.

Three sources, in this order, one for each item: its own ``alternates`` (the same sentence with another value of the
attribute), its perturbed answers against its paraphrased one (TOFU), and for plain text entities swapped with others of
the same document. No model writes them. What was matched is named by one hash, so that two readings of the same case
can be seen to have used the same texts.
"""

import random
import re
from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple

import numpy as np
import regex
from jaxtyping import Float, Int
from numpy import ndarray

from audit.case.content_rule import FUNCTION_WORDS
from audit.schema import Item, content_key

Source = Literal["alternates", "perturbed", "entities"]

_CAPITAL_WORD = r"[\p{Lu}\p{Lt}][\w\p{M}'’-]*"
_NAME = regex.compile(rf"\b{_CAPITAL_WORD}(?:\s+{_CAPITAL_WORD})*")
_NUMBER = re.compile(r"\b\d+(?:[.,]\d+)*\b")
_SENTENCE = re.compile(r"(?:^|[.!?]['\"”]?\s+)$")
SWAPS = 4
"""So many entity swaps are made of a text at most."""


class Match(NamedTuple):
    """One item: the text that was learned, texts that never were (two at least), and where these come from.

    ``item`` has the texts among its own answers, so that the content rule knows their keys.
    """

    item: Item
    learned: str
    others: tuple[str, ...]
    source: Source


class Matched(NamedTuple):
    """All matches of some items, the items that have none, and the hash of every text."""

    matches: tuple[Match, ...]
    unmatched: tuple[str, ...]
    sha256: str

    def said(self) -> str:
        """The matches in a line."""
        count = {s: sum(m.source == s for m in self.matches) for s in ("alternates", "perturbed", "entities")}
        counts = ", ".join(f"{n} by {source}" for source, n in count.items() if n) or "none"
        return f"matched alternates {self.sha256[:12]}: {counts}; {len(self.unmatched)} items without"


def matched(items: Sequence[Item], seed: int, at_least: int = 2) -> Matched:
    """Match every item that has at least so many never-learned texts; entity swaps are drawn from ``seed``."""
    documents = _documents(items)
    pairs = [(item, _match(item, documents.get(item.group, {}), seed)) for item in items]
    matches = tuple(match for _, match in pairs if match is not None and len(match.others) >= at_least)
    ids = {match.item.id for match in matches}
    texts = [[m.item.id, m.item.group, m.item.question, m.learned, *m.others, m.source] for m in matches]
    return Matched(matches, tuple(item.id for item in items if item.id not in ids), content_key(*texts))


def _match(item: Item, document: Mapping[str, str], seed: int) -> Match | None:
    if item.alternates:
        return Match(item, item.answer, item.alternates, "alternates")
    if item.perturbed_answers and item.paraphrased_answer is not None:
        return Match(item, item.paraphrased_answer, item.perturbed_answers, "perturbed")
    swaps = entity_swaps(item, document, seed)
    return Match(item, item.answer, swaps, "entities") if swaps else None


def nearest(learned: Float[ndarray, " item"], others: Float[ndarray, "item other"]) -> Int[ndarray, "item other"]:
    """The others of every item by distance in log-probability from the learned text, the nearest first.

    NaN (an item with fewer others) comes last. With log-probabilities of a model that never knew the facts this makes
    alternates that are as predictable as the learned text was before it was learned.
    """
    distance = np.abs(others - learned[:, None])
    return np.argsort(np.where(np.isnan(distance), np.inf, distance), axis=1, kind="stable")


# ---- entities ---------------------------------------------------------------------------------------------------
def _documents(items: Sequence[Item]) -> dict[str, dict[str, str]]:
    """The entities of every group's texts and their kind (name or number)."""
    by_group: dict[str, dict[str, str]] = {}
    for item in items:
        if not item.alternates and not item.perturbed_answers:
            by_group.setdefault(item.group, {}).update({e: kind for e, kind, _ in _entities(item.answer)})
    return by_group


def _entities(text: str) -> list[tuple[str, str, int]]:
    """Names and numbers in a text, and where they begin; a capital that begins a sentence makes no name."""
    entities: list[tuple[str, str, int]] = []
    for match in _NAME.finditer(text):
        words, begin = match.group(), match.start()
        if _SENTENCE.search(text[:begin]) or words.casefold() in FUNCTION_WORDS:
            first, _, words = words.partition(" ")
            begin += len(first) + 1
        if words.strip():
            entities.append((words, "name", begin))
    return entities + [(match.group(), "number", match.start()) for match in _NUMBER.finditer(text)]


def entity_swaps(item: Item, document: Mapping[str, str], seed: int) -> tuple[str, ...]:
    """The item's answer with one of its entities replaced by another of the same kind from the same document.

    At most :data:`SWAPS` different texts; empty where the document has no other entity of a kind.
    """
    mine = _entities(item.answer)
    inside = {entity for entity, _, _ in mine}
    pairs = [
        (entity, begin, other)
        for entity, kind, begin in mine
        for other, its in sorted(document.items())
        if its == kind and other not in inside and other not in item.question
    ]
    random.Random(f"{seed} {item.id}").shuffle(pairs)
    swapped = (item.answer[:begin] + other + item.answer[begin + len(entity) :] for entity, begin, other in pairs)
    return tuple(dict.fromkeys(swapped))[:SWAPS]
