"""Pilot runs: an unlearner on the user's own base, watched item by item. The edited model is not kept.

An item's difficulty is the step at which its probability has come down for good to that of a model that never knew
(the ancestor, where the case names one; a probability of .1 otherwise), as in the worlds behind the fit.
"""

from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from audit import plugins
from audit.bench import Bench, Learner
from audit.case import Rows, stacked
from audit.edits import Descent, Edit, EditData
from audit.probing import live_logprob
from audit.schema import AuditError, Checkpoint

LOOKS = 20
SLACK = 0.02
UNKNOWN_LEVEL = 0.1


class Watched(NamedTuple):
    """One pilot: the look at which each item came down for good (LOOKS + 1 where the run ended first), the share of
    the retained items' probability that was lost when the median item had, and each retained item's loss at the end."""

    steps: Float[ndarray, " item"]
    share_lost: float
    damage: Float[ndarray, " retained"]


class Rowsets(NamedTuple):
    """Whom a pilot is to forget and to keep, what it is given to keep, and the level of a model that never knew."""

    forget: Rows
    retain: Rows
    general: Rows | None
    level: Float[ndarray, " item"]


def pilot_of(name: str) -> Descent:
    """The unlearner of this name with its own settings. AuditError for one that does not descend on given rows."""
    known = plugins.discover("audit.edits", Edit)
    aliases = {"graddiff": "grad_diff"}
    kind = known.get(aliases.get(name, name))
    usable = sorted(n for n, cls in known.items() if issubclass(cls, Descent) and n not in NOT_PILOTS)
    if kind is None or not issubclass(kind, Descent) or kind.__module__.rpartition(".")[2] not in usable:
        raise AuditError(f"{name!r} is no pilot", f"choose from {', '.join(usable)}")
    return kind.model_validate({})


NOT_PILOTS = frozenset({"relearn", "refusal", "refusal_dpo", "random_label"})
"""They attack, or need answers that a case does not give."""


def probabilities(learner: Learner, rows: Rows, budget: int) -> Float[ndarray, " row"]:
    """Geometric mean probability of each row's content tokens, some rows at a time."""
    return np.exp(live_logprob(learner, rows, budget))


def pilot(bench: Bench, base: Checkpoint, name: str, data: Rowsets, out: Path) -> Watched:
    """Run one unlearner on a copy of base and watch it."""
    edit = pilot_of(name)
    retained = data.retain if data.general is None else stacked([data.retain, data.general])
    recipe, rows = edit.lesson(EditData(data.forget, retained), bench.open(base).n_blocks)
    every = max(1, recipe.steps // LOOKS)
    forget: list[ndarray] = []
    retain: list[ndarray] = []

    def look(taken: int, live: Learner) -> None:
        forget.append(probabilities(live, data.forget, bench.token_budget))
        retain.append(probabilities(live, data.retain, bench.token_budget))

    from audit.bench import WrapperLearner

    look(0, WrapperLearner(bench.open(base)))
    bench.train([base], [replace(recipe, every=(every, look))], rows, (), out)
    inside = np.stack(forget) <= data.level + SLACK
    stays = np.flip(np.logical_and.accumulate(np.flip(inside, 0), 0), 0)
    steps = np.where(stays.any(0), stays.argmax(0), len(stays)).astype(np.float64)
    course = np.stack(retain)
    lost = 1 - course.mean(1) / max(float(course[0].mean()), 1e-12)
    at = min(int(np.median(steps)), len(lost) - 1)
    return Watched(steps, float(lost[at]), course[0] - course[-1])
