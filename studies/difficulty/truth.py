"""How hard was every fact to unlearn, measured: several unlearners, several seeds, on worlds of known truth.

Per item and run: the step at which its probability has come down into the never-trained band for good, what the
retained facts had lost by then, and what is left at the end of the budget by two tests that do not read the output:
base's later blocks on the suspect's states (reverse patch), and relearning on other people's facts.
"""

import copy
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from numpy import ndarray

from audit.bench import Bench, CausalLearner, Learner, Start, descend
from audit.case import Rows, row_means
from audit.checkpoints import resolve
from audit.circuits import KEY
from audit.edits import Descent, EditData, Relearn
from audit.schema import Checkpoint, Site, Source
from audit.zoo import mechanisms, write

METHODS = ("grad_diff", "npo", "simnpo", "refusal", "weighted_ascent", "rmu_shallow")
SEEDS = (0, 1)
LOOK_EVERY = 4
BAND_SLACK = 0.02
RELEARN_AT = (4, 8, 16, 32)
LEAST_GAP = 0.2
"""An item whose probability base exceeds a reference by less is not measured: nothing could be left of it."""


class Seen(NamedTuple):
    """The rows that are read: forget (measured), retained (for damage), and which half of the people each row is of."""

    forget: Rows
    retain: Rows
    half: ndarray


class World(NamedTuple):
    """One world: its zoo's number, folders of base and references, what unlearners see, and what is read."""

    number: int
    base: Path
    references: tuple[Path, ...]
    data: EditData
    seen: Seen
    steps: Mapping[str, Descent]


class Course(NamedTuple):
    """One unlearning run: probabilities by look, and what two tests find at the end."""

    probability: Float[ndarray, "look item"]
    retained: Float[ndarray, "look retained"]
    patched: Float[ndarray, "layer item"]
    relearned: Float[ndarray, " item"]


class Label(NamedTuple):
    """How hard every item was in one run. ``steps`` in looks (the number of looks + 1 where the budget ended first)."""

    steps: Float[ndarray, " item"]
    cost: Float[ndarray, " item"]
    patch: Float[ndarray, " item"]
    relearn: Float[ndarray, " item"]
    left: Float[ndarray, " item"]
    damage: Float[ndarray, " retained"]


class Levels(NamedTuple):
    """What base and the references say: probabilities as they are, patched into base, and relearned."""

    base: Float[ndarray, " item"]
    retained: Float[ndarray, " retained"]
    references: Float[ndarray, "model item"]
    base_patched: Float[ndarray, "layer item"]
    reference_patched: Float[ndarray, "layer item"]
    reference_relearned: Float[ndarray, " item"]


def probabilities(learner: Learner, rows: Rows) -> Float[ndarray, " row"]:
    """Geometric mean probability of each row's content tokens."""
    with torch.no_grad():
        answers = learner.answers(rows)
    return np.exp(row_means(answers.logprob[answers.key], rows))


def patched(bench: Bench, base: Checkpoint, source: Checkpoint, rows: Rows) -> Float[ndarray, "layer item"]:
    """Probabilities when base goes on from the source's state after each layer."""
    layers = range(bench.open(base).n_blocks)
    runs = (
        bench.run(base, rows, (KEY,), start=Start(Site(part="resid_out", block=layer), source))[KEY] for layer in layers
    )
    return np.stack([np.exp(row_means(run, rows)) for run in runs])


def relearned(folder: Path, seen: Seen, width: int) -> Float[ndarray, " item"]:
    """Mean probability after some steps of relearning on the other half of the people: each half is read once."""
    from transformers import AutoModelForCausalLM

    probability = np.zeros(len(seen.forget))
    for half in (0, 1):
        shown, read = (seen.forget.take(torch.from_numpy(np.flatnonzero(seen.half == h))) for h in (half, 1 - half))
        learner = CausalLearner(AutoModelForCausalLM.from_pretrained(folder))
        lesson = Relearn(steps=RELEARN_AT[-1], lr=0.064 / width, seed=0)
        recipe, data = lesson.lesson(EditData(shown, shown), 0)
        looks: list[ndarray] = []

        def look(taken: int, live: Learner, looks: list[ndarray] = looks, read: Rows = read) -> None:
            if taken in RELEARN_AT:
                looks.append(probabilities(live, read))

        descend(learner, replace(recipe, every=(1, look)), data)
        probability[seen.half == 1 - half] = np.mean(looks, 0)
    return probability


