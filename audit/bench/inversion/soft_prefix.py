"""Which virtual tokens, shared by all rows, make the objective largest? Lengths, places and starts climb together.

Every pair of an arm and a start draws from its own stream, and rows do not touch each other, so that what is found for
one arm does not depend on which others were searched. Rows of a prefix start at embeddings of real tokens and are held,
after every step, inside the longest of them; the prefix that is handed back is the one of all checked steps and starts
that is best on the validation rows, which were not climbed on.

Source: the search is prompt tuning (Lester et al. 2021, arXiv 2104.08691) as an inversion of triggers (Wang et al.
2019, Neural Cleanse), chosen by held-out people.
"""

import hashlib
import math
from collections.abc import Sequence
from typing import Literal, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from audit.bench.inversion.candidates import Candidates, Side
from audit.bench.inversion.vocabulary import Vocabulary, check_context, check_places, vocabulary_of
from audit.bench.passes import LoadedModel
from audit.bench.results import RowObjective
from audit.case import Rows
from audit.schema import AuditError, Checkpoint, Positions


class Arm(NamedTuple):
    """Prefixes of one length at one place (``slot`` is its name): the position before which they stand in each of the
    rows that are climbed on, and in each of those that choose."""

    length: int
    slot: str
    train_at: Int[Tensor, " row"] | Literal["start"] = "start"
    validation_at: Int[Tensor, " row"] | Literal["start"] = "start"


class SoftBudget(NamedTuple):
    """How long to look: steps of Adam, their size ``lr`` in units of a typical number of an embedding, starts an arm.

    ``checks``: how often validation rows are looked at; ``patience``: a start ends after so many checks without a
    better one (0: never). ``targets``: the tokens that the objective sees, content tokens of the answer or all of it.
    """

    steps: int = 60
    lr: float = 0.05
    restarts: int = 3
    patience: int = 0
    token_budget: int = 16384
    clamp: bool = True
    checks: int = 12
    targets: Positions = "key"


class SoftPrefix(NamedTuple):
    """The best prefix of one arm. ``validation``: the mean objective on the validation rows under it; ``restart``: the
    start it comes from, whose mean objective on the train rows before each step is ``course``."""

    arm: Arm
    prefix: Float[Tensor, "n d"]
    validation: float
    restart: int
    course: Float[Tensor, " step"]
    steps_taken: int


class SearchRows(NamedTuple):
    """Rows to climb on, and rows of other groups to choose by."""

    train: Rows
    validation: Rows


def check_search(rows: SearchRows) -> None:
    """AuditError where a side is empty, or a group is on both."""
    if not len(rows.train) or not len(rows.validation):
        raise AuditError("a search needs rows", "give rows to search on and rows to choose by")
    if set(rows.train.group_ids) & set(rows.validation.group_ids):
        raise AuditError(
            "rows of one group are searched on and chosen by", "split the rows by group; one group cannot be split"
        )


def stream(*parts: object) -> torch.Generator:
    """A stream of random numbers that belongs to these parts alone."""
    digest = hashlib.sha256(" ".join(map(str, parts)).encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:7], "big"))


def soft_prefixes(
    opened: LoadedModel, ckpt: Checkpoint, rows: SearchRows, arms: Sequence[Arm], objective: RowObjective,
    how: tuple[SoftBudget, int],
) -> tuple[SoftPrefix, ...]:  # fmt: skip
    """The best prefix of every arm, in their order. ``how``: the budget and the seed.

    AuditError: no arms or rows, one group on both sides, a place outside a prompt, rows longer than the model takes.
    """
    budget, seed = how
    _check(ckpt, rows, arms, budget)
    vocabulary = vocabulary_of(opened.wrapper, ckpt)
    starts = [(arm, restart) for arm in arms for restart in range(budget.restarts)]
    prefixes = vocabulary.table.new_zeros(len(starts), max(arm.length for arm in arms), vocabulary.table.shape[1])
    for row, (arm, restart) in zip(prefixes, starts, strict=True):
        row[: arm.length] = _drawn(vocabulary, arm.length, stream(seed, arm.length, arm.slot, restart))
    climb = Climb(opened, rows, [arm for arm, _ in starts], objective, budget)
    climb.run(prefixes, vocabulary)
    best = [
        max(range(n * budget.restarts, (n + 1) * budget.restarts), key=lambda start: float(climb.best[start]))
        for n in range(len(arms))
    ]
    return tuple(
        SoftPrefix(
            arm, climb.prefixes[start, : arm.length].cpu(), float(climb.best[start]), start % budget.restarts,
            climb.course[start, : climb.taken[start]].clone(), climb.taken[start],
        )
        for arm, start in zip(arms, best, strict=True)
    )  # fmt: skip


