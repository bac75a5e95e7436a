"""A lesson: what an unlearner trains on and how. Every edit that is fitted by descent states one."""

from abc import abstractmethod
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from audit.bench import Bench, Forward, Objective, TrainData, TrainingRecipe, train_one
from audit.case import Rows, stacked
from audit.edits._edit import Edit, EditData
from audit.schema import AuditError, Checkpoint


class TrainingRun(NamedTuple):
    """A recipe and the rows for it."""

    recipe: TrainingRecipe
    data: TrainData


class Descent(Edit):
    """An edit that is fitted by descent: it states its lesson, and :meth:`fit` teaches it."""

    @abstractmethod
    def lesson(self, data: EditData, n_blocks: int) -> TrainingRun:
        """The recipe of these settings for a model with so many blocks, and its rows."""

    def fit(self, bench: Bench, parent: Checkpoint, data: EditData, out: Path) -> Checkpoint:
        """Train a copy of ``parent`` by the lesson and write the tensors that changed at ``out``."""
        recipe, rows = self.lesson(data, bench.open(parent).n_blocks)
        return train_one(bench.pool, parent, recipe, rows, {recipe.steps: out})[0]


class Trained(Protocol):
    """An edit that trains: the settings that every recipe has."""

    @property
    def steps(self) -> int: ...
    @property
    def lr(self) -> float: ...
    @property
    def batch(self) -> int: ...
    @property
    def warmup_steps(self) -> int: ...
    @property
    def seed(self) -> int: ...
    @property
    def name(self) -> str: ...
    def model_dump(self) -> Mapping[str, object]: ...


def recipe_of(edit: Trained, objective: Objective) -> TrainingRecipe:
    """The plain recipe of an edit, under its name and with its settings on record; ``replace`` adds what it needs."""
    settings = {name: value for name, value in edit.model_dump().items() if isinstance(value, str | int | float | bool)}
    return TrainingRecipe(
        edit.name, objective, steps=edit.steps, lr=edit.lr, batch=edit.batch, warmup_steps=edit.warmup_steps,
        seed=edit.seed, settings=settings,
    )  # fmt: skip


def of_forget(loss: Callable[[Forward], Tensor]) -> Objective:
    """An objective of the forget rows alone."""

    def objective(forget: Forward | None, _retain: Forward | None, *_frozen: Forward | None) -> Tensor:
        assert forget is not None
        return loss(forget)

    return objective


def of_retain(loss: Callable[[Forward], Tensor]) -> Objective:
    """An objective of the retain rows alone."""

    def objective(_forget: Forward | None, retain: Forward | None, *_frozen: Forward | None) -> Tensor:
        assert retain is not None
        return loss(retain)

    return objective


def of_both(loss: Callable[[Forward, Forward], Tensor]) -> Objective:
    """An objective of the forget and retain rows."""

    def objective(forget: Forward | None, retain: Forward | None, *_frozen: Forward | None) -> Tensor:
        assert forget is not None and retain is not None
        return loss(forget, retain)

    return objective


def against_frozen(loss: Callable[[Forward, Forward, Forward], Tensor]) -> Objective:
    """An objective of the forget and retain rows and of what the start said of the same forget rows."""

    def objective(forget: Forward | None, retain: Forward | None, *frozen: Forward | None) -> Tensor:
        assert forget is not None and retain is not None and frozen[0] is not None
        return loss(forget, retain, frozen[0])

    return objective


def near_frozen(loss: Callable[[Forward, Forward, Forward], Tensor]) -> Objective:
    """An objective of the forget and retain rows and of what the start said of the same retain rows."""

    def objective(forget: Forward | None, retain: Forward | None, *frozen: Forward | None) -> Tensor:
        assert forget is not None and retain is not None and frozen[1] is not None
        return loss(forget, retain, frozen[1])

    return objective


def needed(rows: Rows | None, description: str, do: str) -> Rows:
    """The rows, or an AuditError that names what is missing."""
    if rows is None:
        raise AuditError(f"there are no {description}", do)
    return rows


def paired(preferred: Rows, rejected: Rows) -> Rows:
    """Pairs for a paired recipe: row 2i is the i-th preferred row, row 2i + 1 the rejected row of the same item.

    An item may have several preferred answers; AuditError names those that lack one of the two.
    """
    at = {name: i for i, name in enumerate(rejected.item_ids)}
    unpaired = sorted(at.keys() ^ set(preferred.item_ids))
    if unpaired:
        problem = f"items with only one answer of a pair: {', '.join(unpaired[:3])}" + (
            " ..." if len(unpaired) > 3 else ""
        )
        raise AuditError(problem, "give an answer to prefer for every forget item, and for no other")
    first = torch.arange(len(preferred))
    second = len(preferred) + torch.tensor([at[name] for name in preferred.item_ids])
    return stacked([preferred, rejected]).take(torch.stack([first, second], 1).flatten())
