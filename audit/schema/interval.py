"""From so much to so much: the one interval of every number, range and estimate, with finite ends."""

from audit.schema.record import Record


class Interval(Record):
    """From ``lo`` to ``hi``: of an estimate, a two-sided 95 % interval unless it says otherwise."""

    lo: float
    hi: float

    @property
    def ends(self) -> tuple[float, float]:
        """Both ends, the lower one first."""
        return self.lo, self.hi