def levels(bench: Bench, world: World) -> Levels:
    """The two ends of every scale in this world."""
    from transformers import AutoModelForCausalLM

    def live(folder: Path) -> CausalLearner:
        return CausalLearner(AutoModelForCausalLM.from_pretrained(folder))

    base, null = (resolve(Source(path=str(f)), f) for f in (world.base, world.references[0]))
    width = bench.open(base).d_model
    return Levels(
        base=probabilities(live(world.base), world.seen.forget),
        retained=probabilities(live(world.base), world.seen.retain),
        references=np.stack([probabilities(live(f), world.seen.forget) for f in world.references]),
        base_patched=patched(bench, base, base, world.seen.forget),
        reference_patched=patched(bench, base, null, world.seen.forget),
        reference_relearned=relearned(world.references[0], world.seen, width),
    )


def course(bench: Bench, world: World, name: str, seed: int, out: Path) -> Course:
    """Run one unlearner with one seed and read it on the way and at the end. ``out`` holds the model meanwhile."""
    edit = world.steps[name].model_copy(update={"seed": 1000 * seed + world.number})
    model = _live(world)
    recipe, rows = edit.lesson(world.data, model.config.num_hidden_layers)
    frozen = CausalLearner(copy.deepcopy(model)) if recipe.needs_frozen else None
    learner = CausalLearner(model)
    forget, retain = [probabilities(learner, world.seen.forget)], [probabilities(learner, world.seen.retain)]

    def look(taken: int, live: Learner) -> None:
        forget.append(probabilities(live, world.seen.forget))
        retain.append(probabilities(live, world.seen.retain))

    descend(learner, replace(recipe, every=(LOOK_EVERY, look)), rows, frozen)
    write(model, out)
    base, suspect = (resolve(Source(path=str(f)), f) for f in (world.base, out))
    left = patched(bench, base, suspect, world.seen.forget)
    return Course(np.stack(forget), np.stack(retain), left, relearned(out, world.seen, bench.open(base).d_model))


def _live(world: World):  # noqa: ANN202
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(world.base)


def label(run: Course, ends: Levels) -> Label:
    """How hard each item was in a run; NaN where base barely exceeds the references."""
    known = ends.base - ends.references.max(0) >= LEAST_GAP
    inside = run.probability <= ends.references.max(0) + BAND_SLACK
    stays = np.flip(np.logical_and.accumulate(np.flip(inside, 0), 0), 0)
    steps = np.where(stays.any(0), stays.argmax(0), len(stays)).astype(float)
    lost = 1 - run.retained.mean(1) / run.retained[0].mean()
    cost = np.append(lost, lost[-1])[steps.astype(int)]
    over_patch = (ends.base_patched - ends.reference_patched).sum(0)
    patch = (run.patched - ends.reference_patched).sum(0) / np.where(over_patch > LEAST_GAP, over_patch, np.nan)
    over = ends.base - ends.reference_relearned
    back = (run.relearned - ends.reference_relearned) / np.where(over > LEAST_GAP, over, np.nan)
    mask = np.where(known, 1.0, np.nan)
    left = run.probability[-1] - ends.references.mean(0)
    return Label(steps * mask, cost * mask, patch * mask, back * mask, left * mask, ends.retained - run.retained[-1])


def settings(number: int, names: Sequence[str] = METHODS) -> Iterator[tuple[str, Descent]]:
    """The zoo's unlearners as this world runs them."""
    for name in names:
        edit = mechanisms.of_world(name, number)
        assert isinstance(edit, Descent), "every method here descends"
        yield name, edit
