"""A pass whose rows go forward no further than its reads need, and whose common beginnings go forward once.

Exact up to the order of summation: a state is read where it is computed, in a beginning or in what follows it, and is
the state of every row that has these tokens. What is written into, starts from a state or reads more than states at
targets runs whole rows.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

import torch
from jaxtyping import Int
from torch import Tensor
from transformers import DynamicCache

from audit.bench.batching import batches, halving, padded_tokens
from audit.bench.layout import Geometry, Packed, Targets
from audit.bench.prefix_sharing import TARGETED, Stem, TokenPlan, token_plan
from audit.bench.reads.readout import Readout
from audit.bench.reads.readouts import STREAM
from audit.case import Rows
from audit.schema import Positions, Read
from audit.wrappers import Batch, NativeWrapper, Stop, Wrapper, kept_in


def parted(wrapper: Wrapper, rows: Rows, reads: Sequence[Read]) -> TokenPlan | None:
    """The tokens that a pass without writes has to run for these reads; None where it runs whole rows."""
    if not isinstance(wrapper, NativeWrapper) or rows.extra or not reads or not len(rows):
        return None
    if not all(read.at in TARGETED and _of_stream(wrapper, read) for read in reads):
        return None
    return token_plan(rows, reads, lambda: wrapper.continues)


def _of_stream(wrapper: Wrapper, read: Read) -> bool:
    """Is it a score, or a state of the stream of tokens?"""
    site = read.site
    known = (site.part in STREAM or site.part == "logits") and site.head is None
    return known and read.reduce not in ("norm", "received") and wrapper.tower(site.tower).by_token


class Part(NamedTuple):
    """Columns ``first`` to ``end`` of rows that go forward (``carriers``). ``members``: the rows whose states these
    are, and ``carried_by``: the place of each one's carrier."""

    first: int
    end: int
    carriers: Int[Tensor, " carrier"]
    members: Int[Tensor, " member"]
    carried_by: Int[Tensor, " member"]


class _PartTargets(Targets):
    """Of the rows' targets those that a part predicts; rows are numbered as its members are."""

    def __init__(self, every: Targets, part: Part) -> None:
        super().__init__(every.rows)
        self._every, self._part, self._cut = every, part, dict[Positions, Packed]()

    def cut(self, at: Positions, index: Int[Tensor, " row"] | None) -> Packed:
        if at not in self._cut:
            row, position, place = self._every.cut(at, self._part.members)
            inside = (position > self._part.first) & (position <= self._part.end)
            assert place is not None, "members are named"
            self._cut[at] = Packed(row[inside], position[inside], place[inside])
        return self._cut[at]


class PartGeometry(Geometry):
    """One part as reads see it: positions of states among its columns; ``ids`` are whole rows of its members."""

    def __init__(self, targets: Targets, part: Part, device: torch.device) -> None:
        super().__init__(_PartTargets(targets, part), part.members, None, device)
        self.part, self.n, self.total = part, len(part.carriers), part.end - part.first

    def flat(self, at: Positions) -> Int[Tensor, " token"]:
        """Places of states among the part's columns, row after row."""
        if at not in self._flat:
            if at == "last":
                row, position = self._inside(), self.lengths[self._inside()]
            else:
                row, position, _ = self.targets.cut(at, None)
            self._flat[at] = (self.part.carried_by[row] * self.total + position - 1 - self.part.first).to(self.device)
        return self._flat[at]

    def entries(self, at: Positions) -> Int[Tensor, " entry"] | None:
        """The rows of the whole order that this part gives an entry of; None where all of them."""
        return self.part.members[self._inside()] if at == "last" else super().entries(at)

    def _inside(self) -> Int[Tensor, " member"]:
        """The members whose last state is among the columns."""
        return ((self.lengths > self.part.first) & (self.lengths <= self.part.end)).nonzero()[:, 0]


