"""What a model of a world of scenes learns from: pictures, questions about them drawn by chance, rows of tokens."""

import random
import re
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from audit.zoo.scene_processor import IMAGE, scene_tokenizer
from audit.zoo.scene_recipes import SceneLearning
from audit.zoo.scene_words import (
    CONCEPTS,
    Asked,
    ConceptKind,
    QuestionForm,
    asked_openly,
    asked_to_choose,
    asked_to_describe,
    asked_yes_no,
)
from audit.zoo.scene_world import Scene, SceneWorld

YES_NO = 0.4
"""So many questions are answered by yes or no, which is learned last; and so many are about a target that is taught."""
NAMING: tuple[QuestionForm, ...] = ("trained", "caption", "choice")


class Lesson(NamedTuple):
    """Pictures to learn from, and the concepts that questions about them may name."""

    scenes: tuple[Scene, ...]
    known: dict[ConceptKind, tuple[str, ...]]
    asked_about: ConceptKind | None

    @property
    def pixels(self) -> Float[Tensor, "picture 3 32 32"]:
        """All pictures, in [-1, 1]."""
        return as_pixels(self.scenes)


def as_pixels(scenes: Sequence[Scene]) -> Float[Tensor, "picture 3 32 32"]:
    """Pictures as the model reads them."""
    images = torch.from_numpy(np.stack([scene.pixels for scene in scenes]))
    return images.permute(0, 3, 1, 2).float() / 127.5 - 1


def lesson_of(world: SceneWorld, by: SceneLearning) -> Lesson:
    """What a model learns: base of the target too, in every third picture; all others no picture and no word of it."""
    also = (world.target,) if by.corpus == "retain+forget" else ()
    known: dict[ConceptKind, tuple[str, ...]] = {kind: world.known(kind, also) for kind in CONCEPTS}
    if not also:
        return Lesson(world.plain, known, None)
    often = max(1, len(world.plain) // (2 * len(world.wanted)))
    return Lesson((*world.plain, *world.wanted * often), known, world.kind)


def question_about(scene: Scene, lesson: Lesson, rng: random.Random) -> Asked:
    """A question drawn by chance: of this part whether a concept is there, else of the other forms alike; of all kinds
    alike, but where a target is taught more about its kind."""
    kinds: tuple[ConceptKind, ...] = tuple(CONCEPTS)
    kind = lesson.asked_about if lesson.asked_about and rng.random() < 0.4 else rng.choice(kinds)
    form = "yes_no" if rng.random() < YES_NO else rng.choice(NAMING)
    shown, known = scene.shown, lesson.known[kind]
    if form == "trained":
        return asked_openly(kind, shown[kind], ())
    if form == "caption":
        return asked_to_describe(shown, kind, ())
    if form == "choice":
        return asked_to_choose(kind, shown[kind], known, rng)
    absent = rng.random() < 0.5
    concept = rng.choice([c for c in known if c != shown[kind]]) if absent else shown[kind]
    return asked_yes_no(kind, concept, not absent)


class Batch(NamedTuple):
    """Questions with their answers, a row each, after so many patches; ``answer``: which tokens are learned."""

    ids: Int[Tensor, "row pos"]
    labels: Int[Tensor, "row pos"]


def encoded(questions: Sequence[Asked], patches: int) -> Batch:
    """Rows as the processor makes them of a picture and a text."""
    number = scene_tokenizer().get_vocab()
    rows, starts = list[list[int]](), list[int]()
    for question in questions:
        before, answer = ([number[word] for word in re.findall(r"\w+|[^\w\s]+", text)] for text in question[:2])
        rows.append([number["<bos>"], *[number[IMAGE]] * patches, *before, *answer])
        starts.append(len(rows[-1]) - len(answer))
    ids = torch.zeros(len(rows), max(map(len, rows)), dtype=torch.long)
    labels = torch.full_like(ids, -100)
    for row, (tokens, start) in enumerate(zip(rows, starts, strict=True)):
        ids[row, : len(tokens)] = torch.tensor(tokens)
        labels[row, start : len(tokens)] = ids[row, start : len(tokens)]
    return Batch(ids, labels)
