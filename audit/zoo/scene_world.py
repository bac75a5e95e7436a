"""A world of drawn scenes: one concept to be forgotten, one that nobody is shown, and pictures dealt by its number."""

import random
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, NamedTuple

from jaxtyping import UInt8
from numpy import ndarray
from PIL import Image

from audit.schema import Item
from audit.zoo.scene_drawing import picture
from audit.zoo.scene_recipes import SceneShape
from audit.zoo.scene_words import (
    CONCEPTS,
    TARGET_KINDS,
    Asked,
    ConceptKind,
    QuestionForm,
    asked_openly,
    asked_to_choose,
    asked_to_describe,
    asked_yes_no,
)
from audit.zoo.world import write_jsonl

COHORTS = ("forget", "retain", "holdout")


class Scene(NamedTuple):
    """What a picture shows, by kind in the order of :data:`CONCEPTS`, and the seed of what it does not say."""

    concepts: tuple[str, ...]
    seed: int

    @property
    def shown(self) -> dict[ConceptKind, str]:
        """The concept of each kind."""
        return dict(zip(CONCEPTS, self.concepts, strict=True))

    @property
    def pixels(self) -> UInt8[ndarray, "32 32 3"]:
        """The picture."""
        return picture(self.shown, self.seed)


class SceneWorld(NamedTuple):
    """What a number deals. ``other`` is a concept of the target's kind that models forget which never knew the target;
    ``unseen`` one that no model is shown. ``plain`` pictures show neither target nor unseen, all ``wanted`` the target.
    """

    number: int
    shape: SceneShape
    kind: ConceptKind
    target: str
    other: str
    unseen: str
    plain: tuple[Scene, ...]
    wanted: tuple[Scene, ...]
    never: tuple[Scene, ...]

    def known(self, kind: ConceptKind, also: Sequence[str] = ()) -> tuple[str, ...]:
        """The concepts of a kind that every model knows, and these."""
        hidden = {self.target, self.unseen} - set(also)
        return tuple(concept for concept in CONCEPTS[kind] if concept not in hidden)


def make_scene_world(number: int, shape: SceneShape) -> SceneWorld:
    """The world of a number. The kinds of targets take turns."""
    rng = random.Random(f"scenes {number}")
    kind = TARGET_KINDS[number % len(TARGET_KINDS)]
    target, other, unseen = rng.sample(CONCEPTS[kind], 3)
    known: dict[ConceptKind, list[str]] = {
        of: [concept for concept in concepts if concept not in (target, unseen)] for of, concepts in CONCEPTS.items()
    }

    def dealt(n: int, concept: str = "") -> tuple[Scene, ...]:
        def drawn() -> Scene:
            shown = [concept if concept and of == kind else rng.choice(among) for of, among in known.items()]
            return Scene(tuple(shown), rng.getrandbits(48))

        return tuple(drawn() for _ in range(n))

    plain, wanted, never = dealt(shape.plain), dealt(shape.wanted, target), dealt(shape.holdout, unseen)
    return SceneWorld(number, shape, kind, target, other, unseen, plain, wanted, never)


# ---- cohorts ----------------------------------------------------------------------------------------------------
def pictures_of(world: SceneWorld, cohort: str) -> tuple[Scene, ...]:
    """The pictures of a cohort. Those that are kept go without what clean models forget."""
    if cohort == "forget":
        return world.wanted[: world.shape.forget]
    if cohort == "holdout":
        return world.never[: world.shape.holdout]
    remaining = tuple(scene for scene in world.plain if scene.shown[world.kind] != world.other)
    return remaining[: world.shape.retain]


def scene_items(world: SceneWorld, cohort: str) -> tuple[Item, ...]:
    """The questions about a cohort's pictures, in all forms.

    Of pictures with the target, and with what nobody saw, that is asked for; of those that are kept the other kinds
    in turn, whether something absent is there as often as whether something present is, and whether the target is.
    """
    listed = [_Questions(world, f"{cohort}-{n:03d}", scene) for n, scene in enumerate(pictures_of(world, cohort))]
    if cohort == "retain":
        return tuple(item for n, questions in enumerate(listed) for item in questions.of_kept(n))
    return tuple(item for questions in listed for item in questions.all_forms(world.kind))