class PartedPass:
    """One pass by its plan: what it is asked for goes into the ``groups``."""

    def __init__(
        self, wrapper: Wrapper, targets: Targets, plan: TokenPlan, groups: Sequence[Readout], stop: Stop | None
    ) -> None:
        self._wrapper, self._targets, self._plan, self._groups, self._stop = wrapper, targets, plan, groups, stop
        counts = torch.bincount(plan.carrier, minlength=len(plan.carrier))
        self._carried = plan.carrier.argsort(stable=True).split(counts.tolist())

    def run(self, budget: int) -> int:
        """Run every part; returns how often memory made a batch smaller. ``budget``: padded tokens a batch, those
        whose keys and values are looked at among them."""
        unshared = self._plan.unshared
        halvings = self._batched(unshared, 0, budget, lambda index: self._forward(self._part(unshared[index], 0), None))
        for stem in self._plan.stems:
            run = partial(self._after_heads, stem, budget)
            size = max(1, padded_tokens(budget, self._wrapper.device) // stem.cut)
            for part in torch.arange(len(stem.heads)).split(size):
                halvings += halving(run, part, len(stem.heads))
        return halvings

    def _batched(self, rows: Int[Tensor, " row"], first: int, budget: int, run: Callable[[Tensor], None]) -> int:
        """Rows from a position on in batches of like lengths; ``run`` is given their places."""
        if not len(rows):
            return 0
        lengths, every = self._plan.ends[rows] - first, torch.arange(len(rows))
        longest = int(lengths.max())
        most = max(1, budget * longest // (first + longest))
        cut = batches(lengths, longest, most, self._wrapper.device)
        return sum(halving(lambda index: run(every if index is None else index), index, len(rows)) for index in cut)

    def _after_heads(self, stem: Stem, budget: int, heads: Tensor | None) -> None:
        """Some beginnings, and what follows them."""
        heads = torch.arange(len(stem.heads)) if heads is None else heads
        after = torch.isin(stem.head_of, heads)
        tails, head_of = stem.tails[after], torch.searchsorted(heads, stem.head_of[after])
        cache, members = DynamicCache(), self._members(tails)
        carried_by = head_of.repeat_interleave(torch.tensor([len(self._carried[n]) for n in tails.tolist()]))
        self._forward(Part(0, stem.cut, stem.heads[heads], members, carried_by), cache)
        past = kept_in(cache)

        def go_on(index: Tensor) -> None:
            taken = past.take(head_of[index].to(self._wrapper.device))
            self._forward(self._part(tails[index], stem.cut), DynamicCache(taken.blocks))

        self._batched(tails, stem.cut, budget, go_on)

    def _members(self, carriers: Int[Tensor, " row"]) -> Int[Tensor, " member"]:
        return torch.cat([self._carried[n] for n in carriers.tolist()])

    def _part(self, carriers: Int[Tensor, " row"], first: int) -> Part:
        """These rows from a position on, for all rows that they carry."""
        counts = torch.tensor([len(self._carried[n]) for n in carriers.tolist()])
        carried_by = torch.arange(len(carriers)).repeat_interleave(counts)
        return Part(first, int(self._plan.ends[carriers].max()), carriers, self._members(carriers), carried_by)

    def _forward(self, part: Part, cache: DynamicCache | None) -> None:
        """Run one part; what is read in it goes into its place."""
        device, rows = self._wrapper.device, self._targets.rows
        where = PartGeometry(self._targets, part, device)
        read = [group for group in self._groups if any(len(where.flat(read.at)) for read in group.reads)]
        taps = [tap for group in read for tap in group.taps(self._wrapper, where, None)]
        columns = torch.arange(part.first, part.end)
        real = columns < self._plan.ends[part.carriers, None]
        ids = rows.ids[part.carriers, part.first : part.end].to(device)
        self._wrapper.forward(Batch(ids, real.to(device), cache=cache), taps, None, self._stop)
        for group in read:
            group.close()
