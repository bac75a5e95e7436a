"""Which virtual tokens, shared by all rows, make the objective largest? Lengths, places and starts climb together.

Every pair of an arm and a start draws from its own stream, and rows do not touch each other, so that what is found for
one arm does not depend on which others were searched. Rows of a prefix start at embeddings of real tokens and are held,
after every step, inside the longest of them; the prefix that is handed back is the one of all checked steps and starts
that is best on the validation rows, which were not climbed on.

Source: the search is prompt tuning (Lester et al. 2021, arXiv 2104.08691) as an inversion of triggers (Wang et al.
2019, Neural Cleanse), chosen by held-out people.
"""

from collections.abc import Sequence
from typing import Literal, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from audit.bench.inversion.candidates import Candidates, Side
from audit.bench.inversion.climb import CandidatePair, Climb, SearchRows, SoftBudget, check_search, stream
from audit.bench.inversion.vocabulary import Vocabulary, check_context, check_places, vocabulary_of
from audit.bench.passes import LoadedModel
from audit.bench.results import RowObjective
from audit.schema import AuditError, Checkpoint


class Arm(NamedTuple):
    """Prefixes of one length at one place (``slot`` is its name): the position before which they stand in each of the
    rows that are climbed on, and in each of those that choose."""

    length: int
    slot: str
    train_at: Int[Tensor, " row"] | Literal["start"] = "start"
    validation_at: Int[Tensor, " row"] | Literal["start"] = "start"


class SoftPrefix(NamedTuple):
    """The best prefix of one arm. ``validation``: the mean objective on the validation rows under it; ``restart``: the
    start it comes from, whose mean objective on the train rows before each step is ``course``."""

    arm: Arm
    prefix: Float[Tensor, "n d"]
    validation: float
    restart: int
    course: Float[Tensor, " step"]
    steps_taken: int


def soft_prefixes(
    opened: LoadedModel, ckpt: Checkpoint, rows: SearchRows, arms: Sequence[Arm], objective: RowObjective,
    effort: tuple[SoftBudget, int],
) -> tuple[SoftPrefix, ...]:  # fmt: skip
    """The best prefix of every arm, in their order. ``effort``: the budget and the seed.

    AuditError: no arms or rows, one group on both sides, a place outside a prompt, rows longer than the model takes.
    """
    budget, seed = effort
    _check(ckpt, rows, arms, budget)
    vocabulary = vocabulary_of(opened.wrapper, ckpt)
    starts = [(arm, restart) for arm in arms for restart in range(budget.restarts)]
    prefixes = vocabulary.table.new_zeros(len(starts), max(arm.length for arm in arms), vocabulary.table.shape[1])
    for row, (arm, restart) in zip(prefixes, starts, strict=True):
        row[: arm.length] = _drawn(vocabulary, arm.length, stream(seed, arm.length, arm.slot, restart))
    at = Side(rows.train, [arm.train_at for arm, _ in starts], budget.targets)
    chosen_at = Side(rows.validation, [arm.validation_at for arm, _ in starts], budget.targets)
    counts = [arm.length for arm, _ in starts]

    def sides(going: list[int]) -> CandidatePair:
        return CandidatePair(
            *(Candidates(opened, side, counts, going, budget.token_budget) for side in (at, chosen_at))
        )

    climb = Climb(sides, objective, budget)
    climb.run(prefixes, vocabulary.ball)
    return tuple(
        _best_of_arm(climb, arm, range(n * budget.restarts, (n + 1) * budget.restarts)) for n, arm in enumerate(arms)
    )


def _best_of_arm(climb: Climb, arm: Arm, starts: range) -> SoftPrefix:
    """The best start of one arm."""
    best = climb.best_of(starts)
    taken = climb.taken[best]
    prefix, course = climb.vectors[best, : arm.length].cpu(), climb.course[best, :taken].clone()
    return SoftPrefix(arm, prefix, float(climb.best[best]), best - starts.start, course, taken)


def _drawn(vocabulary: Vocabulary, n: int, generator: torch.Generator) -> Float[Tensor, "n d"]:
    """Embeddings of random tokens."""
    ids = vocabulary.free[torch.randint(len(vocabulary.free), (n,), generator=generator)]
    return vocabulary.embedded(ids)


def _check(ckpt: Checkpoint, rows: SearchRows, arms: Sequence[Arm], budget: SoftBudget) -> None:
    check_search(rows, budget.targets)
    if not arms or min(arm.length for arm in arms) < 1 or budget.steps < 1 or budget.restarts < 1:
        raise AuditError("a search without lengths, starts or steps finds nothing", "give at least one of each")
    for arm in arms:
        check_places(rows.train, arm.train_at, arm.slot)
        check_places(rows.validation, arm.validation_at, arm.slot)
    for side in rows:
        check_context(ckpt, side, max(arm.length for arm in arms))
