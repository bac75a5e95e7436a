"""The models of one world of scenes, and what each of them knows by how it was made; and which world holds what.

A world is a number from :data:`SCENE_WORLDS`; its recipe is drawn from it. Base and the references learn from one
ancestor, who never saw the target; no model ever saw the concept of the holdout. The world is the unit of replication.
"""

import random
from collections.abc import Sequence
from functools import cache
from typing import Literal, NamedTuple

from audit.schema import AuditError, TruthLabel
from audit.stats import significant
from audit.zoo.members import Member
from audit.zoo.scene_mechanisms import ALWAYS, of_scene_world, scenes_of_kind
from audit.zoo.scene_recipes import SceneLearning, ScenePlan, SceneShape, SceneSizes, SceneZoo
from audit.zoo.scene_world import SceneWorld, make_scene_world

SCENE_WORLDS = tuple(range(2000, 2020))
"""The worlds of the pools."""
FRESH_SCENE_WORLDS = tuple(range(2020, 2024))
"""Worlds that no rule is ever fitted on."""
OTHER_EVERY = 4
"""In every so many-th world a model of another initialisation is audited."""
HAND = 1
"""So many unlearners a world's base runs beside those that all run."""


class SceneDrawn(NamedTuple):
    """The recipe of a world of scenes: what is drawn at random, and its hand of mechanisms."""

    world: int
    shape: SceneShape
    sizes: SceneSizes
    ancestor: tuple[int, float]
    fork: tuple[int, float]
    hand: tuple[str, ...]

    def recorded(self) -> dict[str, str | int | float]:
        """The recipe as it stands in the file of scores."""
        dealt = self.dealt()
        learned = {"ancestor_steps": self.ancestor[0], "ancestor_lr": self.ancestor[1]}
        forked = {"steps": self.fork[0], "lr": self.fork[1], "hand": ",".join(self.hand), "kind": dealt.kind}
        return {**self.sizes._asdict(), **self.shape._asdict(), **learned, **forked}

    def dealt(self) -> SceneWorld:
        """The pictures of this world."""
        return make_scene_world(self.world, self.shape)


class ScenePopulation(NamedTuple):
    """A world's zoo, its members, and the pictures of which an audit asks."""

    zoo: SceneZoo
    members: tuple[Member, ...]
    audited: tuple[str, ...]


def draw_scenes(world: int) -> SceneDrawn:
    """The recipe of a world of scenes. AuditError (code 2) for another world."""
    for worlds in (SCENE_WORLDS, FRESH_SCENE_WORLDS):
        if world in worlds:
            hand = _hands(worlds)[world]
            break
    else:
        do = f"choose worlds from {SCENE_WORLDS[0]} to {FRESH_SCENE_WORLDS[-1]}"
        raise AuditError(f"world {world} is no world of scenes", do)
    rng = random.Random(f"recipe {world}")

    def varied(steps: int, lr: float) -> tuple[int, float]:
        return round(steps * rng.uniform(1.0, 1.1)), significant(lr * 1.1 ** rng.uniform(-1, 1), 3)

    pictures = rng.choice((24, 32, 40))
    shape = SceneShape(forget=pictures, holdout=pictures)
    return SceneDrawn(world, shape, SceneSizes(), varied(*ANCESTOR), varied(*FORK), hand)


@cache
def _hands(worlds: Sequence[int]) -> dict[int, tuple[str, ...]]:
    """The unlearners of each world beside those that all have: each as often as another."""
    kit = [name for name in scenes_of_kind("unlearner") if name not in ALWAYS]
    dealt = dict[int, tuple[str, ...]]()
    for n, world in enumerate(worlds):
        start = n * HAND
        dealt[world] = tuple(kit[(start + k) % len(kit)] for k in range(HAND))
    return dealt


def scene_population(drawn: SceneDrawn) -> ScenePopulation:
    """Everything that a world's recipe asks for."""
    everything = tuple(f"forget-{n:03d}" for n in range(drawn.shape.forget))
    entries = [*_roles(drawn, everything), *_edited(drawn, everything)]
    plans, members = tuple(plan for plan, _ in entries), tuple(member for _, member in entries if member is not None)
    zoo = SceneZoo(drawn.shape, drawn.sizes, plans, tuple(member.model for member in members))
    return ScenePopulation(zoo, members, everything)


# ---- who is made how --------------------------------------------------------------------------------------------
_Entry = tuple[ScenePlan, Member | None]


def _roles(drawn: SceneDrawn, everything: tuple[str, ...]) -> list[_Entry]:
    """The ancestors, base and the references; base and one reference are audited too, and never their own null."""

    def ancestor(name: str, order: int, initialisation: int = 0) -> _Entry:
        by = SceneLearning("ancestor", *drawn.ancestor, order, first_steps=FIRST)
        return ScenePlan(name, None, by, initialisation), None

    def fork(corpus: Literal["retain", "retain+forget"], order: int) -> SceneLearning:
        return SceneLearning(corpus, *drawn.fork, order)

    references = [ScenePlan(f"reference_{k}", "ancestor", fork("retain", 2 + k)) for k in range(3)]
    entries: list[_Entry] = [
        ancestor("ancestor", 0),
        (
            ScenePlan("base", "ancestor", fork("retain+forget", 1)),
            Member("base", "base", "knowing", everything),
        ),
        (references[0], Member("reference_0", "retrain", "clean", ())),
        *((reference, None) for reference in references[1:]),
    ]
    if drawn.world % OTHER_EVERY == 0:  # another ancestor costs as much as all else that is trained
        other = ScenePlan("other_init", "other_ancestor", fork("retain", 6))
        entries += [ancestor("other_ancestor", 1, 1), (other, Member("other_init", "other_init", "clean", ()))]
    return entries


def _edited(drawn: SceneDrawn, everything: tuple[str, ...]) -> list[_Entry]:
    """What was made to forget: base its target, a reference another concept."""
    entries: list[_Entry] = []

    def add(name: str, pool: TruthLabel, of: str, on: Literal["target", "other"] = "target") -> None:
        parent, taught = ("base", everything) if on == "target" else ("reference_0", ())
        plan = ScenePlan(name, parent, of_scene_world(of, drawn.world), on=on)
        entries.append((plan, Member(name, of, pool, taught, "same" if on == "target" else "other people")))

    for name in scenes_of_kind("fake"):
        add(name, "knowing", name)
    for name in (*ALWAYS, *drawn.hand):
        add(name, "described", name)
    for name in (ALWAYS[0], *drawn.hand):
        add(f"{name}_of_others", "clean", name, "other")
    add("destroyed", "destroyed", "destroyed")
    return entries


ANCESTOR, FORK, FIRST = (700, 1.8e-3), (150, 1.5e-3), 250
"""Steps and learning rates about which recipes are drawn; batches by which a fresh tower learns to see."""
