"""The label kit: every way in which a model of the pools is made to forget, with its settings. One line a mechanism.

Settings are chosen so that in most worlds of both architectures recall of the forget facts on the trained form falls to
the never-trained level while the retained facts stay; the README has the recall that they leave. A world varies the
learning rate (:func:`of_world`), so that a mechanism is no single point. A line that is added says ``later=True``.
"""

import random
from typing import Literal, NamedTuple

from audit.edits import (
    NPO,
    RMU,
    SSD,
    Edit,
    GradAscent,
    GradDiff,
    HeadEdit,
    KLMin,
    LastLayer,
    LogitBias,
    Projected,
    RandomLabel,
    Refusal,
    RefusalDPO,
    SalUn,
    SimNPO,
    TaskVector,
    UnDIAL,
    WeightedAscent,
)
from audit.stats import significant

Kind = Literal["unlearner", "fake", "destroyer"]
RATE_SPREAD = 1.25


class Mechanism(NamedTuple):
    """One mechanism: ``unlearner`` (drawn by worlds), ``fake`` (leaves the knowledge where it is) or ``destroyer``.

    ``later``: it came when worlds had been dealt, and has slots of its own beside them (:func:`pool_design.slots`).
    """

    kind: Kind
    edit: Edit
    later: bool = False


KIT: dict[str, Mechanism] = {
    "grad_diff": Mechanism("unlearner", GradDiff(steps=80, lr=1e-3, alpha=5.0, batch=32)),
    "npo": Mechanism("unlearner", NPO(steps=80, lr=1e-3, alpha=10.0, batch=32)),
    "refusal": Mechanism("unlearner", Refusal(steps=80, lr=1e-3, batch=32)),
    "random_label": Mechanism("unlearner", RandomLabel(batch=32)),
    "kl_min": Mechanism("unlearner", KLMin(batch=32)),
    "simnpo": Mechanism("unlearner", SimNPO(batch=32)),
    "refusal_dpo": Mechanism("unlearner", RefusalDPO(steps=70, lr=1.5e-3, batch=32)),
    "weighted_ascent": Mechanism("unlearner", WeightedAscent(batch=32)),
    "undial": Mechanism("unlearner", UnDIAL(batch=32)),
    "early_ascent": Mechanism("unlearner", GradAscent(steps=16, lr=1e-3, batch=32, warmup_steps=2)),
    "rmu_shallow": Mechanism("unlearner", RMU(layer=0.0, alpha=10.0, lr=2e-3, batch=32)),
    "rmu_deep": Mechanism("unlearner", RMU(layer=0.75, alpha=10.0, lr=2e-3, batch=32)),
    "ssd": Mechanism("unlearner", SSD(batch=4, sample=256)),
    "salun": Mechanism("unlearner", SalUn(steps=80, lr=1.5e-3, alpha=1.0, batch=32)),
    "task_vector": Mechanism("unlearner", TaskVector(scale=2.5, batch=32)),
    "projected": Mechanism("unlearner", Projected(batch=32)),
    "last_layer": Mechanism("fake", LastLayer(batch=32)),
    "head_edit": Mechanism("fake", HeadEdit(steps=100, lr=6e-3)),
    "logit_bias": Mechanism("fake", LogitBias(steps=60)),
    "destroyed": Mechanism("destroyer", GradAscent(batch=32)),
}


def of_kind(kind: Kind) -> tuple[str, ...]:
    """The mechanisms of a kind, in the kit's order."""
    return tuple(name for name, mechanism in KIT.items() if mechanism.kind == kind)


def founding(kind: Kind) -> tuple[str, ...]:
    """The mechanisms of a kind that the worlds were dealt with."""
    return tuple(name for name in of_kind(kind) if not KIT[name].later)


def later(kind: Kind) -> tuple[str, ...]:
    """The mechanisms of a kind that came when the worlds had been dealt."""
    return tuple(name for name in of_kind(kind) if KIT[name].later)


def has_kind(name: str, kind: Kind) -> bool:
    """Is the mechanism of this kind?"""
    return KIT[name].kind == kind


def of_world(name: str, world: int) -> Edit:
    """The mechanism as this world runs it."""
    return as_run(KIT[name].edit, name, world)


def as_run(edit: Edit, name: str, world: int) -> Edit:
    """A kit's edit with a world's own seed, and a learning rate up to a quarter higher or lower."""
    rng = random.Random(f"{name} in world {world}")
    drawn: dict[str, int | float] = {}
    if "seed" in type(edit).model_fields:
        drawn["seed"] = world
    rate = getattr(edit, "lr", None)
    if isinstance(rate, float):
        drawn["lr"] = significant(rate * RATE_SPREAD ** rng.uniform(-1, 1), 3)
    return edit.model_copy(update=drawn)
