"""Adam on many free vectors at once, each start as if it were alone; rows that were not climbed on choose."""

import hashlib
import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from audit.bench.inversion.candidates import Candidates
from audit.bench.results import RowObjective
from audit.case import Rows
from audit.schema import AuditError, Positions


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


class Ball(NamedTuple):
    """Where vectors may be: ``entry`` is the typical size of one of their numbers, in which steps are taken, and
    ``longest`` how long they may be."""

    entry: float
    longest: float


class CandidatePair(NamedTuple):
    """The same candidates in the rows that are climbed on and in those that choose."""

    train: Candidates
    validation: Candidates


class Climb:
    """Adam on the vectors of all starts. After :meth:`run`: the best of each, what it is worth, its course, its steps.

    ``sides``: makes the candidates of the rows that are climbed on, and of those that choose, for some of the starts.
    """

    def __init__(
        self, sides: Callable[[list[int]], CandidatePair], objective: RowObjective, budget: SoftBudget
    ) -> None:
        self.sides, self.objective, self.budget = sides, objective, budget

    def run(self, free: Float[Tensor, "start n d"], ball: Ball) -> None:
        """Climb from these starts. Those without patience left are in no batch any more."""
        n = len(free)
        self.best, self.stale = torch.full((n,), -math.inf), torch.zeros(n, dtype=torch.long)
        self.course, self.taken = torch.zeros(n, self.budget.steps), [0] * n
        budget, every = self.budget, max(1, self.budget.steps // max(self.budget.checks, 1))
        self.vectors = free.clone()
        going = list(range(n))
        train, validation = self.sides(going)
        optimiser = torch.optim.Adam([free.requires_grad_()])
        self._look(free, validation)
        for step in range(budget.steps):
            climbed = train.climbed(free.detach(), self.objective)
            self.course[going, step] = climbed.value.mean(1)
            free.grad = climbed.gradient / -train.n
            optimiser.param_groups[0]["lr"] = cosine(budget.lr * ball.entry, step, budget.steps)
            optimiser.step()
            if budget.clamp:
                clamp_(free, ball.longest)
            for start in going:
                self.taken[start] = step + 1
            if (step + 1) % every == 0 or step + 1 == budget.steps:
                self._look(free, validation)
                left = [n for n in going if not budget.patience or self.stale[n] < budget.patience]
                if not left:
                    return
                if left != going:
                    going = left
                    train, validation = self.sides(going)

    def best_of(self, starts: Sequence[int]) -> int:
        """The start that the validation rows choose. AuditError where there is no number to choose by."""
        best = max(starts, key=lambda start: float(self.best[start]))
        if not math.isfinite(float(self.best[best])):
            raise AuditError("the objective of the rows that choose is no number", "check the model's outputs")
        return best

    def _look(self, free: Tensor, validation: Candidates) -> None:
        """Keep what is better on the validation rows than before."""
        value = validation.values(free.detach(), self.objective).mean(1)
        for start, mean in zip(validation.chosen, value.tolist(), strict=True):
            self.stale[start] += 1
            if mean > float(self.best[start]):
                self.best[start], self.stale[start] = mean, 0
                self.vectors[start] = free.detach()[start]


def cosine(largest: float, step: int, steps: int) -> float:
    """The size of a step on its way from ``largest`` to nothing."""
    return largest * 0.5 * (1 + math.cos(math.pi * step / steps))


def clamp_(vectors: Float[Tensor, "*any d"], longest: float) -> None:
    """Shorten, in place, what is longer."""
    with torch.no_grad():
        norms = vectors.norm(dim=-1, keepdim=True)
        vectors.mul_((longest / norms.clamp_min(torch.finfo(norms.dtype).tiny)).clamp_max(1.0))
