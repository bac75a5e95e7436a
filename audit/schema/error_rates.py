"""What models of known truth say of a rule: rates, likelihood ratios, and how well those were validated.

A report carries all of it that its own verdict needs, so that whoever reads the report needs no other file.
"""

from typing import Literal

from pydantic import Field

from audit.schema.interval import Interval
from audit.schema.record import Missing, Record


class Rate(Record):
    """k of n units of the pool (worlds), and the exact one-sided 95 % upper bound of the rate."""

    k: int
    n: int
    upper95: float


class DetectionLimit(Record):
    """The smallest number of audited people kept that is found with the asked power: found in k of n worlds."""

    kept: int
    audited: int
    k: int
    n: int
    power: float


class LikelihoodRatio(Record):
    """How many times more probable the score is in models that know than in models that never did.

    ``floor`` and ``ceiling`` are the smallest and the largest ratio that the number of worlds supports. ``words`` are
    those of the band of the interval's end nearest 1. The rates are those of the rule that gave the outcome, on
    held-out worlds and mechanisms; misses count models that keep everything. ``calibration`` names what gave it, by its
    hash.
    """

    value: float
    ci95: Interval
    floor: float
    ceiling: float
    words: str
    false_alarms: Rate
    misses: Rate
    limit: DetectionLimit | Missing
    calibration: str


IN_CASE = Missing(missing="judged by this case alone: no error rate is known, so no likelihood ratio is given")


class CalibrationUse(Record):
    """Which calibration of a probe judged this case, or why none did, and the command that makes one.

    ``own``: it was made from this very base, taught decoys, and not from models of a pool.
    """

    probe: str
    status: Literal["holds", "stale", "outside", "none"]
    because: str
    renew: str
    sha256: str = ""
    pool: str = ""
    worlds: int = 0
    own: bool = Field(default=False, exclude_if=lambda own: not own)


# ---- validation -------------------------------------------------------------------------------------------------
TruthLabel = Literal["clean", "knowing", "edited clean", "described", "destroyed"]


class Counted(Record):
    """In how many of its worlds a mechanism was said to hold a trace, held out of the fitting."""

    mechanism: str
    pool: TruthLabel
    found: int
    worlds: int


class Dose(Record):
    """Of models that kept this many of the audited people: found in k of n worlds; ``power`` never falls with them."""

    kept: int
    audited: int
    k: int
    n: int
    power: float


class Reliability(Record):
    """Are the ratios worth what they say, on held-out worlds? Costs in bits; ``envelope``: what chance alone loses.

    ``clean`` and ``knowing``: the 101 quantiles of their held-out log10 ratios (both Tippett curves).
    ``bands``: (said, counted, knowing, clean) of log10 ratios in bands; a band without one kind has no counted ratio.
    """

    cllr: float
    cllr_min: float
    gap: float
    gap_ci95: Interval
    envelope: float
    clean: tuple[float, ...]
    knowing: tuple[float, ...]
    bands: tuple[tuple[float, float | Missing, int, int], ...]


class DecoyPeople(Record):
    """The decoys behind a rule that was made from the case's own base.

    ``people`` decoys with ``questions`` questions in all were taught to every base of a world, in ``steps`` steps;
    ``left_out`` are the mechanisms that could not be made of this model. ``share`` is the between-base share by which
    the exact bounds are widened for models of other bases: ``false_alarms`` and ``misses`` are those wider bounds.
    """

    people: int
    questions: int
    steps: int
    left_out: tuple[str, ...] = ()
    share: float
    false_alarms: float
    misses: float


class Validation(Record):
    """The rule that judged a case, as it did on models of known truth held out of its fitting.

    ``score`` is this case's own, 0 at the threshold; ``worlds`` how many worlds of ``pool`` stand behind the rule.
    ``decoys``: of what they were made, where they are of the case's own kind.
    """

    rule: str
    pool: str
    worlds: int
    score: float
    reliability: Reliability
    counted: tuple[Counted, ...]
    doses: tuple[Dose, ...]
    decoys: DecoyPeople | None = Field(default=None, exclude_if=lambda decoys: decoys is None)
