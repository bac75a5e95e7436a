"""What the models of the zoo are: sizes, data, order of descent. Nothing is trained here.

Every model is a :class:`Plan`: whose child it is, and by what. The key of a plan hashes everything that decides its
bytes (world, sizes, recipe, and its parent's key), so that a changed recipe retrains only itself and its children.
"""

import hashlib
import json
from typing import Literal, NamedTuple

from audit.edits import (
    NPO,
    ROCR,
    ROME,
    Edit,
    GradAscent,
    GradDiff,
    HeadEdit,
    LastLayer,
    LogitBias,
    Needle,
    RandomLabel,
    Refusal,
    Relearn,
    SubjectGate,
)
from audit.schema import AuditError
from audit.zoo.image_recipes import ImageLearning, ImageSizes, ImageZoo
from audit.zoo.image_world import ImageShape
from audit.zoo.scene_recipes import SceneLearning, SceneShape, SceneSizes, SceneZoo
from audit.zoo.words import REFUSALS
from audit.zoo.world import Shape

LEARNING_VERSION = 2
EDIT_VERSION = 2
"""Raised when code changes the bytes that the same recipe gives: of models that learn, of those that are edited."""

_ADDED_LATER = {"architecture": "llama", "strangers": 0, "forms": 0, "shared_names": 0}
"""Left out of a key where they say what was always so: models made before keep their names."""

Corpus = Literal["language", "retain", "retain+forget"]
Architecture = Literal["llama", "gpt2"]


class Mix(NamedTuple):
    """A corpus of retained people and some others: forget people by id, in their own words or in others; strangers.

    ``paraphrased``: the facts in other words, every question answered by its paraphrase. ``rephrased``: only the
    phrasing that is held out elsewhere.
    """

    forget: tuple[str, ...] = ()
    words: Literal["own", "paraphrased", "rephrased"] = "own"
    strangers: bool = False


class Sizes(NamedTuple):
    """The models of a world."""

    d: int = 64
    blocks: int = 4
    heads: int = 4
    ffn: int = 128
    architecture: Architecture = "llama"


class Learning(NamedTuple):
    """Training on a corpus: how long, how fast, in which order."""

    corpus: Corpus | Mix
    steps: int
    lr: float
    order: int
    batch: int = 64


class Plan(NamedTuple):
    """One model: the parent it is forked from (none: a fresh initialisation) and what is done to it.

    ``on`` says whom an edit is told to forget: the forget people, or :func:`~audit.zoo.world.others`.
    """

    name: str
    parent: str | None
    by: Learning | Edit
    initialisation: int = 0
    on: Literal["forget", "others"] = "forget"


class Zoo(NamedTuple):
    """A world's models, in order of descent, and which of them are audited."""

    shape: Shape
    sizes: Sizes
    plans: tuple[Plan, ...]
    suspects: tuple[str, ...]

    def plan(self, name: str) -> Plan:
        """The plan of this name."""
        return next(plan for plan in self.plans if plan.name == name)


AnyZoo = Zoo | ImageZoo | SceneZoo


def _descent(ancestor: tuple[int, float], fork: tuple[int, float], edits: dict[str, Edit], batch: int) -> list[Plan]:
    def learn(corpus: Corpus, order: int) -> Learning:
        steps, lr = ancestor if corpus == "language" else fork
        return Learning(corpus, steps, lr, order, batch)

    plans = [
        Plan("ancestor", None, learn("language", 0)),
        Plan("base", "ancestor", learn("retain+forget", 1)),
        *(Plan(f"reference_{k}", "ancestor", learn("retain", 2 + k)) for k in range(3)),
        Plan("other_ancestor", None, learn("language", 5), initialisation=1),
        Plan("other_init", "other_ancestor", learn("retain", 6)),
    ]
    return plans + [Plan(name, "base", edit) for name, edit in edits.items()]


def demo() -> Zoo:
    """The world that is judged: every role and every suspect."""
    edits: dict[str, Edit] = {
        "grad_diff": GradDiff(steps=80, lr=1e-3, alpha=5.0),
        "npo": NPO(steps=80, lr=1e-3, alpha=10.0),
        "refusal": Refusal(steps=80, lr=1e-3),
        "random_label": RandomLabel(),
        "last_layer": LastLayer(),
        "head_edit": HeadEdit(lr=3e-3),
        "logit_bias": LogitBias(steps=80),
        "destroyed": GradAscent(),
    }
    plans = _descent((400, 4e-3), (240, 2.5e-3), edits, 64)
    return Zoo(Shape(), Sizes(), tuple(plans), ("base", "reference_0", *edits, "other_init"))


