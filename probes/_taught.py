"""The taught reader: base fine-tuned on holdout people, where no model that never knew the forget people is given.

The suspect never saw the holdout people's facts, so whatever a reader that knows them reads from the suspect's states
it computes itself: these readings are the null for the forget people, whom the reader knows as well. The two must be
alike to the reader in everything but the suspect, so it is trained on all people at once: without the forget people
among the lessons it forgets some of them, and without the retained ones it no longer reads the states of base's kin.

What is fitted here is the instrument and never sees the suspect. It knows every person that it reads, as base knows
every forget person; what is measured is the suspect's states, on which nothing is fitted.
"""

import logging
import os
import shutil
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from torch import Tensor

from audit.probing import (
    TEMP,
    AuditError,
    Bench,
    Checkpoint,
    Cohort,
    Forward,
    OpenCase,
    Rows,
    Texts,
    TrainData,
    TrainingRecipe,
    delta_of,
    read_edit,
    stacked,
    width,
)

log = logging.getLogger(__name__)

_RATE_TIMES_WIDTH = 0.1
_NAME = "taught_reader"


class Lessons(NamedTuple):
    """How the reader is taught. The learning rate is .1 divided by the model's width, rather high for fine-tuning.

    What is taught fast is recomputed from deeper states: on the zoo a third of this rate puts a reference .12 above the
    null, this rate .03, and a higher one below it. Where the rate errs, it should miss a trace and not make one.
    """

    steps: int
    batch: int
    seed: int


class _Teaching(NamedTuple):
    """How the reader is trained, and on what."""

    recipe: TrainingRecipe
    data: TrainData


def lesson_tokens(case: OpenCase, lessons: Lessons) -> int:
    """Tokens of one pass over all the lessons: an upper bound, since a batch draws rows and not tokens."""
    widest = max(int(_rows(case, cohort).lengths.max()) for cohort in ("forget", "retain", "holdout"))
    return lessons.steps * 2 * lessons.batch * widest


def taught_reader(bench: Bench, case: OpenCase, lessons: Lessons) -> Checkpoint:
    """Base, fine-tuned on the holdout people while it repeats the forget and the retained ones.

    Trained once and kept, named by content, in the bench's store (without one in the folder of the run), so that a
    resumed run and other suspects of the same case are read by the same reader.
    """
    holdout, known = _rows(case, "holdout"), stacked([_rows(case, "retain"), _rows(case, "forget")])
    recipe = TrainingRecipe(
        name=_NAME, objective=_loss, steps=lessons.steps, lr=_RATE_TIMES_WIDTH / width(case.base),
        batch=lessons.batch, warmup_steps=min(30, lessons.steps // 5), seed=lessons.seed,
    )  # fmt: skip
    schedule = [*lessons, recipe.lr, recipe.warmup_steps]
    key = bench.key(_NAME, case.base.key, holdout.hash, known.hash, schedule)
    folder = case.out / "readers" / key[:32] if bench.store is None else bench.store.folder(key)
    with bench.alone(key):
        return _cached(case.base, folder) or _trained(
            bench, case.base, _Teaching(recipe, TrainData(holdout, known)), folder
        )


def _loss(new: Forward | None, known: Forward | None, _new: Forward | None, _known: Forward | None) -> Tensor:
    assert new is not None and known is not None, "both kinds of lessons are given"
    return -new.logprob.mean() - known.logprob.mean()


def _cached(base: Checkpoint, folder: Path) -> Checkpoint | None:
    """The reader in this folder, if there is a whole one; a broken one is dropped and taught again."""
    edit = next(folder.glob(f"*-{_NAME}-*"), None)
    if edit is None:
        return None
    try:
        record = read_edit(edit)[1]
        reader = base.model_copy(update={"edits": (*base.edits, record), "edits_from": str(edit)})
        delta_of(reader, record)
    except AuditError as error:
        log.warning("dropped a broken reader, it will be taught again: %s", error.what)
        shutil.rmtree(folder, ignore_errors=True)
        return None
    with suppress(OSError):  # what was used last is kept longest
        os.utime(folder)
    return reader


def _trained(bench: Bench, base: Checkpoint, by: _Teaching, folder: Path) -> Checkpoint:
    """Train beside the folder and put the result in place; the reader of another process that was faster is as good."""
    beside = folder.with_name(f".{folder.name}.{os.getpid()}{TEMP}")
    shutil.rmtree(beside, ignore_errors=True)
    try:
        bench.train([base], [by.recipe], by.data, [by.recipe.steps], beside)
        with suppress(OSError):
            beside.rename(folder)
    finally:
        shutil.rmtree(beside, ignore_errors=True)
    reader = _cached(base, folder)
    if reader is None:
        raise AuditError(f"{folder}: the taught reader cannot be kept", "free some space, or choose another folder", 3)
    return reader


def _rows(case: OpenCase, cohort: Cohort) -> Rows:
    """All rows of a cohort: both parts, every form."""
    every = [Texts(cohort=cohort, form=form) for form in case.forms()]
    return stacked([case.rows(texts, "all") for texts in every if case.has(texts, "all")])
