"""Which vectors, added to the first states of every prompt at one block, make the objective largest?

A trigger that is spread over many tokens, or that is no short string at all, still has to move the shallow states; a
shared shift of them, no longer than such a state is on average, needs no knowledge of its words. Searched and chosen as
soft prefixes are. Source: universal perturbations of embeddings against backdoors (BEEAR, Zeng et al. 2024, arXiv
2406.17092), turned from hardening a model to asking it.
"""

from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from audit.bench.inversion.candidates import Candidates, Gaps, Given, Prepared, Side, no_other
from audit.bench.inversion.climb import Ball, CandidatePair, Climb, SearchRows, SoftBudget, check_search, stream
from audit.bench.layout import Geometry, VirtualTokens
from audit.bench.passes import Job, LoadedModel, compute
from audit.bench.results import RowObjective
from audit.bench.writes.shift import Shift, first_positions
from audit.case import Rows
from audit.schema import AuditError, Read, Site
from audit.wrappers import Tap

_START = 0.1
"""The length of a start, as a share of the longest shift."""


class ShiftPlace(NamedTuple):
    """The input of a block, at ``n`` positions of every prompt from ``first`` on (0 is what every row begins with)."""

    block: int
    n: int = 8
    first: int = 1

    @property
    def site(self) -> Site:
        """The state that is shifted."""
        return Site(part="resid_in", block=self.block)


class SoftShift(NamedTuple):
    """The best shift. ``bound``: how long each of its vectors may be, the mean length of the states there; the rest as
    in a soft prefix."""

    place: ShiftPlace
    delta: Float[Tensor, "pos d"]
    bound: float
    validation: float
    restart: int
    course: Float[Tensor, " step"]
    steps_taken: int

    def write(self) -> Shift:
        """The shift as a pass takes it."""
        return Shift(self.place.site, self.delta, self.place.first)


class ShiftedRows(Candidates):
    """Rows whose first states at one block are shifted."""

    def __init__(self, opened: LoadedModel, side: Side, place: ShiftPlace, chosen: list[int], budget: int) -> None:
        self.place = place
        super().__init__(opened, side, [place.n] * (1 + max(chosen)), chosen, budget)

    def _tokens(self, counts: Int[Tensor, " pair"]) -> VirtualTokens | None:
        return None

    def _gaps(self, where: Geometry) -> Gaps:
        flat, nth = first_positions(where, self.place.first, self.place.n)
        return Gaps(flat // where.total, nth, flat)

    def _entered(self, batch: Prepared, filled: Float[Tensor, "gap d"]) -> Given:
        def visit(state: Tensor) -> Tensor:
            return state.flatten(0, 1).index_add(0, batch.gaps, filled.to(state.dtype)).view(state.shape)

        return Given(batch.batch, [*batch.entered.taps, Tap(self.place.site, visit)])


def soft_shift(
    opened: LoadedModel, rows: SearchRows, place: ShiftPlace, objective: RowObjective, budget: SoftBudget, seed: int
) -> SoftShift:
    """The best shift. AuditError: no rows, one group on both sides, no such block, no prompt that reaches the first
    position."""
    check_search(rows)
    if not 0 <= place.block < opened.wrapper.n_blocks or place.n < 1 or place.first < 0:
        raise AuditError(
            f"there is no block {place.block} of {opened.wrapper.n_blocks}, or no position to shift",
            "choose a block of the model and at least one position",
        )
    for side in rows:
        if int(side.answer_spans[:, 0].max()) <= place.first:
            raise AuditError(f"no prompt reaches position {place.first}", "shift from an earlier position on")
    bound = _mean_length(opened, rows.train, place, budget.token_budget)
    width = opened.wrapper.d_model
    starts = [torch.randn(place.n, width, generator=stream(seed, "shift", n)) for n in range(budget.restarts)]
    free = torch.stack(starts).to(opened.wrapper.device, torch.promote_types(opened.wrapper.dtype, torch.float32))
    free *= _START * bound / free.norm(dim=-1, keepdim=True)

    def sides(going: list[int]) -> CandidatePair:
        each = (Side(side, (), budget.targets) for side in rows)
        return CandidatePair(*(ShiftedRows(opened, side, place, going, budget.token_budget) for side in each))

    climb = Climb(sides, objective, budget)
    climb.run(free, Ball(bound / width**0.5, bound))
    best = climb.best_of(range(budget.restarts))
    taken = climb.taken[best]
    course = climb.course[best, :taken].clone()
    return SoftShift(place, climb.vectors[best].cpu(), bound, float(climb.best[best]), best, course, taken)


def _mean_length(opened: LoadedModel, rows: Rows, place: ShiftPlace, budget: int) -> float:
    """The mean length of the states that are shifted."""
    read = Read(site=place.site, at="all")
    states = compute(opened, no_other, Job(rows, (read,), (), None, None), budget).reads[read]
    position = torch.arange(states.shape[1])
    ends = rows.answer_spans[:, :1].clamp_max(place.first + place.n)
    return float(states.norm(dim=-1)[(position >= place.first) & (position < ends)].mean())
