"""The models of the study: digits of which one class is to be forgotten, by every method; the language zoo's demos,
and models of its pools that never knew, for how often a test is wrong."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Final, NamedTuple

from audit.bench import Bench, train_one
from audit.case import CaseFile
from audit.edits import EditData, RandomLabel
from audit.pools import case_of, write_data
from audit.schema import Case, Checkpoint
from audit.storage import cache_root
from audit.zoo import (
    IMAGE_KIT,
    IMAGE_WORLDS,
    ImageDrawn,
    ImagePlan,
    ImageZoo,
    build,
    builder,
    draw,
    draw_images,
    image_population,
    make_world,
    of_image_world,
    one_thread,
    population,
    targets_of,
)

TARGETS: Final = 2
"""So many classes of every world are forgotten by every method."""
DEMO_WORLDS: Final = range(5)
SUPPRESSED: Final = ("logit_bias", "head_edit", "last_layer")
"""What lies above the edited block alone, so that the states up to it are base's."""
NEVER_SAW: Final = ("reference_0", "other_init")


class Subject(NamedTuple):
    """One audited model: where it belongs, what was done to it, and its case."""

    kind: str
    world: int
    target: str
    method: str
    case: Case
    root: Path

    @property
    def key(self) -> str:
        """Its place in the results."""
        return f"{self.kind}/{self.world}/{self.target}/{self.method}"


class EarlyBlock(RandomLabel):
    """Random labels that train the first block and nothing else: what changes lies before the block that is edited."""

    @property
    def name(self) -> str:
        return "early_block"

    def fit(self, bench: Bench, parent: Checkpoint, data: EditData, out: Path) -> Checkpoint:
        """Train the first block of a copy of ``parent``."""
        run = self.lesson(data, bench.open(parent).n_blocks)
        recipe = replace(run.recipe, trainable=r".*\.layers?\.0\..*")
        return train_one(bench.pool, parent, recipe, run.data, {recipe.steps: out})[0]


def worlds_of_images(architecture: str, count: int) -> tuple[ImageDrawn, ...]:
    """The first worlds of an architecture."""
    drawn = [draw_images(world) for world in IMAGE_WORLDS]
    return tuple([each for each in drawn if each.sizes.architecture == architecture][:count])


def images(drawn: ImageDrawn, work: Path) -> Iterator[Subject]:
    """Every method on the first targets of a world; models are made where they are missing."""
    zoo, world = image_population(drawn).zoo, drawn.world
    methods = {**{name: of_image_world(name, world) for name in IMAGE_KIT}, "early_block": EarlyBlock(seed=world)}
    targets = targets_of(drawn.dealt())[:TARGETS]
    plans = {plan.name: plan for plan in zoo.plans}
    for target in targets:
        for method, edit in methods.items():
            name = f"{method}.{target}"
            plans.setdefault(name, ImagePlan(name, "base", edit, on=target))
    every = ImageZoo(zoo.shape, zoo.sizes, tuple(plans.values()), zoo.suspects)
    root = cache_root() / "zoo"
    with one_thread():
        wanted = ["base", *(n for n in plans if n.partition(".")[2] in targets and "_of_others" not in n)]
        folders = {name: builder.make_model(every, world, root, name) for name in wanted}
    write_data(drawn.dealt(), work / "data")
    for target in targets:
        for method in ("base", *NEVER_SAW, *methods):
            case = case_of(f"{method}.{target}", world, folders, work)
            yield Subject(drawn.sizes.architecture, world, target, method, case, work)


def people(world: int) -> Iterator[Subject]:
    """The demo of the language zoo: fakes, honest unlearners, models that never knew."""
    built = build("demo", world, cache_root() / "zoo")
    for method, path in built.cases.items():
        read = CaseFile.read(path)
        yield Subject("language", world, "people", method, read.case, read.root)


def strangers(world: int, work: Path) -> Iterator[Subject]:
    """Models of a pool's world that never knew: one trained apart, and one that was made to forget other people."""
    census = population(draw(world))
    clean = [member.model for member in census.members if member.pool == "clean" and member.mechanism != "retrain"]
    others = [model for model in clean if model.endswith("_of_others")][:1]
    methods = {"reference_0": "reference_0", **{model: "made to forget others" for model in others}}
    root = cache_root() / "zoo"
    roles = {"base", "ancestor", "reference_1", "reference_2"}
    with one_thread():
        wanted = (
            roles | set(methods) | {plan.parent for plan in census.zoo.plans if plan.name in methods and plan.parent}
        )
        folders = {
            plan.name: builder.make_model(census.zoo, world, root, plan.name)
            for plan in census.zoo.plans
            if plan.name in wanted
        }
    write_data(make_world(world, draw(world).shape), work / "data")
    for model, method in methods.items():
        yield Subject("pools", world, "people", method, case_of(model, world, folders, work), work)
