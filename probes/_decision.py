"""The decision table of a restoration audit: what reverse patch, read-out and donor restoration say together.

No single restoration rate decides: a donor brings the answer along. Bounds are 95 %, against a model that never knew.
"""

from typing import NamedTuple, Self

from audit.probing import Interval, Missing, Number

AS_BASE = 0.8
"""From this share of base's excess on the suspect's states read as base's own."""
HIGH = 0.5
"""From this share of what base could restore, donor restoration counts as high."""

RETAINED, PARTLY, RECODED, READER_ONLY, NOTHING = range(1, 6)
_SAID = {
    RETAINED: "retained: the suspect's states hold the answers as base's do, and what hides them lies after this "
    "block; donor restoration alone would call it deleted",
    PARTLY: "partly retained: changed before this block, while the later blocks still read the answers",
    RECODED: "base no longer reads the answers in the suspect's states, a fresh head does, more than in a model that "
    "never knew: re-encoded, or quickly relearnt",
    READER_ONLY: "the suspect's later blocks still read what base brings, and nothing was found in its own states: "
    "this is not retained knowledge",
    NOTHING: "not detected under this family of tests, which is no proof of deletion",
}


class Finding(NamedTuple):
    """A value with its 95 % interval; both missing where it could not be judged, with the reason in the value."""

    value: Number
    ci95: Interval | Missing

    @classmethod
    def absent(cls, reason: str) -> Self:
        """A finding that could not be judged."""
        return cls(Missing(missing=reason), Missing(missing=reason))

    @property
    def above(self) -> bool | None:
        """Is it above zero beyond chance? None: not known."""
        if isinstance(self.value, Missing):
            return None
        return not isinstance(self.ci95, Missing) and self.ci95.lo > 0


class Decision(NamedTuple):
    """Which row of the table, 0 where none fits, and what it says."""

    row: int
    text: str


def decide(reverse: Finding, readout: Finding, donor: Finding) -> Decision:
    """The row of the table for these findings: ``reverse`` and ``readout`` as effects (1 is base, 0 a model that never
    knew), ``donor`` the share restored by base's states less the same of a model that never knew."""
    if reverse.above is None:
        assert isinstance(reverse.value, Missing)
        return Decision(0, f"not assessable: {reverse.value.missing}")
    value = reverse.value
    assert not isinstance(value, Missing)
    high = not isinstance(donor.value, Missing) and donor.value >= HIGH
    unheard = "" if readout.above is not None else "; no read-out could be judged"
    if reverse.above:
        row = RETAINED if value >= AS_BASE and not high else PARTLY
    elif readout.above:
        row = RECODED
    else:
        row = READER_ONLY if high else NOTHING
    return Decision(row, _SAID[row] + unheard)