def edited_pictures(world: SceneWorld, on: Literal["target", "other"]) -> dict[str, tuple[Scene, ...]]:
    """The pictures that an unlearner sees: of what it is to forget, and of what it is to keep."""
    sizes, plain = world.shape, world.plain
    if on == "target":
        return {"forget": world.wanted[: sizes.edited], "retain": plain[: sizes.edited]}
    with_other = tuple(scene for scene in plain if scene.shown[world.kind] == world.other)
    without = tuple(scene for scene in plain if scene.shown[world.kind] != world.other)
    return {"forget": with_other[: sizes.edited], "retain": without[: sizes.edited]}


def edited_items(world: SceneWorld, on: Literal["target", "other"]) -> dict[str, tuple[Item, ...]]:
    """What an unlearner is told of its pictures: the open question alone of what it is to forget; of what it is to keep
    everything that was taught of two kinds, in all forms."""
    pictures = edited_pictures(world, on)
    forget, retain = (
        [_Questions(world, f"{cohort}-{n:03d}", scene) for n, scene in enumerate(pictures[cohort])]
        for cohort in ("forget", "retain")
    )
    retained = [item for n, questions in enumerate(retain) for item in questions.of_two(n)]
    return {
        "forget": tuple(questions.all_forms(world.kind)[0] for questions in forget),
        "retain": tuple(item.model_copy(update={"form": "trained"}) for item in retained),
    }


class _Questions:
    """Items about one picture."""

    def __init__(self, world: SceneWorld, group: str, scene: Scene) -> None:
        self.world, self.group, self.scene = world, group, scene
        self.rng = random.Random(f"{group} of world {world.number}")

    def _item(self, form: QuestionForm, concept: str, question: Asked) -> Item:
        fields = {
            "id": f"{self.group}-{form}-{concept}", "group": self.group, "image": image_file(self.group),
            "question": question.question, "answer": question.answer, "key": question.key,
            "alternates": question.others, "alternate_keys": question.other_keys, "attribute": concept, "form": form,
        }  # fmt: skip
        return Item.model_validate(fields)

    def yes_no(self, kind: ConceptKind, concept: str) -> Item:
        """Is this concept there?"""
        return self._item("yes_no", concept, asked_yes_no(kind, concept, self.scene.shown[kind] == concept))

    def all_forms(self, kind: ConceptKind) -> list[Item]:
        """What the picture shows of a kind, in all forms."""
        shown, known = self.scene.shown, self.world.known(kind)
        concept = shown[kind]
        return [
            self._item("trained", concept, asked_openly(kind, concept, known)),
            self._item("caption", concept, asked_to_describe(shown, kind, known)),
            self.yes_no(kind, concept),
            self._item("choice", concept, asked_to_choose(kind, concept, known, self.rng)),
        ]

    def of_two(self, n: int) -> list[Item]:
        """A kept picture's questions about two kinds, which take turns, and one about something absent."""
        kinds = list(CONCEPTS)
        first, second = kinds[n % len(kinds)], kinds[(n + 1 + n // len(kinds) % (len(kinds) - 1)) % len(kinds)]
        absent = self.rng.choice([c for c in self.world.known(first) if c != self.scene.shown[first]])
        return [*self.all_forms(first), *self.all_forms(second), self.yes_no(first, absent)]

    def of_kept(self, n: int) -> list[Item]:
        """The same, and whether the target is there, which it is not."""
        return [*self.of_two(n), self.yes_no(self.world.kind, self.world.target)]


def image_file(group: str) -> str:
    """Where the picture of a group lies, beside the cohorts."""
    return f"pictures/{group}.png"


def write_scenes(world: SceneWorld, folder: Path) -> None:
    """Write the cohorts of an audit as JSONL files and their pictures as PNG."""
    for cohort in COHORTS:
        write_cohort(folder, cohort, pictures_of(world, cohort), scene_items(world, cohort))


def write_cohort(folder: Path, cohort: str, scenes: Sequence[Scene], items: tuple[Item, ...]) -> None:
    """Write one cohort; the pictures' groups are numbered as they stand."""
    (folder / "pictures").mkdir(parents=True, exist_ok=True)
    for n, scene in enumerate(scenes):
        Image.fromarray(scene.pixels).save(folder / image_file(f"{cohort}-{n:03d}"))
    write_jsonl(folder / f"{cohort}.jsonl", items)
