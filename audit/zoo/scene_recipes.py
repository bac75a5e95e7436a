"""What the models of a world of scenes are: sizes, what each learns, order of descent. Nothing is trained here."""

from typing import Literal, NamedTuple

from audit.edits import Edit


class SceneShape(NamedTuple):
    """How many pictures: to learn from, without and with the target, and in every cohort of an audit;
    and how many of each an unlearner sees."""

    plain: int = 3000
    wanted: int = 600
    forget: int = 32
    retain: int = 48
    holdout: int = 32
    edited: int = 160


class SceneSizes(NamedTuple):
    """The models of a world: width and blocks of the vision tower and of the language model."""

    vision_d: int = 64
    vision_blocks: int = 4
    d: int = 64
    blocks: int = 3
    patch: int = 8


class SceneLearning(NamedTuple):
    """Training on pictures and questions about them: how long, how fast, in which order.

    ``first_steps``: so many batches teach a fresh vision tower to name what it sees, before the whole model learns.
    """

    corpus: Literal["ancestor", "retain", "retain+forget"]
    steps: int
    lr: float
    order: int
    pictures: int = 24
    asked: int = 4
    first_steps: int = 0


class ScenePlan(NamedTuple):
    """One model: fresh (with so many-th initialisation) or a parent's copy, and what is done to it.

    ``on``: the concept that an edit is told to forget: the target, or another.
    """

    name: str
    parent: str | None
    by: SceneLearning | Edit
    initialisation: int = 0
    on: Literal["target", "other"] = "target"


class SceneZoo(NamedTuple):
    """A world's models, in order of descent, and which of them are audited."""

    shape: SceneShape
    sizes: SceneSizes
    plans: tuple[ScenePlan, ...]
    suspects: tuple[str, ...]

    def plan(self, name: str) -> ScenePlan:
        """The plan of this name."""
        return next(plan for plan in self.plans if plan.name == name)
