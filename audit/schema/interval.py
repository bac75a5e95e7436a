"""An interval, two-sided, 95 % unless it says otherwise."""

from audit.schema.record import Record


class Interval(Record):
    """A two-sided 95 % interval."""

    lo: float
    hi: float
