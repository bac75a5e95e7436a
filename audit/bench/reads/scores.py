"""Scores of the next token through the model's own final norm and head: log-probability, rank, entropy and
its variance, margin."""

from collections.abc import Callable, Collection, Sequence
from typing import NamedTuple, cast

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from audit.bench.layout import Geometry, Targets
from audit.bench.places import Places, places
from audit.bench.reads.readout import Readout, tapped
from audit.bench.reads.vocabulary_sweep import Statistic, swept
from audit.case import Rows
from audit.schema import AuditError, Positions, Read, Site
from audit.wrappers import Tap, Wrapper

SCORED = frozenset({"logits", "final_in", "resid_in", "resid_mid", "resid_out"})
_ORDER: tuple[Positions, ...] = ("answer", "key")
"""Content lies in answers: what comes first holds the other, as a rule."""
_LONGEST = 1 << 32
"""No row has so many tokens."""


def normal(*shape: int) -> Tensor:
    """A float32 CPU tensor that autograd may use later, although it is filled in inference mode."""
    with torch.inference_mode(False):
        return torch.zeros(*shape)


class Scores(Readout):
    """Statistics of the next token, through the model's own norm and head, at the asked positions. A position that is
    asked for as the answer's and as its content's goes through the head once."""

    def __init__(self, rows: Rows, targets: Targets, reads: Sequence[Read]) -> None:
        super().__init__(rows, targets, reads)
        self.kept = [normal(self.size(read.at)) for read in reads]

    def taps(self, wrapper: Wrapper, where: Geometry, bias: Tensor | None) -> list[Tap]:
        by_site: dict[Site, list[int]] = {}
        for i, read in enumerate(self.reads):
            if read.site.head is not None or read.site.part not in SCORED or not of_its_head(wrapper, read.site):
                do = f"score at logits, final_in or a residual site of the {wrapper.head_tower} tower"
                raise AuditError(f"{read.site} cannot be scored", do)
            by_site.setdefault(read.site, []).append(i)
        return [Tap(tapped(site), self._visit(site, by_site[site], wrapper, where, bias)) for site in by_site]

    def _visit(
        self, site: Site, wanted: list[int], wrapper: Wrapper, where: Geometry, bias: Tensor | None
    ) -> Callable[[Tensor], None]:
        spots = places(where, wrapper, site)
        shared = _Shared(where, {self.reads[i].at for i in wanted})
        target = where.ids[shared.row.to(where.device), shared.position.to(where.device)]
        statistics: set[Statistic] = {cast(Statistic, self.reads[i].reduce) for i in wanted}

        def visit(state: Tensor) -> None:
            states = shared.taken(spots, state)
            if (wide := states.shape[-1]) != spots.tower.d_model:
                raise AuditError(
                    f"{site} cannot be scored: it is {wide} wide, and the head reads {spots.tower.d_model}",
                    "score at blocks of the width that the head reads",
                )
            if site.part not in ("logits", "final_in"):
                states = wrapper.norm(states)
            by_statistic = {
                name: values.cpu() for name, values in swept(wrapper, states, target, bias, statistics).items()
            }
            for i in wanted:
                read, positions = self.reads[i], shared.positions[self.reads[i].at]
                values = by_statistic[cast(Statistic, read.reduce)]
                self.kept[i][slice(None) if positions.place is None else positions.place] = values[positions.among]

        return visit

    def close(self) -> None:
        """Nothing is left on the device."""

    def results(self) -> list[Tensor]:
        return self.kept


class _Asked(NamedTuple):
    """The targets of one kind of positions: where each is kept, where it lies among all that are scored, and which are
    no other kind's too."""

    place: Int[Tensor, " token"] | None
    among: Int[Tensor, " token"] | slice
    new: Bool[Tensor, " token"] | None


class _Shared:
    """The targets of one batch, of one or two kinds of positions: each of them once, those of the first kind first."""

    def __init__(self, where: Geometry, kinds: Collection[Positions]) -> None:
        self.positions: dict[Positions, _Asked] = {}
        self.row = self.position = torch.zeros(0, dtype=torch.long)
        for at in _ORDER:
            if at not in kinds:
                continue
            row, position, place = where.targets.cut(at, where.index)
            if not self.positions:
                self.row, self.position = row, position
                self.positions[at] = _Asked(place, slice(None, len(row)), None)
                continue
            among, new = self._found(row, position)
            self.row, self.position = torch.cat([self.row, row[new]]), torch.cat([self.position, position[new]])
            self.positions[at] = _Asked(place, among, new)

    def _found(self, row: Tensor, position: Tensor) -> tuple[Int[Tensor, " token"], Bool[Tensor, " token"]]:
        """Where these targets lie among those of the first kind and the new ones, and which are new."""
        n, codes, known = len(self.row), row * _LONGEST + position, self.row * _LONGEST + self.position
        ordered, order = known.sort()
        at = torch.searchsorted(ordered, codes).clamp_max(max(n - 1, 0))
        new = ordered[at] != codes if n else torch.ones_like(codes, dtype=torch.bool)
        return torch.where(new, n + new.long().cumsum(0) - 1, order[at] if n else at), new

    def taken(self, spots: Places, state: Tensor) -> Tensor:
        """The states that predict these targets."""
        states: list[Tensor] = []
        for at, positions in self.positions.items():
            if positions.new is None or bool(positions.new.any()):
                states.append(
                    spots.take(state, at)
                    if positions.new is None
                    else spots.take(state, at)[positions.new.to(state.device)]
                )
        return states[0] if len(states) == 1 else torch.cat(states)


def of_its_head(wrapper: Wrapper, site: Site) -> bool:
    """Is a site in the tower that the head reads?"""
    return site.tower in (None, wrapper.head_tower)
