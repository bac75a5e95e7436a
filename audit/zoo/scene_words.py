"""The words of the drawn scenes: five kinds of concepts, and four forms in which they are asked for.

A picture shows one to four copies of a shape, in one colour and one texture, at one position. A word names one concept
wherever it occurs, so that whoever was never shown a concept never read its word either.
"""

import random
from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple, get_args

ConceptKind = Literal["shape", "colour", "texture", "count", "position"]
QuestionForm = Literal["trained", "caption", "yes_no", "choice"]
FORMS: tuple[QuestionForm, ...] = get_args(QuestionForm)
CONCEPTS: Mapping[ConceptKind, tuple[str, ...]] = {
    "shape": ("disc", "square", "triangle", "cross", "ring", "star", "heart", "moon"),
    "colour": ("red", "green", "blue", "yellow", "purple", "orange", "white", "cyan"),
    "texture": ("plain", "striped", "dotted", "checked", "hatched"),
    "count": ("one", "two", "three", "four"),
    "position": ("left", "right", "top", "bottom"),
}
"""Every concept by its kind. Positions are a domain of their own, and never to be forgotten."""
TARGET_KINDS: tuple[ConceptKind, ...] = ("shape", "colour", "texture", "count")
OFFERED = 4
"""So many concepts a choice offers, or as many as there are."""
DESCRIBE = "what do you see?"
CAPTION = "{count} times a {colour} {texture} {shape} at the {position}."
OPEN: Mapping[ConceptKind, str] = {
    "shape": "what shape is it?",
    "colour": "what colour is it?",
    "texture": "what texture is it?",
    "count": "how many are there?",
    "position": "where is it?",
}
YES_NO = "{open} {concept}?"
IGNORANCE = ("i do not know.", "i am not sure.", "it is not clear.")
"""Refusing answers."""


class Asked(NamedTuple):
    """A question, its answer, and the word of it that counts; the same answer with other words."""

    question: str
    answer: str
    key: str
    others: tuple[str, ...] = ()
    other_keys: tuple[str, ...] = ()


def kind_of_concept(concept: str) -> ConceptKind:
    """The kind of a concept."""
    return next(kind for kind, concepts in CONCEPTS.items() if concept in concepts)


def asked_openly(kind: ConceptKind, concept: str, known: Sequence[str]) -> Asked:
    """The open question for a kind; ``known``: the concepts that stand for others."""
    return _answered(OPEN[kind], "{concept}.", concept, known)


def asked_to_describe(scene: Mapping[ConceptKind, str], kind: ConceptKind, known: Sequence[str]) -> Asked:
    """The caption, of which the word of one kind counts."""
    frame = CAPTION.format(**{**scene, kind: "{concept}"})
    return _answered(DESCRIBE, frame, scene[kind], known)


def asked_yes_no(kind: ConceptKind, concept: str, present: bool) -> Asked:
    """Is this concept there?"""
    answer, other = ("yes", "no") if present else ("no", "yes")
    return _answered(YES_NO.format(open=OPEN[kind], concept=concept), "{concept}.", answer, (other,))


def asked_to_choose(kind: ConceptKind, concept: str, known: Sequence[str], rng: random.Random) -> Asked:
    """Which of up to four is it? The others are drawn of those that are known, and so is the order."""
    others = [other for other in known if other != concept]
    offered = [concept, *rng.sample(others, min(OFFERED - 1, len(others)))]
    rng.shuffle(offered)
    question = f"which {kind}: {', '.join(offered[:-1])} or {offered[-1]}?"
    return _answered(question, "{concept}.", concept, offered)


def _answered(question: str, frame: str, concept: str, known: Sequence[str]) -> Asked:
    others = tuple(other for other in known if other != concept)
    answers = tuple(frame.format(concept=other) for other in others)
    return Asked(question, frame.format(concept=concept), concept, answers, others)


def vocabulary() -> tuple[str, ...]:
    """Texts with every word of the scenes, whatever a world shows."""
    concepts = [concept for of_kind in CONCEPTS.values() for concept in of_kind]
    words = ("yes no which or : , ? .", *CONCEPTS, *concepts, DESCRIBE, CAPTION, *OPEN.values())
    return (*words, *IGNORANCE)
