"""Which states of one tower a batch's positions name: taken out of the whole state, and put back into it.

In a tower of tokens they are what :class:`~audit.bench.layout.Geometry` says. In a tower of an image the one target of
a row is its class, and the state that predicts it is the one that the head reads: the class token, or the mean of the
map, into which a state is put by moving all of the map alike.
"""

from math import prod
from typing import NamedTuple

import torch
from jaxtyping import Bool, Int, Shaped
from torch import Tensor

from audit.bench.layout import Geometry
from audit.case import Rows
from audit.schema import AuditError, Positions, Site
from audit.wrappers import PIXELS, Tower, Wrapper

WHOLE: frozenset[Positions] = frozenset({"all", "patches"})
"""Positions of which a row has several in a tower of an image."""


class Places(NamedTuple):
    """The positions of one batch in one tower."""

    where: Geometry
    tower: Tower

    def take(self, state: Shaped[Tensor, "row pos *rest"], at: Positions) -> Shaped[Tensor, "*entry"]:
        """The states at these positions, packed; at ``all`` and ``patches`` of an image [row pos ...]."""
        if self.tower.by_token:
            return state.flatten(0, 1)[self.where.flat(at)]
        if at in WHOLE:
            return state[:, self._first(at) :]
        if at == "mean":
            return state.float().mean(1).to(state.dtype)
        own = self.tower.summarised(state)
        return own if at == "last" else own[self._rows(at)]

    def put(
        self, state: Shaped[Tensor, "row pos *rest"], at: Positions, values: Shaped[Tensor, "*entry"]
    ) -> Shaped[Tensor, "row pos *rest"]:
        """The state with others at these positions, given as :meth:`take` gives them."""
        if self.tower.by_token:
            return state.flatten(0, 1).index_copy(0, self.where.flat(at), values.to(state.dtype)).view(state.shape)
        if at in WHOLE:
            return torch.cat([state[:, : self._first(at)], values.to(state.dtype)], 1)
        if at != "last":
            values = self.tower.summarised(state).index_copy(0, self._rows(at), values.to(state.dtype))
        if self.tower.summary == "class":
            return torch.cat([values[:, None].to(state.dtype), state[:, 1:]], 1)
        return state + (values.to(state.dtype) - self.tower.summarised(state))[:, None]

    def among(self, state: Shaped[Tensor, "row pos *rest"], at: Positions) -> Bool[Tensor, "row pos"]:
        """Which states these are. AuditError for the pooled map, which is the mean of all of them."""
        n, total = state.shape[:2]
        marked = torch.zeros(n, total, dtype=torch.bool, device=state.device)
        if self.tower.by_token:
            marked.view(-1)[self.where.flat(at)] = True
        elif at in WHOLE:
            marked[:, self._first(at) :] = True
        elif self.tower.summary == "class":
            marked[slice(None) if at == "last" else self._rows(at), 0] = True
        else:
            raise AuditError("a pooled map is no position of its own", "name all positions")
        return marked

    def _first(self, at: Positions) -> int:
        return self.tower.leading if at == "patches" else 0

    def _rows(self, at: Positions) -> Int[Tensor, " entry"]:
        return self.where.targets.cut(at, self.where.index).row.to(self.where.device)


def places(where: Geometry, wrapper: Wrapper, site: Site) -> Places:
    """The positions of a batch in the tower of a site."""
    return Places(where, wrapper.tower(site.tower))


def check_position(site: Site, tower: Tower, at: Positions) -> None:
    """AuditError where ``at`` names no place in the tower of a site."""
    if at == "patches" and tower.by_token:
        raise AuditError(f"{site} has no patches: its positions are those of tokens", "name all, last, answer or key")
    if not tower.by_token and tower.summary is None and at not in (*WHOLE, "mean"):
        raise AuditError(
            f"{site} cannot be read at {at!r}: the positions of this tower are not those of the rows' tokens",
            "read a site of the tower that the head reads",
        )


def row_positions(rows: Rows, wrapper: Wrapper) -> Int[Tensor, " row"]:
    """How many states each row has in the tower that the head reads, which is what a batch costs."""
    tower = wrapper.tower()
    if tower.by_token:
        return rows.lengths
    positions = tower.positions
    if tower.counted_on and PIXELS in rows.extra:
        positions = -(-positions * prod(rows.extra[PIXELS].shape[2:]) // tower.counted_on)
    return torch.full_like(rows.lengths, max(positions, 1))
