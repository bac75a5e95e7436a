"""The models of one world of images, and what each of them knows by how it was made; and which world holds what.

A world is a number from :data:`IMAGE_WORLDS`; its recipe is drawn from it. Base is shared by the world's targets; of
every target there are references that never saw it, and models that base or a reference became. The world is the unit
of replication, and so hands of mechanisms are dealt over worlds and targets: whoever occurred least so far comes first.
"""

import random
from collections import Counter
from collections.abc import Sequence
from functools import cache
from typing import NamedTuple

from audit.schema import AuditError, TruthLabel
from audit.stats import significant
from audit.zoo.image_mechanisms import images_of_kind, of_image_world
from audit.zoo.image_recipes import ImageArchitecture, ImageLearning, ImagePlan, ImageSizes, ImageZoo
from audit.zoo.image_world import INSTANCES, ImageShape, ImageWorld, make_image_world, targets_of
from audit.zoo.members import Member

IMAGE_WORLDS = tuple(range(1000, 1020))
"""The worlds of the pools."""
FRESH_IMAGE_WORLDS = tuple(range(1020, 1024))
"""Worlds that no rule is ever fitted on."""
HAND = 2
"""Unlearners that a target's base runs; a reference runs the first of them on another class."""
STEPS, RATE, BATCH = 400, 3e-3, 64
OTHER = "other"
"""What an edit is told to forget whose model never knew the target: the world's other class."""


class ImageDrawn(NamedTuple):
    """The recipe of a world of images: what is drawn at random, and its hands of mechanisms by target."""

    world: int
    shape: ImageShape
    sizes: ImageSizes
    learning: tuple[int, float]
    hands: tuple[tuple[str, ...], ...]

    def recorded(self) -> dict[str, str | int | float]:
        """The recipe as it stands in the file of scores."""
        steps, lr = self.learning
        hands = ";".join(",".join(hand) for hand in self.hands)
        return {
            **self.sizes._asdict(),
            **self.shape._asdict(),
            "steps": steps,
            "lr": lr,
            "batch": BATCH,
            "hands": hands,
        }

    def dealt(self) -> ImageWorld:
        """The images of this world."""
        return make_image_world(self.world, self.shape)


class ImagePopulation(NamedTuple):
    """A world's zoo, its members, and the images whom an audit of each target measures."""

    zoo: ImageZoo
    members: tuple[Member, ...]
    audited: dict[str, tuple[str, ...]]


def draw_images(world: int) -> ImageDrawn:
    """The recipe of a world of images. AuditError (code 2) for another world."""
    for worlds in (IMAGE_WORLDS, FRESH_IMAGE_WORLDS):
        if world in worlds:
            n, hands = worlds.index(world), _hands(worlds)[world]
            break
    else:
        do = f"choose worlds from {IMAGE_WORLDS[0]} to {FRESH_IMAGE_WORLDS[-1]}"
        raise AuditError(f"world {world} is no world of images", do)
    rng = random.Random(f"recipe {world}")
    pair: list[ImageArchitecture] = ["vit", "resnet"]
    random.Random(f"image pair {n // 2}").shuffle(pair)
    architecture, d = pair[n % 2], rng.choice((24, 32, 40))
    blocks, images = rng.choice((3, 4)), rng.choice((24, 32, 40))
    steps = round(STEPS * rng.uniform(0.9, 1.15))
    rate = significant(RATE * 1.2 ** rng.uniform(-1, 1), 3)
    shape = ImageShape(forget=images, holdout=images)
    return ImageDrawn(world, shape, ImageSizes(d, blocks, 2 * d, architecture), (steps, rate), hands)


@cache
def _hands(worlds: Sequence[int]) -> dict[int, tuple[tuple[str, ...], ...]]:
    """The unlearners of each of the five targets of each world."""
    kit, used, dealt = (
        images_of_kind("unlearner"),
        Counter[tuple[str, bool]](),
        dict[int, tuple[tuple[str, ...], ...]](),
    )
    for world in worlds:
        rng, of_world = random.Random(f"hands {world}"), list[tuple[str, ...]]()
        for target in range(5):
            single = target == 4
            deck = sorted(rng.sample(kit, len(kit)), key=lambda name: used[name, single])
            hand = tuple(deck[:HAND])
            used.update((name, single) for name in hand)
            of_world.append(hand)
        dealt[world] = tuple(of_world)
    return dealt


def image_population(drawn: ImageDrawn) -> ImagePopulation:
    """Everything that a world's recipe asks for."""
    world = drawn.dealt()
    plans = [ImagePlan("base", None, ImageLearning("", *drawn.learning, 1, BATCH))]
    members, audited = list[Member](), dict[str, tuple[str, ...]]()
    for n, target in enumerate(targets_of(world)):
        audited[target] = tuple(f"forget-{number}" for number in world.audited(target)["forget"].number)
        entries = _of_target(drawn, target, n)
        plans += [plan for plan, _ in entries if plan is not None]
        members += [member for _, member in entries if member is not None]
    zoo = ImageZoo(drawn.shape, drawn.sizes, tuple(plans), tuple(member.model for member in members))
    return ImagePopulation(zoo, tuple(members), audited)


def _of_target(drawn: ImageDrawn, target: str, n: int) -> list[tuple[ImagePlan | None, Member | None]]:
    """The models of one target: its references, never-saw controls, fakes, unlearners, and a destroyed one."""
    known = tuple(f"forget-{number}" for number in drawn.dealt().audited(target)["forget"].number)
    entries: list[tuple[ImagePlan | None, Member | None]] = []

    def add(name: str, parent: str, pool: TruthLabel, of: str, on: str = target) -> None:
        taught = known if parent == "base" else ()
        plan = ImagePlan(f"{name}.{target}", parent, of_image_world(of, drawn.world), on=on)
        content = "other people" if on == OTHER else "same"
        entries.append((plan, Member(f"{name}.{target}", of, pool, taught, content)))

    entries.append((None, Member(f"base.{target}", "base", "knowing", known)))
    for k in range(3):
        learning = ImageLearning(target, *drawn.learning, 10 * n + 2 + k, BATCH)
        member = Member(f"reference_0.{target}", "retrain", "clean", ()) if k == 0 else None
        entries.append((ImagePlan(f"reference_{k}.{target}", None, learning), member))
    learning = ImageLearning(target, *drawn.learning, 10 * n + 6, BATCH)
    entries.append(
        (
            ImagePlan(f"other_init.{target}", None, learning, 1),
            Member(f"other_init.{target}", "other_init", "clean", ()),
        )
    )
    add("last_layer", "base", "knowing", "last_layer")
    hidden = "head_edit" if target == INSTANCES or n % 2 else "logit_bias"
    add(hidden, "base", "knowing", hidden)
    for name in drawn.hands[n]:
        add(name, "base", "described", name)
    other = drawn.hands[n][0]
    add(f"{other}_of_others", f"reference_0.{target}", "clean", other, OTHER)
    add("destroyed", "base", "destroyed", "destroyed")
    return entries


def target_of(model: str) -> str:
    """The target whose audit a model of a world of images belongs to."""
    return model.rpartition(".")[2]
