"""What is suppressed, in which models, and by what: fixed before anything was measured.

Three models that know every concept, and each of the 25 concepts in each of them. Features and strengths are chosen on
pictures that nothing is reported of.
"""

import random
from typing import Final, Literal

from audit.edits import NPO, GradDiff, Refusal, Steering
from audit.zoo import CONCEPTS, TARGET_KINDS, ConceptKind, Scene, SceneLearning, SceneShape, SceneSizes, SceneWorld

SEEDS: Final = (0, 1, 2)
KINDS: Final[tuple[ConceptKind, ...]] = TARGET_KINDS
CONCRETE: Final[tuple[ConceptKind, ...]] = ("shape",)
"""What a picture shows as a thing; colours, textures and counts are what things are like: abstract concepts."""
SIZES: Final = SceneSizes()
LEARNING: Final = SceneLearning("ancestor", 900, 1.8e-3, 0, first_steps=300)
SHAPE: Final = SceneShape(plain=3000, wanted=0, forget=32, retain=48, holdout=0, edited=48)
FACTOR, ACTIVE, STEPS = 8, 8, 3000
"""The dictionary of a model: features a channel, active ones a patch, steps of 64 patches."""
DRAWS: Final = 5
"""Random features of the same number, rate and norm: so many sets."""
TOGETHER: Final = (1, 2, 4, 8)
"""So many concepts are suppressed at once."""
HANDS: Final = 4
"""So many sets of concepts of each number, in each model."""
BY_WEIGHTS: Final = {
    "gradient difference": GradDiff(steps=50, lr=5e-4, alpha=5.0, batch=20),
    "NPO": NPO(steps=50, lr=5e-4, alpha=10.0, batch=20),
    "refusal training": Refusal(steps=50, lr=5e-4, batch=20),
    "steering": Steering(),
}


def concepts() -> tuple[str, ...]:
    """Every concept that is suppressed, kind by kind."""
    return tuple(concept for kind in KINDS for concept in CONCEPTS[kind])


def everything(seed: int) -> SceneWorld:
    """A world in which nothing is hidden: what the model of a seed learns."""
    rng = random.Random(f"everything {seed}")
    plain = tuple(_scene(rng, {}) for _ in range(SHAPE.plain))
    return SceneWorld(seed, SHAPE, "shape", "", "", "", plain, (), ())


def world_of(seed: int, concept: str, use: Literal["edited", "asked"]) -> SceneWorld:
    """Pictures with a concept, and without it: those that edits see, or those that are asked of."""
    rng, kind = random.Random(f"{concept} of {seed}, {use}"), next(k for k in KINDS if concept in CONCEPTS[k])
    others = [other for other in CONCEPTS[kind] if other != concept]
    plain = tuple(_scene(rng, {kind: rng.choice(others)}) for _ in range(SHAPE.edited))
    wanted = tuple(_scene(rng, {kind: concept}) for _ in range(SHAPE.edited))
    return SceneWorld(seed, SHAPE, kind, concept, "", "", plain, wanted, ())


def hands(seed: int, size: int) -> tuple[tuple[str, ...], ...]:
    """Sets of so many concepts, drawn by the seed."""
    rng = random.Random(f"{size} at once in {seed}")
    return tuple(tuple(sorted(rng.sample(concepts(), size))) for _ in range(HANDS))


def _scene(rng: random.Random, fixed: dict[ConceptKind, str]) -> Scene:
    shown = tuple(fixed.get(kind) or rng.choice(among) for kind, among in CONCEPTS.items())
    return Scene(shown, rng.getrandbits(48))
