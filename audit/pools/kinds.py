"""The kinds of models of known truth: which worlds they have, where their scores go, and how a world is audited.

A world's number says its kind. What scores worlds asks here for all that differs; the unit of replication is the world.
"""

import random
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from audit.calibration import Kind, stored, zoo_floors
from audit.plugins import folder
from audit.schema import Case, DataFiles, Modality, Roles, Source
from audit.storage import cache_root
from audit.zoo import (
    FRESH_IMAGE_WORLDS,
    FRESH_SCENE_WORLDS,
    FRESH_WORLDS,
    IMAGE_WORLDS,
    POOL_WORLDS,
    SCENE_WORLDS,
    Drawn,
    ImageDrawn,
    ImagePopulation,
    ImageWorld,
    Member,
    Population,
    SceneDrawn,
    ScenePopulation,
    SceneWorld,
    World,
    draw,
    draw_images,
    draw_scenes,
    general_items,
    image_population,
    items,
    items_about,
    make_world,
    others,
    population,
    scene_population,
    target_of,
    targets_of,
    write_images,
    write_jsonl,
    write_scenes,
)

AnyDrawn = Drawn | ImageDrawn | SceneDrawn
Census = Population | ImagePopulation | ScenePopulation
TEXT_DATA = ("forget", "retain", "holdout", "general")
IMAGE_DATA = SCENE_DATA = ("forget", "retain", "holdout")
BASE = "base"
TEXT_ROLES = ("base", "reference_1", "reference_2", "ancestor")


SOME_WORLDS = {"trigger_search": 6}
"""Probes that are measured in so many of a kind's worlds alone, and are calibrated by these: a search costs as much as
all other probes together."""
SAYS_NOTHING: Mapping[Kind, tuple[str, ...]] = {"vision_language": ("relearning_recovery",)}
"""Probes that say nothing of a kind's worlds, and are not asked there: pictures of one concept teach each other."""


def measures(probe: str, world: int) -> bool:
    """Is the probe measured in this world? A fixed part of the worlds, drawn by the probe's name, where it is in some.

    Worlds that no rule is fitted on are measured like the part that rules are fitted on.
    """
    kind = kind_of(world)
    if probe in SAYS_NOTHING.get(kind.kind, ()):
        return False
    if probe not in SOME_WORLDS:
        return True
    for worlds in (kind.worlds, kind.fresh):
        if world in worlds:
            return world in random.Random(f"worlds of {probe}").sample(worlds, min(SOME_WORLDS[probe], len(worlds)))
    return False


class PoolKind(NamedTuple):
    """One kind: the worlds that rules are fitted on, those that none is, and the study beside which scores lie."""

    kind: Kind
    modality: Modality
    worlds: tuple[int, ...]
    fresh: tuple[int, ...]
    study: str

    @property
    def scores(self) -> Path:
        """Beside the study in a checkout of the repository; an installed package keeps what it scores in the cache."""
        home = folder("probes").parent / "studies" / self.study
        cached = cache_root() / "pools" / ("scores" if self.kind == "causal_lm" else f"scores-{self.kind}")
        return home / "scores" if home.is_dir() else cached


KINDS: Mapping[Kind, PoolKind] = {
    "causal_lm": PoolKind("causal_lm", "text", POOL_WORLDS, FRESH_WORLDS, "zoo"),
    "image_classifier": PoolKind("image_classifier", "image", IMAGE_WORLDS, FRESH_IMAGE_WORLDS, "vision_zoo"),
    "vision_language": PoolKind(
        "vision_language", "image+text", SCENE_WORLDS, FRESH_SCENE_WORLDS, "vision_language_zoo"
    ),
}


def of_images(world: int) -> bool:
    """Is this the number of a world of images?"""
    return world in IMAGE_WORLDS or world in FRESH_IMAGE_WORLDS


def of_scenes(world: int) -> bool:
    """Is this the number of a world of scenes?"""
    return world in SCENE_WORLDS or world in FRESH_SCENE_WORLDS


def kind_of(world: int) -> PoolKind:
    """The kind of a world's models."""
    if of_scenes(world):
        return KINDS["vision_language"]
    return KINDS["image_classifier" if of_images(world) else "causal_lm"]


def floors_of(world: int) -> dict[str, float]:
    """The floors by which audits of a world of this kind judge where they measure none."""
    return zoo_floors(stored(kind_of(world).modality))


