"""A lesson and its course: a copy of a model is trained on some rows, and others are read on the way."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np
from numpy import ndarray

from audit.probing import (
    Bench,
    Checkpoint,
    Learner,
    OpenCase,
    Rows,
    TrainData,
    TrainingRecipe,
    key_logprob,
    live_logprob,
)

SHOWN = "shown"
"""The key of what the model says at the end of the rows that it was shown."""


class Lesson(NamedTuple):
    """How a model is taught, on which rows, and after how many steps it is read (0 first, the last at the end).
    ``identity`` names all that the course depends on beside model and rows."""

    recipe: TrainingRecipe
    shown: Rows
    after: tuple[int, ...]
    identity: str


def steps_read(steps: int) -> tuple[int, ...]:
    """Numbers of steps after which a model is read: 0, 1, 2, 4, ... and the last."""
    powers = [2**i for i in range(steps.bit_length())]
    return (0, *(k for k in powers if k < steps), steps)


def taught_course(
    bench: Bench, case: OpenCase, checkpoint: Checkpoint, lesson: Lesson, read: Mapping[str, Rows]
) -> dict[str, ndarray]:
    """Mean log-probability (nats) of the content tokens of every set of rows, [row, number of steps], and at the end of
    the rows that were shown, [row]. The copy is kept by nobody, the course by the store."""
    key = [lesson.identity, checkpoint.key, list(lesson.after), lesson.shown.hash,
           [rows.hash for rows in read.values()]]  # fmt: skip

    def compute() -> dict[str, ndarray]:
        columns = {name: [key_logprob(bench, checkpoint, rows)] for name, rows in read.items()}
        end: list[ndarray] = []

        def look(taken: int, learner: Learner) -> None:
            if taken in lesson.after:
                for name, rows in read.items():
                    columns[name].append(live_logprob(learner, rows, bench.token_budget))
            if taken == lesson.after[-1]:
                end.append(live_logprob(learner, lesson.shown, bench.token_budget))

        recipe = replace(lesson.recipe, every=(1, look))
        bench.train([checkpoint], [recipe], TrainData(lesson.shown), (), case.out)
        return {SHOWN: end[0], **{name: np.stack(each, 1) for name, each in columns.items()}}

    return bench.cached(key, compute)


def over_steps(scores: Mapping[str, ndarray]) -> dict[str, ndarray]:
    """Mean over the numbers of steps that were taken, [row, 1]: the reading before the first is the output's own."""
    return {name: x[:, 1:].mean(1, keepdims=True) for name, x in scores.items()}


def effects_by_step(people: Mapping[str, ndarray], after: Sequence[int], least_gap: float) -> dict[int, float]:
    """The effect after every number of steps, where base stands out from the null: person means [person, step]."""
    means = {name: x.mean(0) for name, x in people.items()}
    null = means.get("null", np.zeros_like(means["base"]))
    gaps = zip(after, means["suspect"] - null, means["base"] - null, strict=True)
    return {k: float(gap / excess) for k, gap, excess in gaps if excess >= least_gap}
