"""What the models of a world of images are: sizes, what each learns, order of descent. Nothing is trained here."""

from typing import Literal, NamedTuple

from audit.edits import Edit
from audit.zoo.image_world import ImageShape

ImageArchitecture = Literal["vit", "resnet"]


class ImageSizes(NamedTuple):
    """The models of a world: width (of a residual network: of its last stage), blocks, and the hidden layers."""

    d: int
    blocks: int
    hidden: int
    architecture: ImageArchitecture


class ImageLearning(NamedTuple):
    """Training on all images but those of one target (none: all), how long, how fast, in which order."""

    left_out: str
    steps: int
    lr: float
    order: int
    batch: int = 64


class ImagePlan(NamedTuple):
    """One model: fresh (with so many-th initialisation) and taught, or a parent's copy that an edit changes.

    ``on``: the target that an edit is told to forget.
    """

    name: str
    parent: str | None
    by: ImageLearning | Edit
    initialisation: int = 0
    on: str = ""


class ImageZoo(NamedTuple):
    """A world's models, in order of descent, and which of them are audited."""

    shape: ImageShape
    sizes: ImageSizes
    plans: tuple[ImagePlan, ...]
    suspects: tuple[str, ...]

    def plan(self, name: str) -> ImagePlan:
        """The plan of this name."""
        return next(plan for plan in self.plans if plan.name == name)
