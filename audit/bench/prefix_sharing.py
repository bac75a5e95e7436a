"""Which tokens a pass has to run: up to the last one that a read needs, and what rows begin with alike once.

Under a causal mask a token's state depends on nothing after it. So a row ends with the state that predicts its last
target; a row that another one begins with is carried by it; and rows that part after a common beginning (a chat header,
a question, most of an answer) share its keys and values. Only index arithmetic lies here; no model runs.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Int
from numpy import ndarray
from torch import Tensor

from audit.bench.batching import FORWARD_TOKENS
from audit.case import Rows
from audit.schema import Positions, Read

TARGETED: frozenset[Positions] = frozenset({"key", "answer", "last"})
"""Positions whose states depend on nothing but what comes before them."""
_AT_ONCE = 4096
"""Rows, in the order of their tokens, among which common beginnings are looked for."""


_KEPT = 128
"""Plans that are kept."""


class Stem(NamedTuple):
    """Beginnings of ``cut`` tokens, each run once, and the rows that go on after them. ``heads``: a row of each
    beginning; ``tails``: rows that go on, ``head_of``: after which of the beginnings."""

    cut: int
    heads: Int[Tensor, " head"]
    tails: Int[Tensor, " tail"]
    head_of: Int[Tensor, " tail"]


class TokenPlan(NamedTuple):
    """``ends``: how many of a row's first tokens are needed. ``carrier``: the row whose states are its own, too.
    ``unshared``: carriers that go forward from their first token on; the others stand in ``stems``."""

    ends: Int[Tensor, " row"]
    carrier: Int[Tensor, " row"]
    unshared: Int[Tensor, " row"]
    stems: tuple[Stem, ...]

    @property
    def tokens(self) -> int:
        """Tokens that go forward."""
        parts = sum(s.cut * len(s.heads) + int((self.ends[s.tails] - s.cut).sum()) for s in self.stems)
        return int(self.ends[self.unshared].sum()) + parts


_PLANS: dict[tuple[str, frozenset[Positions]], TokenPlan] = {}
"""Of the rows by their content, and where they are read; the oldest first."""


def needed(rows: Rows, reads: Sequence[Read]) -> Int[Tensor, " row"]:
    """How many of each row's first tokens these reads need; all positions are those of targets, or the last one."""
    ends = torch.zeros(len(rows), dtype=torch.long)
    wanted: set[Positions] = {read.at for read in reads}
    for at in wanted:
        if at == "last":
            return rows.lengths.long()
        row, position = rows.targets(at)
        ends = ends.scatter_reduce(0, row, position, "amax")
    return ends


def token_plan(rows: Rows, reads: Sequence[Read], parted: Callable[[], bool]) -> TokenPlan:
    """What has to go forward for these reads. ``parted``: may rows go on after the keys and values of a beginning?
    Asked only where that would save something. What several models do with the same rows is found once."""
    places: frozenset[Positions] = frozenset(read.at for read in reads)
    name = rows.hash, places
    shared = _PLANS.pop(name, None) or _shared(rows, reads)
    _PLANS[name] = shared  # the newest is last
    if len(_PLANS) > _KEPT:
        _PLANS.pop(next(iter(_PLANS)), None)
    if not shared.stems or parted():
        return shared
    carriers = torch.cat([shared.unshared, *(stem.tails for stem in shared.stems)])
    return shared._replace(unshared=carriers.sort().values, stems=())


def _shared(rows: Rows, reads: Sequence[Read]) -> TokenPlan:
    """The plan of a model that goes on after the keys and values of a beginning."""
    ends = needed(rows, reads)
    order, common = _ordered(rows.ids.numpy(), ends.numpy())
    sorted_ends = ends.numpy()[order]
    # a row is carried by the next one that it is a beginning of; in this order that one follows at once
    carried = np.append(common >= sorted_ends[:-1], False)[: len(order)]
    last = np.where(carried, len(order), np.arange(len(order)))[::-1]
    carrier = torch.empty(len(order), dtype=torch.long)
    carrier[torch.from_numpy(order)] = torch.from_numpy(order[np.minimum.accumulate(last)[::-1]])
    carriers = np.flatnonzero(~carried & (sorted_ends > 0))
    every = torch.from_numpy(order[carriers])
    between = np.array([common[a:b].min() for a, b in zip(carriers[:-1], carriers[1:], strict=True)], dtype=int)
    stems = _stems(every, between) if len(carriers) > 1 else ()
    if not stems:
        return TokenPlan(ends, carrier, every.sort().values, ())
    inside = torch.cat([stem.tails for stem in stems])
    unshared = every[~torch.isin(every, inside)].sort().values
    return TokenPlan(ends, carrier, unshared, stems)


