"""Few-shot read-outs: a fresh head, fitted to a handful of a model's own last states per answer, on rows it never saw.

What such a head reads is in the states, or is learnt from the shots: models that never knew an answer learn some of it
too, so that only what exceeds them says anything.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from numpy import ndarray
from torch import Tensor

from audit.probing import Bench, Checkpoint, Read, Rows, Site

LAST = Read(site=Site(part="final_in"), at="key")
PENALTY = 0.1


class Lesson(NamedTuple):
    """Rows with their answers: ``kind`` numbers the answer (-1: none), ``fold`` the part of whole groups that a row is
    in, ``shown`` the rows that may be shots, ``queried`` those to be read, by what was fitted on other folds."""

    kind: Int[ndarray, " row"]
    fold: Int[ndarray, " row"]
    shown: Bool[ndarray, " row"]
    queried: Bool[ndarray, " row"]


class Draw(NamedTuple):
    """One fit: which rows are shots, and which are read."""

    shots: Int[ndarray, " shot"]
    read: Int[ndarray, " row"]


def last_states(bench: Bench, checkpoint: Checkpoint, rows: Rows) -> Float[Tensor, "row d"]:
    """The state that the head reads before each row's first content token, after the final norm."""
    states = bench.run(checkpoint, rows, (LAST,))[LAST]
    owner = rows.targets("key")[0].numpy()
    return states[torch.from_numpy(np.searchsorted(owner, np.arange(len(rows))))].double()


def draws_of(lesson: Lesson, shots: int, draws: int, seed: int) -> list[Draw]:
    """Shots per answer, drawn anew for every fit, the same for all models. An answer without enough rows takes no part
    and its rows are not read."""
    rng, fits = np.random.default_rng([seed, shots]), list[Draw]()
    for fold in np.unique(lesson.fold[lesson.queried]).tolist():
        pool = {
            int(kind): np.flatnonzero((lesson.kind == kind) & (lesson.fold != fold) & lesson.shown)
            for kind in np.unique(lesson.kind[lesson.kind >= 0])
        }
        enough = {kind: rows for kind, rows in pool.items() if len(rows) >= shots}
        read = np.flatnonzero(lesson.queried & (lesson.fold == fold) & np.isin(lesson.kind, list(enough)))
        if len(enough) < 2 or not len(read):
            continue
        for _ in range(draws):
            chosen = [rng.choice(rows, shots, replace=False) for rows in enough.values()]
            fits.append(Draw(np.concatenate(chosen), read))
    return fits


def hit_rates(states: Float[Tensor, "row d"], lesson: Lesson, fits: Sequence[Draw]) -> Float[ndarray, " row"]:
    """How often a fit gives a row its own answer, over all fits that read it; NaN for a row that none reads."""
    hits, tried = np.zeros(len(lesson.kind)), np.zeros(len(lesson.kind))
    for fit in fits:
        own = lesson.kind[fit.shots]
        kinds = np.unique(own)
        scores = _ridge(states[fit.shots], torch.from_numpy(own[:, None] == kinds), states[fit.read])
        hits[fit.read] += kinds[scores.argmax(1).numpy()] == lesson.kind[fit.read]
        tried[fit.read] += 1
    return np.where(tried > 0, hits / np.maximum(tried, 1), np.nan)


def _ridge(
    x: Float[Tensor, "shot d"], own: Bool[Tensor, "shot kind"], queried: Float[Tensor, "row d"]
) -> Float[Tensor, "row kind"]:
    """A linear head by ridge regression on the answers' indicators, on standardised states; in closed form, by as many
    unknowns as there are shots."""
    mean, spread = x.mean(0), x.std(0).clamp_min(1e-9)
    x, queried, y = (x - mean) / spread, (queried - mean) / spread, own.double()
    gram = x @ x.T + PENALTY * x.shape[1] * torch.eye(len(x), dtype=x.dtype)
    return queried @ (x.T @ torch.linalg.solve(gram, y)) + y.mean(0)


def by_shots(
    states: Mapping[str, Float[Tensor, "row d"]], lesson: Lesson, counts: Sequence[int], draws: int, seed: int
) -> tuple[tuple[int, ...], dict[str, Float[ndarray, "row shots"]]]:
    """Hit rates of every model at every number of shots that at least half of the queried rows can be read with."""
    fits = {count: draws_of(lesson, count, draws, seed) for count in counts}
    reached = {
        count: len(np.unique(np.concatenate([fit.read for fit in drawn]))) for count, drawn in fits.items() if drawn
    }
    answered = int((lesson.queried & (lesson.kind >= 0)).sum())
    usable = tuple(count for count, rows in reached.items() if 2 * rows >= answered)
    return usable, {
        name: np.stack([hit_rates(x, lesson, fits[count]) for count in usable], 1) if usable else np.zeros((len(x), 0))
        for name, x in states.items()
    }
