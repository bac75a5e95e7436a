"""Training, as the bench does it: a plain loop on live tensors, and the same loop on checkpoints.

:func:`descend` trains whatever can score rows (:class:`Learner`); :func:`train` runs it on checkpoints and leaves each
result as an :class:`~audit.schema.EditRecord` of whole tensors. The loop is deterministic: same recipe, same rows, same
start, same number of threads give the same bytes. Checkpoints are trained one by one; training several at once (stacked
with torch.func where shapes agree) is not declared.
"""

from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from audit.bench.model_pool import ModelPool
from audit.bench.training.descent import descend
from audit.bench.training.learners import Learner, TrainData, WrapperLearner
from audit.bench.training.recipe import TrainingRecipe
from audit.schema import AuditError, Checkpoint, EditRecord


def train(
    pool: ModelPool,
    ckpts: Sequence[Checkpoint],
    recipes: Sequence[TrainingRecipe],
    data: TrainData,
    at_steps: Sequence[int],
    out: Path,
) -> list[EditRecord]:
    """Train each checkpoint by its recipe, one by one, and write what changed at each of ``at_steps``.

    ``ckpts`` and ``recipes`` are paired (a single checkpoint is paired with every recipe). The record of pair i at step
    s is written to ``out/<i>-<recipe name>-<s>`` as an edited checkpoint folder; records come pair by pair, step by
    step. Errors are those of :func:`train_one`.
    """
    starts = list(ckpts) * len(recipes) if len(ckpts) == 1 else list(ckpts)
    assert len(starts) == len(recipes)
    records: list[EditRecord] = []
    for i, (ckpt, recipe) in enumerate(zip(starts, recipes, strict=True)):
        folders = {step: out / f"{i}-{recipe.name}-{step}" for step in at_steps}
        records += [edited.edits[-1] for edited in train_one(pool, ckpt, recipe, data, folders)]
    return records


def train_one(
    pool: ModelPool, ckpt: Checkpoint, recipe: TrainingRecipe, data: TrainData, folders: Mapping[int, Path]
) -> list[Checkpoint]:
    """Train one checkpoint and write an edited checkpoint folder at each of the named steps, in order of steps.

    The weights of ``ckpt`` are never touched: training runs on a fresh copy. Raises AuditError for steps outside the
    recipe, for a checkpoint that is edited by a hook (a hook has nothing to train), and where no byte changed.
    """
    from audit.checkpoints import write_edited

    outside = [step for step in folders if not 1 <= step <= recipe.steps]
    if outside:
        raise AuditError(f"recipe {recipe.name!r} has no step {outside[0]}", f"name steps from 1 to {recipe.steps}")
    written: list[Checkpoint] = []
    with pool.hold(ckpt) as (wrapper,), pool.to_train(ckpt) as copy:
        learner, original = WrapperLearner(copy), WrapperLearner(wrapper)

        def save(taken: int) -> None:
            if taken in folders:
                changed = changed_tensors(learner, original)
                if not changed:
                    raise AuditError(
                        f"recipe {recipe.name!r} changed no weight", "raise its learning rate or its steps"
                    )
                settings = _settings(recipe, taken)
                written.append(write_edited(folders[taken], ckpt, recipe.name, settings, "weights", changed))

        descend(learner, recipe, data, original, save)
    return written


class Copied(NamedTuple):
    """A live model that may be changed, and the checkpoint's own, which may not."""

    learner: WrapperLearner
    original: WrapperLearner


@contextmanager
def copied(pool: ModelPool, ckpt: Checkpoint) -> Generator[Copied]:
    """A fresh copy of a checkpoint beside the pool's own, which stays open meanwhile.

    Raises AuditError for a checkpoint that is edited by a hook: a copy of its weights is not a copy of it.
    """
    with pool.hold(ckpt) as (wrapper,):
        yield Copied(WrapperLearner(pool.fresh(ckpt)), WrapperLearner(wrapper))


def changed_tensors(learner: Learner, original: Learner) -> dict[str, Tensor]:
    """The whole tensors in which two learners of one architecture differ in the type of the second, copied to the
    CPU."""
    before = original.parameters()
    after = ((name, p.detach().to(before[name].dtype)) for name, p in learner.parameters().items())
    return {name: p.cpu().clone().contiguous() for name, p in after if not torch.equal(p, before[name])}


def _settings(recipe: TrainingRecipe, taken: int) -> dict[str, str | int | float | bool]:
    return {
        **recipe.settings,
        "steps": taken, "of_steps": recipe.steps, "lr": recipe.lr, "batch": recipe.batch, "seed": recipe.seed,
        "schedule": recipe.schedule, "warmup_steps": recipe.warmup_steps, "trainable": recipe.trainable,
    }  # fmt: skip
