"""What a write is: a change of a state on the way through a model, which says everything about itself.

A file of this folder with one subclass of :class:`Write` is a write. What the bench has to know of it (what a pass with
it is called, what it does to a batch, whether it does anything, how it lies on disk as an edit) the class answers.
"""

import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple, Self

from torch import Tensor

from audit.bench.layout import Geometry, VirtualTokens
from audit.bench.reads.readout import of_head
from audit.schema import AuditError, Checkpoint, Positions, Site
from audit.storage import tensor_sha256
from audit.wrappers import Tap, Wrapper

_SITE = re.compile(r"(?P<tower>\w+)\.(?:(?P<block>\d+)\.)?(?P<part>[a-z_]+)")
Visit = Callable[[Tensor], Tensor | None]


class OtherState(NamedTuple):
    """A state of another model for the same batch: packed at ``positions``, or as it is where there are none."""

    source: Checkpoint
    site: Site
    positions: Positions | None


class Write(ABC):
    """Base of every write: a frozen dataclass of tensors and settings, compared by identity."""

    @classmethod
    def kind(cls) -> str:
        """The file's name: what cache keys and the records of edits call this write."""
        return cls.__module__.rpartition(".")[2]

    @abstractmethod
    def key(self) -> Sequence[str] | None:
        """The content of this write, which names every pass with it; None where it has no name: such a pass is not
        cached."""

    @abstractmethod
    def taps(self, wrapper: Wrapper, where: Geometry, given: Tensor | None) -> list[Tap]:
        """What it does to one batch. ``given``: the state that :meth:`other_state` asks for. AuditError: no such place,
        or tensors that do not fit the rows."""

    @abstractmethod
    def bites(self) -> bool:
        """Can it change a state or a logit at all?"""

    def other_state(self) -> OtherState | None:
        """Another model's state that it needs for every batch."""
        return None

    def virtual_tokens(self) -> VirtualTokens | None:
        """What it puts into the embedded input of every row."""
        return None

    def logit_shift(self) -> Tensor | None:
        """What it adds to the logits at every position, [vocab]."""
        return None

    def to_delta(self) -> dict[str, Tensor]:
        """Its arrays in the file of an edit, see :func:`edit_delta`; all zero means no change. AuditError if it cannot
        be stored."""
        raise AuditError(
            f"a {self.kind()} write cannot be stored as an edit",
            "give it to a pass instead, or store weights or a write that has a delta",
        )

    @classmethod
    def from_delta(cls, delta: Mapping[str, Tensor]) -> tuple[Self, ...]:
        """The writes of a stored edit. ValueError, as the end of a sentence about it, for other arrays than those of
        :func:`edit_delta`."""
        raise ValueError(f"plays {cls.kind()!r}, which is a write that cannot be stored")


def edit_delta(writes: Sequence[Write]) -> dict[str, Tensor]:
    """The arrays of one edit that consists of these writes, all of one kind. AuditError if they cannot be stored so."""
    delta: dict[str, Tensor] = {}
    for write in writes:
        arrays = write.to_delta()
        if delta.keys() & arrays.keys() or write.kind() != writes[0].kind():
            raise AuditError(
                f"two {write.kind()} writes at one place, or two kinds, cannot be stored in one record",
                "store them as two edits",
            )
        delta |= arrays
    return delta


def site_of(name: str) -> Site:
    """The site whose ``str`` this is, as arrays are named after it. ValueError, as :meth:`Write.from_delta` says."""
    parts = _SITE.fullmatch(name)
    fields = {k: v for k, v in parts.groupdict().items() if v is not None} if parts else {}
    if fields.get("tower") == "text":
        del fields["tower"]  # what the head reads, as :meth:`Site.__str__` has it
    try:
        return Site.model_validate(fields)
    except ValueError:
        raise ValueError(f"names {name!r}, which is no site") from None


def tap_at(site: Site, visit: Visit) -> Tap:
    """The tap of one site; a site of one head changes that head only. AuditError for logits, which have no tap."""
    if site.part == "logits":
        raise AuditError("logits are written by LogitBias only", "use LogitBias, or write at final_in")
    if site.head is None:
        return Tap(site, visit)

    def of_one(state: Tensor) -> Tensor | None:
        new = visit(of_head(state, site))
        if new is None:
            return None
        state = state.clone()
        of_head(state, site).copy_(new)
        return state

    return Tap(site.model_copy(update={"head": None}), of_one)


def check_positions(site: Site, positions: Positions | None, change: str) -> None:
    """Can the states at ``site`` be told apart by position? AuditError if not, or if the positions are their mean."""
    if positions == "mean":
        raise AuditError(f"a state cannot be {change} at 'mean'", "use last, all, answer or key")
    if site.part == "pattern":
        raise AuditError(f"an attention pattern cannot be {change} at some positions", "write at q, k, v or z")


def content_of(tensor: Tensor) -> str:
    """A tensor by its content, as cache keys name it."""
    return tensor_sha256(tensor.detach())


def content_of_rows(rows: Tensor | None) -> str:
    """A choice of rows by its content; None are all."""
    return "all" if rows is None else content_of(rows)