def _drawn(vocabulary: Vocabulary, n: int, generator: torch.Generator) -> Float[Tensor, "n d"]:
    """Embeddings of random tokens."""
    ids = vocabulary.free[torch.randint(len(vocabulary.free), (n,), generator=generator)]
    return vocabulary.table[ids.to(vocabulary.table.device)]


def _check(ckpt: Checkpoint, rows: SearchRows, arms: Sequence[Arm], budget: SoftBudget) -> None:
    check_search(rows)
    if not arms or min(arm.length for arm in arms) < 1 or budget.steps < 1 or budget.restarts < 1:
        raise AuditError("a search without lengths, starts or steps finds nothing", "give at least one of each")
    for arm in arms:
        check_places(rows.train, arm.train_at, arm.slot)
        check_places(rows.validation, arm.validation_at, arm.slot)
    for side in rows:
        check_context(ckpt, side, max(arm.length for arm in arms))


class Climb:
    """Adam on all prefixes at once. After :meth:`run`: the best of every start, what it is worth, its course, its
    steps."""

    def __init__(
        self, opened: LoadedModel, rows: SearchRows, arms: Sequence[Arm], objective: RowObjective, budget: SoftBudget
    ) -> None:  # fmt: skip
        self.opened, self.objective, self.budget = opened, objective, budget
        self.counts = [arm.length for arm in arms]
        self.sides = (
            Side(rows.train, [arm.train_at for arm in arms], budget.targets),
            Side(rows.validation, [arm.validation_at for arm in arms], budget.targets),
        )
        self.best = torch.full((len(arms),), -math.inf)
        self.stale = torch.zeros(len(arms), dtype=torch.long)
        self.course = torch.zeros(len(arms), budget.steps)
        self.taken = [0] * len(arms)

    def run(self, prefixes: Float[Tensor, "start n d"], vocabulary: Vocabulary) -> None:
        """Climb from these starts. Those without patience left are in no batch any more."""
        budget, every = self.budget, max(1, self.budget.steps // max(self.budget.checks, 1))
        self.prefixes = prefixes.clone()
        going = list(range(len(prefixes)))
        train, validation = self._sides(going)
        optimiser = torch.optim.Adam([prefixes.requires_grad_()])
        self._look(prefixes, validation)
        for step in range(budget.steps):
            climbed = train.climbed(prefixes.detach(), self.objective)
            self.course[going, step] = climbed.value.mean(1)
            prefixes.grad = climbed.gradient / -train.n
            optimiser.param_groups[0]["lr"] = cosine(budget.lr * vocabulary.entry, step, budget.steps)
            optimiser.step()
            if budget.clamp:
                clamp_(prefixes, vocabulary.longest)
            for start in going:
                self.taken[start] = step + 1
            if (step + 1) % every == 0 or step + 1 == budget.steps:
                self._look(prefixes, validation)
                left = [n for n in going if not budget.patience or self.stale[n] < budget.patience]
                if not left:
                    return
                if left != going:
                    going = left
                    train, validation = self._sides(going)

    def _sides(self, going: list[int]) -> tuple[Candidates, Candidates]:
        train, validation = (
            Candidates(self.opened, side, self.counts, going, self.budget.token_budget) for side in self.sides
        )
        return train, validation

    def _look(self, prefixes: Tensor, validation: Candidates) -> None:
        """Keep what is better on the validation rows than before."""
        value = validation.values(prefixes.detach(), self.objective).mean(1)
        for start, mean in zip(validation.chosen, value.tolist(), strict=True):
            self.stale[start] += 1
            if mean > float(self.best[start]):
                self.best[start], self.stale[start] = mean, 0
                self.prefixes[start] = prefixes.detach()[start]


def cosine(largest: float, step: int, steps: int) -> float:
    """The size of a step on its way from ``largest`` to nothing."""
    return largest * 0.5 * (1 + math.cos(math.pi * step / steps))


def clamp_(vectors: Float[Tensor, "*any d"], longest: float) -> None:
    """Shorten, in place, what is longer."""
    with torch.no_grad():
        norms = vectors.norm(dim=-1, keepdim=True)
        vectors.mul_((longest / norms.clamp_min(torch.finfo(norms.dtype).tiny)).clamp_max(1.0))
