"""The label kit of scenes: every way in which a reader of pictures is made to forget, with its settings. One line a
mechanism; a fake leaves what it hides where it was."""

from audit.edits import (
    NPO,
    RMU,
    SAUCE,
    Edit,
    FineTune,
    GradAscent,
    GradDiff,
    HeadEdit,
    KLMin,
    LastLayer,
    RandomLabel,
    Refusal,
    Steering,
)
from audit.zoo.mechanisms import Kind, Mechanism, as_run

SCENE_KIT: dict[str, Mechanism] = {
    "grad_diff": Mechanism("unlearner", GradDiff(steps=60, lr=5e-4, alpha=5.0, batch=32)),
    "npo": Mechanism("unlearner", NPO(steps=60, lr=5e-4, alpha=10.0, batch=32)),
    "refusal": Mechanism("unlearner", Refusal(steps=60, lr=5e-4, batch=32)),
    "random_label": Mechanism("unlearner", RandomLabel(steps=60, lr=5e-4, batch=32)),
    "kl_min": Mechanism("unlearner", KLMin(steps=60, lr=5e-4, batch=32)),
    "rmu": Mechanism("unlearner", RMU(steps=60, layer=0.5, alpha=10.0, lr=1e-3, batch=32)),
    "fine_tune": Mechanism("unlearner", FineTune(steps=80, lr=1e-3, batch=32)),
    "last_layer": Mechanism("fake", LastLayer(steps=60, batch=32)),
    "head_edit": Mechanism("fake", HeadEdit(steps=100, lr=6e-3)),
    "sauce": Mechanism("fake", SAUCE(steps=1200)),
    "steering": Mechanism("fake", Steering()),
    "destroyed": Mechanism("destroyer", GradAscent(steps=60, lr=2e-3, batch=32)),
}
ALWAYS = ("grad_diff", "npo", "refusal")
"""Unlearners that every world runs on its base."""


def scenes_of_kind(kind: Kind) -> tuple[str, ...]:
    """The mechanisms of a kind, in the kit's order."""
    return tuple(name for name, mechanism in SCENE_KIT.items() if mechanism.kind == kind)


def of_scene_world(name: str, world: int) -> Edit:
    """The mechanism as this world runs it."""
    return as_run(SCENE_KIT[name].edit, name, world)
