"""What every way of collecting reads has in common: its taps, and where a batch's entries are kept."""

from abc import ABC, abstractmethod
from collections.abc import Sequence

from jaxtyping import Int
from torch import Tensor

from audit.bench.layout import Geometry, Targets
from audit.case import Rows
from audit.schema import Positions, Read, Site
from audit.wrappers import Tap, Wrapper

FINAL = Site(part="final_in")


class Readout(ABC):
    """Some reads that are collected in the same way."""

    def __init__(self, rows: Rows, targets: Targets, reads: Sequence[Read]) -> None:
        self.rows, self.targets, self.reads = rows, targets, reads

    @abstractmethod
    def taps(self, wrapper: Wrapper, where: Geometry, bias: Tensor | None) -> list[Tap]:
        """Taps for one batch."""

    @abstractmethod
    def close(self) -> None:
        """Move what the batch's taps pooled to where it is kept."""

    @abstractmethod
    def results(self) -> list[Tensor]:
        """One tensor a read."""

    def size(self, at: Positions) -> int:
        """Length of the first axis over all rows."""
        return self.targets.total(at) if at in ("answer", "key") else len(self.rows)

    def place(self, where: Geometry) -> Int[Tensor, " entry"] | None:
        """Where this batch's entries lie among all; None: they are all, in order."""
        return where.entries(self.reads[0].at)


def of_head(state: Tensor, site: Site) -> Tensor:
    """The one head that a site names, or all of them."""
    if site.head is None:
        return state
    return state[:, site.head] if site.part == "pattern" else state[:, :, site.head]


def tapped(site: Site) -> Site:
    """Where the wrapper taps: the whole of a part; logits are read from the states that the head reads."""
    if site.part == "logits":
        return FINAL
    return site if site.head is None else site.model_copy(update={"head": None})
