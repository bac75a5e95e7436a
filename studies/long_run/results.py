"""What the long run found, as its results file keeps it."""

from audit.schema import Record
from studies.provenance import Stamp


class Audit(Record):
    """One finished audit: how often its process was killed and how often a full disk stopped it before it was done.

    ``same``: is its report that of an undisturbed audit of the same suspect, but for when it was made?
    """

    number: int
    suspect: int
    killed: int
    stopped_by_disk: int
    same: bool
    problems: tuple[str, ...] = ()


class Round(Record):
    """What was done while two audits ran at once. ``peak``: the most bytes that the store was seen to hold meanwhile;
    ``evicted``: did entries leave it without a prune?"""

    audits: tuple[Audit, ...]
    pruned: bool
    filled: bool
    peak: int
    evicted: bool


class Results(Record):
    """The figures of the long run. ``leftovers``: files, folders and processes that should not be there at its end."""

    stamp: Stamp
    command: str
    seed: int
    limit: int
    disk: int
    audits: int
    kills: int
    stopped_by_disk: int
    rounds_with_prune: int
    rounds_with_full_disk: int
    rounds_with_eviction: int
    identical: int
    problems: tuple[str, ...]
    peak: int
    leftovers: tuple[str, ...]
    cpu_s: float
    wall_s: float

    @property
    def sentence(self) -> str:
        """What the page says of it."""
        return (
            f"{self.audits} audits over one store of at most {self.limit:,} bytes, two at a time on a disk of "
            f"{self.disk:,}: {self.kills} kills, {self.stopped_by_disk} stops by a full disk, {self.rounds_with_prune} "
            f"prunes, entries dropped by the limit in {self.rounds_with_eviction} rounds. **{self.identical}/"
            f"{self.audits}** reports are those of undisturbed audits; the store held {self.peak:,} bytes at most; "
            f"{len(self.leftovers)} leftovers. {self.cpu_s:,.0f} CPU-seconds, {self.wall_s / 60:.0f} minutes."
        )