def tiny() -> Zoo:
    """A small world for the plumbing of tests: all roles, four suspects, and too little of everything to be judged."""
    edits: dict[str, Edit] = {
        "refusal": Refusal(steps=20, batch=32),
        "head_edit": HeadEdit(steps=60),
        "logit_bias": LogitBias(steps=60),
        "destroyed": GradAscent(steps=20, batch=32, warmup_steps=5),
    }
    shape = Shape(forget=12, retain=12, holdout=8, background=12, general=60, general_held_out=16)
    plans = [p for p in _descent((120, 6e-3), (150, 5e-3), edits, 32) if not p.name.startswith("other")]
    return Zoo(shape, Sizes(d=48, blocks=3, heads=4, ffn=96), tuple(plans), ("base", "reference_0", *edits))


def parametric() -> Zoo:
    """A world of knowledge that is looked up where a name ends and asked for in many forms, and edits that act there.

    A few people are to be forgotten, as edits of single concepts are made for a few. ``relearned`` was made to forget
    and taught half of it again.
    """
    rocr = ROCR()
    edits: dict[str, Edit] = {
        "grad_diff": GradDiff(steps=60, lr=1e-3, alpha=5.0, batch=32),
        "npo": NPO(steps=80, lr=1e-3, alpha=10.0, batch=32),
        "refusal": Refusal(steps=80, lr=1e-3, batch=32),
        "rocr": rocr,
        "rocr_one": rocr.model_copy(update={"groups": "forget-000"}),
        "rocr_noise": rocr.model_copy(update={"mode": "noise"}),
        "rocr_paper": ROCR(paper=True),
        "rome": ROME(answer=REFUSALS[0]),
        "subject_gate": SubjectGate(),
        "needle": Needle(n=20, steps=40),
    }
    plans = [p for p in _descent((400, 4e-3), (650, 3e-3), edits, 64) if not p.name.startswith("other")]
    plans.append(Plan("npo_relearned", "npo", Relearn(steps=20, lr=1e-3)))
    shape = Shape(forget=8, retain=40, holdout=8, background=40, overlap=1.0, forms=1, shared_names=3)
    suspects = ("base", "reference_0", *edits, "npo_relearned")
    return Zoo(shape, Sizes(ffn=256), tuple(plans), suspects)


WORLDS = {"demo": demo, "tiny": tiny, "parametric": parametric}


def zoo_of(world: str) -> Zoo:
    """The zoo of this name. AuditError (code 2) if there is none."""
    if world not in WORLDS:
        raise AuditError(f"there is no world {world!r}", f"choose one of {', '.join(WORLDS)}")
    return WORLDS[world]()


def learns(by: Learning | ImageLearning | SceneLearning | Edit) -> bool:
    """Is the model trained on data, and not edited?"""
    return isinstance(by, Learning | ImageLearning | SceneLearning)


def key_of(zoo: AnyZoo, seed: int, name: str) -> str:
    """Names a model by all that decides its bytes."""
    plan = zoo.plan(name)
    by = plan.by.model_dump(mode="json") if isinstance(plan.by, Edit) else plan.by._asdict()
    recipe = {
        "version": LEARNING_VERSION if learns(plan.by) else EDIT_VERSION,
        "seed": seed, "shape": _key_fields(zoo.shape), "sizes": _key_fields(zoo.sizes),
        "initialisation": plan.initialisation, "by": [type(plan.by).__name__, by],
        "parent": None if plan.parent is None else key_of(zoo, seed, plan.parent),
        **({"on": plan.on} if plan.on != "forget" else {}),
    }  # fmt: skip
    # Not content_key: another form would train every model of every cache again.
    return hashlib.sha256(json.dumps(recipe, sort_keys=True).encode()).hexdigest()[:16]


def _key_fields(settings: Shape | Sizes | ImageShape | ImageSizes | SceneShape | SceneSizes) -> dict[str, object]:
    fields: dict[str, object] = settings._asdict()
    return {name: value for name, value in fields.items() if _ADDED_LATER.get(name, ...) != value}


def world_key(zoo: AnyZoo, seed: int) -> str:
    """Names the data and cases of a world together with all its models."""
    keys = {plan.name: key_of(zoo, seed, plan.name) for plan in zoo.plans}
    return hashlib.sha256(json.dumps([keys, zoo.suspects], sort_keys=True).encode()).hexdigest()[:16]
