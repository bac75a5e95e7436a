"""An interval, two-sided, 95 % unless it says otherwise."""

from audit.schema.record import Noun


class Interval(Noun):
    """A two-sided 95 % interval."""

    lo: float
    hi: float