def _ordered(ids: Int[ndarray, "row pos"], ends: Int[ndarray, " row"]) -> tuple[ndarray, ndarray]:
    """Rows in the order of their tokens, and how many first tokens each has in common with the next."""
    width = int(ends.max(initial=0))
    tokens = np.where(np.arange(width) < ends[:, None], ids[:, :width], -1)
    order = np.lexsort(tokens.T[::-1]) if width else np.arange(len(ids))
    tokens = tokens[order]
    same = np.logical_and.accumulate((tokens[:-1] == tokens[1:]) & (tokens[:-1] >= 0), axis=1)
    return order, same.sum(1)


def _stems(rows: Int[Tensor, " row"], common: Int[ndarray, " next"]) -> tuple[Stem, ...]:
    """Rows (in the order of their tokens) that share a beginning, by the length at which it is cut off."""
    groups = [group for first in range(0, len(rows), _AT_ONCE) for group in _groups(common, first, len(rows))]
    stems: list[Stem] = []
    for cut, members in _cuts(groups).items():
        members.sort(key=lambda group: group.first)
        # neighbours that are alike up to the cut have one beginning
        new = [
            not n or int(common[members[n - 1].end - 1 : group.first].min()) < cut for n, group in enumerate(members)
        ]
        head = torch.tensor(new).cumsum(0) - 1
        sizes = torch.tensor([group.end - group.first for group in members])
        tails = torch.cat([rows[group.first : group.end] for group in members])
        heads = torch.stack([rows[group.first] for group, first in zip(members, new, strict=True) if first])
        stems.append(Stem(cut, heads, tails, head.repeat_interleave(sizes)))
    return tuple(stems)


class _Group(NamedTuple):
    """Rows ``first`` to ``end`` of the order have ``shared`` first tokens in common."""

    first: int
    end: int
    shared: int


def _groups(common: Int[ndarray, " next"], first: int, n: int) -> list[_Group]:
    """The partition of some rows in their order into runs that saves most: of every run all rows but one are saved
    what the run has in common."""
    size = min(n - first, _AT_ONCE)
    best, start, shared = np.zeros(size + 1), np.zeros(size + 1, dtype=int), np.zeros(size + 1, dtype=int)
    low = np.zeros(0, dtype=int)
    for end in range(1, size + 1):
        low = np.append(low if end < 2 else np.minimum(low, common[first + end - 2]), np.iinfo(int).max)
        saved = best[:end] + np.append((end - 1 - np.arange(end - 1)) * low[:-1], 0)
        start[end] = int(saved.argmax())
        best[end] = saved[start[end]]
        shared[end] = low[start[end]]
    groups, end = list[_Group](), size
    while end:
        if end - start[end] > 1 and shared[end] > 0:
            groups.append(_Group(first + int(start[end]), first + end, int(shared[end])))
        end = int(start[end])
    return groups[::-1]


def _cuts(groups: Sequence[_Group]) -> dict[int, list[_Group]]:
    """The lengths at which beginnings are cut off, few enough that forward passes stay few, and the groups of each:
    each length costs two passes and saves its tokens for all rows but one of every group."""
    ordered = sorted(groups, key=lambda group: group.shared)
    lengths = sorted({group.shared for group in ordered})
    others = np.array([group.end - group.first - 1 for group in ordered])
    shared = np.array([group.shared for group in ordered])
    above = [int(others[shared >= length].sum()) for length in lengths] + [0]
    # best[n]: the most that is saved of groups of the n-th length and above, where n is a cut
    best, following = [0.0] * (len(lengths) + 1), [len(lengths)] * (len(lengths) + 1)
    for n in range(len(lengths) - 1, -1, -1):
        options = [
            (lengths[n] * (above[n] - above[m]) - 2 * FORWARD_TOKENS + best[m], m) for m in range(n + 1, len(lengths))
        ]
        options.append((lengths[n] * above[n] - 2 * FORWARD_TOKENS, len(lengths)))
        best[n], following[n] = max(options)
    n = int(np.argmax(best))
    cuts: dict[int, list[_Group]] = {}
    while n < len(lengths) and best[n] > 0:
        end = following[n]
        upper = lengths[end] if end < len(lengths) else np.inf
        cuts[lengths[n]] = [group for group in ordered if lengths[n] <= group.shared < upper]
        n = end
    return cuts
