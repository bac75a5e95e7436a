"""A measurement judged, all of them judged together, and the kind of audit that was judged."""

from typing import Literal

from audit.schema.error_rates import IN_CASE, LikelihoodRatio
from audit.schema.error_rates import DetectionLimit as DetectionLimit
from audit.schema.error_rates import Rate as Rate
from audit.schema.interval import Interval
from audit.schema.measurement import Measurement, Number, PeopleKept
from audit.schema.record import Missing, Record

Outcome = Literal["trace found", "no trace found", "inconclusive", "not run"]
Direction = Literal["above", "below", "none"]
Status = Literal[
    "gate_passed", "gate_failed", "gate_unmeasured", "listed", "blind", "below", "trace", "within_floor", "hint",
    "silent", "undecided", "blunt",
]  # fmt: skip
"""What became of a measurement, of which its outcome follows.

``listed``: for comparison, it enters no in-case verdict. ``blind``: it does not find base here. ``within_floor``: an
effect with a small p, but no larger than models that never knew differ. ``hint``: beyond that, with a p that is small
enough for no finding. ``silent``: a trace would show. ``undecided``: neither trace nor silence. ``blunt``: no trace,
but by its power here it finds large ones alone, so that its silence counts for nothing.
"""


class Evidence(Record):
    """A measurement judged: outcome, direction, why, and on what basis.

    ``status`` says what became of it, ``because`` says the same to a reader, with the numbers; nothing reads a status
    out of that sentence.
    ``in-case`` rests on this case's own nulls: it may carry a verdict, prints no likelihood ratio and no error rate.
    ``calibrated`` rests on models of known truth, and its ``ratio`` has their error rates; ``threshold`` is what the
    overall effect (the effect, where there is one number) was compared with.
    """

    measurement: Measurement
    outcome: Outcome
    status: Status
    direction: Direction
    because: str
    basis: Literal["calibrated", "in-case"] = "in-case"
    ratio: LikelihoodRatio | Missing = IN_CASE
    threshold: Number = Missing(missing="no calibrated threshold judged it")


class Domain(Record):
    """What kind of audit this is: a calibration judges only audits like those that it was made from.

    ``parameters`` counts the entries of base's tensors, ``forget_people`` the audited groups. ``null`` says who stands
    for a model that never knew, ``references`` how many of the same ancestor there are. ``control_effect`` is by how
    much base's mean probability of the forget items exceeds that level.
    """

    architecture: str
    parameters: int
    blocks: int
    d: int
    vocabulary: int
    forget_people: int
    null: Literal["reference", "ancestor", "holdout", "none"]
    references: int
    control_effect: float


VerdictWord = Literal["INVALID", "INTACT", "SUPPRESSED", "PARTIAL", "CONSISTENT WITH NEVER TRAINED", "INCONCLUSIVE"]


class Share(Record):
    """A share of base (0 never trained, 1 base) with its interval, and the measurement that it is read from."""

    value: float
    ci95: Interval
    measurement: str


NO_AXIS = Missing(missing="not measured")


class Verdict(Record):
    """The rung of the ladder, why, and what limits it. ``strength`` is limited by the roles that were given.

    A calibrated verdict is that of the joint rule, and its ``ratio`` that of the joint score. ``outputs`` and
    ``internals`` are the two axes of which the word follows: what the model says, and what its states or what an attack
    brings back still hold. ``people``: how many are known, and who.
    """

    word: VerdictWord
    sentence: str
    because: tuple[str, ...]
    strength: Literal["full", "weak", "none"]
    direction: Direction
    basis: Literal["calibrated", "in-case"]
    limits: tuple[str, ...]
    would_change: tuple[str, ...]
    ratio: LikelihoodRatio | Missing = IN_CASE
    outputs: Share | Missing = NO_AXIS
    internals: Share | Missing = NO_AXIS
    people: PeopleKept | Missing = NO_AXIS
