"""What everybody of a fold has in common: read after one lesson, or under one prefix, they share its luck."""

from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Float, Int
from numpy import ndarray

from audit.probing import ModelScores, PersonRows


def lift_of_folds(lessons: Sequence[Float[ndarray, "row 1"]], folds: int) -> Float[ndarray, " fold"]:
    """By how much each lesson lifts everyone's facts more than the lessons do on average; 0 without holdout people."""
    if not lessons:
        return np.zeros(folds)
    level = np.array([np.nanmean(x) for x in lessons])
    return level - level.mean()


def shared_error(
    lessons: Mapping[str, Sequence[Float[ndarray, "other 1"]]],
    scored: ModelScores,
    sheet: PersonRows,
    fold_of: Int[ndarray, " row"],
) -> float:
    """The standard error of what people of a fold have in common: a lesson's luck in the suspect against the null.

    With holdout people, of whom neither model knows anything: the root mean square of the lessons' mean differences on
    them, which should be 0. Without: what the folds' means differ more than their people explain. Divided by the root
    of the number of folds.
    """
    null = "null" if "null" in lessons else None
    each = lessons["suspect"]
    if each and null is not None:
        gaps = np.array([np.nanmean(x - y) for x, y in zip(each, lessons[null], strict=True)])
        return float(np.sqrt((gaps**2).mean() / len(gaps)))
    people = scored.people["suspect"] - (scored.people["null"] if null is not None else 0.0)
    fold = np.array([fold_of[np.flatnonzero(sheet.person == p)[0]] for p in range(len(sheet.people))])
    if len(people) != len(fold):  # somebody has no item that every model scores
        return 0.0
    parts = [people[fold == f, 0] for f in np.unique(fold)]
    within = np.mean([part.var(ddof=1) / len(part) if len(part) > 1 else 0.0 for part in parts])
    between = np.var([part.mean() for part in parts], ddof=1) if len(parts) > 1 else 0.0
    return float(np.sqrt(max(between - within, 0.0) / len(parts)))