def drawn_of(world: int) -> AnyDrawn:
    """The recipe of a world of any kind. AuditError (code 2) where there is no such world."""
    if of_scenes(world):
        return draw_scenes(world)
    return draw_images(world) if of_images(world) else draw(world)


def census_of(drawn: AnyDrawn) -> Census:
    """Everything that a world's recipe asks for."""
    if isinstance(drawn, SceneDrawn):
        return scene_population(drawn)
    return image_population(drawn) if isinstance(drawn, ImageDrawn) else population(drawn)


# ---- audits -----------------------------------------------------------------------------------------------------
class Audience(NamedTuple):
    """The members that are audited together: by the same roles, on the same data; base comes first."""

    target: str
    members: tuple[Member, ...]
    audited: tuple[str, ...]


def audiences(census: Census, members: Sequence[Member]) -> tuple[Audience, ...]:
    """These members by what is to be forgotten: where a world has one target all together."""
    if not isinstance(census, ImagePopulation):
        return (Audience("", _base_first(members), census.audited),)
    targets = dict.fromkeys(target_of(member.model) for member in members)
    return tuple(
        Audience(target, _base_first([m for m in members if target_of(m.model) == target]), census.audited[target])
        for target in targets
    )


def _base_first(members: Sequence[Member]) -> tuple[Member, ...]:
    return tuple(sorted(members, key=lambda member: member.mechanism != BASE))


def roles_of(model: str, world: int) -> dict[str, str]:
    """The models by which this one is audited, by role, and itself; reference_1 is the null, reference_2 the floor."""
    if not of_images(world):
        return {role: role for role in TEXT_ROLES} | {"suspect": model}
    target = target_of(model)
    references = {name: f"{name}.{target}" for name in ("reference_1", "reference_2")}
    return {"base": BASE, **references, "suspect": BASE if model == f"{BASE}.{target}" else model}


def case_of(model: str, world: int, folders: Mapping[str, Path], work: Path) -> Case:
    """The audit of one model. reference_0 is audited, and never a role."""
    roles = roles_of(model, world)

    def source(role: str) -> Source:
        return Source(path=str(folders[roles[role]]))

    references = tuple(source(f"reference_{k}") for k in (1, 2))
    ancestor = source("ancestor") if "ancestor" in roles else None
    cast = Roles(base=source("base"), suspect=source("suspect"), references=references, ancestor=ancestor)
    if of_images(world):
        files = {cohort: str(work / "data" / target_of(model) / f"{cohort}.npz") for cohort in IMAGE_DATA}
    else:
        cohorts = SCENE_DATA if of_scenes(world) else TEXT_DATA
        files = {cohort: str(work / "data" / f"{cohort}.jsonl") for cohort in cohorts}
    return Case(name=model, roles=cast, data=DataFiles.model_validate({**files, "split_seed": world}), seed=world)


def dealt(drawn: AnyDrawn) -> World | ImageWorld | SceneWorld:
    """The world of a recipe: what there is to know."""
    return make_world(drawn.world, drawn.shape) if isinstance(drawn, Drawn) else drawn.dealt()


def write_data(world: World | ImageWorld | SceneWorld, folder: Path) -> None:
    """The cohorts of every audit of a world; of images a folder for each target."""
    if isinstance(world, World):
        _write_texts(world, folder)
    elif isinstance(world, SceneWorld):
        write_scenes(world, folder)
    else:
        _write_images(world, folder)


def _write_texts(world: World, folder: Path) -> None:
    """The retained people go without those whom clean models forget."""
    folder.mkdir(parents=True, exist_ok=True)
    excluded = {person.id for person in others(world)}
    retained = tuple(person for person in world.people["retain"] if person.id not in excluded)
    for cohort in ("forget", "holdout"):
        write_jsonl(folder / f"{cohort}.jsonl", items(world, cohort))
    write_jsonl(folder / "retain.jsonl", items_about(world, retained))
    write_jsonl(folder / "general.jsonl", general_items(world))


def _write_images(world: ImageWorld, folder: Path) -> None:
    for target in targets_of(world):
        (folder / target).mkdir(parents=True, exist_ok=True)
        for cohort, images in world.audited(target).items():
            write_images(folder / target / f"{cohort}.npz", cohort, images)
