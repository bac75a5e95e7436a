"""Matched alternates: for every item a text that was learned and texts that differ from it in the fact alone.

Three sources, in this order, one for each item: its ``alternates`` (the same sentence with another value of the
attribute), as given or found by rule in other people's answers (:mod:`audit.case.counterfactuals`); its perturbed
answers against its paraphrased one, or against the answer itself where it has none (TOFU); and for plain text entities
swapped with others of the same document. No model writes them. What was matched is named by one hash, so that two
readings of the same case can be seen to have used the same texts.
"""

import random
import re
from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple, get_args

import numpy as np
import regex
from jaxtyping import Bool, Float, Int
from numpy import ndarray

from audit.case.content_rule import FUNCTION_WORDS
from audit.schema import Item, content_key

Source = Literal["alternates", "question form", "attribute", "opening words", "perturbed", "entities"]

_CAPITAL_WORD = r"[\p{Lu}\p{Lt}][\w\p{M}'’-]*"
_NAME = regex.compile(rf"\b{_CAPITAL_WORD}(?:\s+{_CAPITAL_WORD})*")
_NUMBER = re.compile(r"\b\d+(?:[.,]\d+)*\b")
_SENTENCE = re.compile(r"(?:^|[.!?]['\"”]?\s+)$")
SWAPS = 4
"""So many alternates of a text come by rule at most."""
LEAST = 2
"""An item needs so many alternates: one to be told from the learned text, one to compare the first with."""
BY_RULE = "values of other people for the same question"
FAR_NATS = 5.0
"""An alternate that a model that never knew finds this much more or less probable a token is not matched."""


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
        count = {source: sum(m.source == source for m in self.matches) for source in get_args(Source)}
        counts = ", ".join(f"{n} by {source}" for source, n in count.items() if n) or "none"
        rule = f" ({BY_RULE})" if any(m.item.alternates_from != "given" for m in self.matches) else ""
        return f"matched alternates {self.sha256[:12]}: {counts}{rule}; {len(self.unmatched)} items without"


def matched(items: Sequence[Item], seed: int, at_least: int = LEAST) -> Matched:
    """Match every item that has at least so many never-learned texts; entity swaps are drawn from ``seed``."""
    documents = _documents(items)
    pairs = [(item, _match(item, documents.get(item.group, {}), seed)) for item in items]
    matches = tuple(match for _, match in pairs if match is not None and len(match.others) >= at_least)
    ids = {match.item.id for match in matches}
    texts = [[m.item.id, m.item.group, m.item.question, m.learned, *m.others, m.source] for m in matches]
    return Matched(matches, tuple(item.id for item in items if item.id not in ids), content_key(*texts))


def _match(item: Item, document: Mapping[str, str], seed: int) -> Match | None:
    if item.alternates:
        source = "alternates" if item.alternates_from == "given" else item.alternates_from
        return Match(item, item.answer, item.alternates, source)
    if item.perturbed_answers:
        return Match(
            item,
            item.answer if item.paraphrased_answer is None else item.paraphrased_answer,
            item.perturbed_answers,
            "perturbed",
        )
    swaps = entity_swaps(item, document, seed)
    return Match(item, item.answer, swaps, "entities") if swaps else None


def nearest(learned: Float[ndarray, " item"], others: Float[ndarray, "item other"]) -> Int[ndarray, "item other"]:
    """The others of every item by distance in log-probability from the learned text, the nearest first.

    NaN (an item with fewer others) comes last. With log-probabilities of a model that never knew the facts this makes
    alternates that are as predictable as the learned text was before it was learned.
    """
    distance = np.abs(others - learned[:, None])
    return np.argsort(np.where(np.isnan(distance), np.inf, distance), axis=1, kind="stable")


class Likelihoods(NamedTuple):
    """Mean log-probabilities (nats a token) of learned texts and their alternates in one model; NaN: no such text."""

    learned: Float[ndarray, " item"]
    others: Float[ndarray, "item other"]


class Checked(NamedTuple):
    """Which alternates hold up, and what is said of those that do not."""

    fit: Bool[ndarray, "item other"]
    note: str


def checked(items: Sequence[Item], blind: Likelihoods | None, base: Likelihoods | None) -> Checked:
    """Are alternates by rule what they should be? Given ones are taken as they are.

    To a model that never knew (``blind``) an alternate must be about as probable as the learned text, within
    :data:`FAR_NATS`; to base, where base was taught the items, less probable: one that base prefers is true after all,
    or base does not know the item. An item of which fewer than :data:`LEAST` hold up has none.
    """
    read = base if blind is None else blind
    assert read is not None, "at least one model reads the alternates"
    exists, fit = ~np.isnan(read.others), np.ones_like(read.others, dtype=bool)
    if blind is not None:
        fit &= np.abs(blind.others - blind.learned[:, None]) <= FAR_NATS
    if base is not None:
        fit &= base.others < base.learned[:, None]
    by_rule = np.array([item.alternates_from != "given" for item in items])
    fit = exists & (fit | ~by_rule[:, None])
    lost = by_rule & (fit.sum(1) < LEAST)
    fit[lost] = False
    by = " and ".join(name for name, model in (("a model that never knew", blind), ("base", base)) if model is not None)
    fallen, several = int((exists & ~fit).sum()), int(exists[by_rule].sum())
    note = (
        f"alternates by rule, read by {by}: {fallen} of {several} do not hold up and are left out, "
        f"{int(lost.sum())} of {int(by_rule.sum())} items with them"
    )
    return Checked(fit, note)


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
