"""A lesson: what an unlearner trains on and how. Every edit that is fitted by descent states one."""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple, Protocol

from torch import Tensor

from audit.bench import Bench
from audit.bench.shapes import Forward, Objective, Recipe, Rows
from audit.bench.training import TrainData, train_one
from audit.edits._edit import EditData
from audit.nouns import AuditError, Checkpoint


class Lesson(NamedTuple):
    """A recipe and the rows for it."""

    recipe: Recipe
    data: TrainData


class Teacher(Protocol):
    """An edit that can state its lesson for a model with so many blocks."""

    def lesson(self, data: EditData, n_blocks: int) -> Lesson: ...


def of_forget(loss: Callable[[Forward], Tensor]) -> Objective:
    """An objective of the forget rows alone."""

    def objective(forget: Forward | None, _retain: Forward | None, *_frozen: Forward | None) -> Tensor:
        assert forget is not None
        return loss(forget)

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


def fit_lesson(edit: Teacher, bench: Bench, parent: Checkpoint, data: EditData, out: Path) -> Checkpoint:
    """Train ``parent`` by the edit's lesson and write what changed at ``out``."""
    recipe, rows = edit.lesson(data, bench.open(parent).n_blocks)
    return train_one(bench, parent, recipe, rows, {recipe.steps: out})[0]


def needed(rows: Rows | None, what: str, do: str) -> Rows:
    """The rows, or an AuditError that names what is missing."""
    if rows is None:
        raise AuditError(f"there are no {what}", do)
    return rows
