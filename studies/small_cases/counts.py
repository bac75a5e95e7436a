"""The records of the results file: what is counted in which kind of small case."""

from typing import Literal

from audit.schema import Rate, Record
from studies.provenance import Stamp

Truth = Literal["clean", "edited clean", "knowing"]


class Words(Record):
    """What the case alone says of models of one truth: a trace, nothing, below the level, neither, or broken.

    ``worlds`` are those in which the wrong thing is said of any model in the first draw: a trace of clean ones, no
    trace of knowing ones. ``audits`` counts all draws.
    """

    truth: Truth
    wrong: Rate
    trace: int
    silent: int
    undecided: int
    invalid: int
    audits: int


class OneTest(Record):
    """One measurement: which test it was, and in how many audits it finds a trace, of base and fakes and of clean."""

    measurement: str
    tests: dict[str, int]
    found: int
    knowing: int
    alarms: int
    below: int
    clean: int


class Cell(Record):
    """All of one setting."""

    groups: int
    holdout: bool
    fitted: bool
    words: tuple[Words, ...]
    tests: tuple[OneTest, ...]


class SmallCases(Record):
    """The results file; ``exceptions`` names every wrong word of the first draw where nothing is fitted."""

    schema_version: Literal["1.0"] = "1.0"
    stamp: Stamp
    command: str
    worlds: int
    draws: int
    cells: tuple[Cell, ...]
    exceptions: tuple[str, ...]
