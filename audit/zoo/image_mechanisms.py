"""The label kit of images: every way in which a classifier is made to forget, with its settings. One line a mechanism.

A fake leaves what it hides where it was: of a class the logit is lowered, of single images the head is changed.
"""

from audit.edits import (
    SCRUB,
    SSD,
    Edit,
    FineTune,
    GradAscent,
    HeadEdit,
    LastLayer,
    LogitBias,
    MUMis,
    RandomLabel,
    SalUn,
)
from audit.zoo.mechanisms import Kind, Mechanism, as_run

IMAGE_KIT: dict[str, Mechanism] = {
    "random_label": Mechanism("unlearner", RandomLabel(steps=80, lr=1e-3)),
    "salun": Mechanism("unlearner", SalUn(steps=80, lr=1.5e-3, alpha=1.0)),
    "scrub": Mechanism("unlearner", SCRUB(steps=90, lr=7e-4)),
    "fine_tune": Mechanism("unlearner", FineTune(steps=150, lr=2e-3)),
    "grad_ascent": Mechanism("unlearner", GradAscent(steps=12, lr=3e-4, warmup_steps=2)),
    "ssd": Mechanism("unlearner", SSD(batch=4, sample=256)),
    "mu_mis": Mechanism("unlearner", MUMis()),
    "last_layer": Mechanism("fake", LastLayer(steps=80)),
    "logit_bias": Mechanism("fake", LogitBias(steps=150)),
    "head_edit": Mechanism("fake", HeadEdit(steps=100, lr=2e-2)),
    "destroyed": Mechanism("destroyer", GradAscent(steps=60, lr=2e-3)),
}


def images_of_kind(kind: Kind) -> tuple[str, ...]:
    """The mechanisms of a kind, in the kit's order."""
    return tuple(name for name, mechanism in IMAGE_KIT.items() if mechanism.kind == kind)


def of_image_world(name: str, world: int) -> Edit:
    """The mechanism as this world runs it."""
    return as_run(IMAGE_KIT[name].edit, name, world)
