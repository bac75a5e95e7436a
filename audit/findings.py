"""What an audit found: measurements, evidence, verdict, report. Frozen and strict, like :mod:`audit.nouns`.

A probe returns :class:`Measurement` values: numbers, never a verdict. Judging turns each into :class:`Evidence`, and
all of them into one :class:`Verdict`. The :class:`Report` is the versioned document that every view reads.
"""

from typing import Annotated, Literal

from pydantic import Field

from audit.nouns import Case, Cost, Form, Missing, Noun
from audit.quoted import Excerpts
from audit.validation import IN_CASE, CalibrationUse, Interval, LikelihoodRatio, Validation
from audit.validation import DetectionLimit as DetectionLimit
from audit.validation import Rate as Rate

Number = float | Missing


class Count(Noun):
    """Items behind a number. Nothing drops out of a denominator silently: errored and unscored are counted."""

    scored: int
    errored: int = 0
    unscored: int = 0


class Null(Noun):
    """The same statistic where the knowledge is absent: 101 quantiles (0..100 %) and how many draws they summarise."""

    kind: str
    quantiles: tuple[float, ...]
    n: int


class Control(Noun):
    """Positive control: the same statistic in base, which must be found for a negative to mean anything."""

    value: float
    ci95: Interval | Missing
    found: bool


class Overall(Noun):
    """The effect over a whole family of layers: summed (suspect - null) over summed (base - null).

    A layer weighs as much as base exceeds the null there (the weights of the Unlearning Depth Score, arXiv 2605.24614).
    The largest effect of several layers finds traces; this one bounds them, since the largest of several noisy effects
    is never small. ``floor`` is its largest size, above or below, between models that never knew.
    """

    value: float
    ci95: Interval | Missing
    floor: Number


class Curve(Noun):
    """A profile over depth or steps, with everything a figure needs; lo/hi are pointwise 95 %."""

    axis: str
    unit: str
    role: Literal["base", "suspect", "reference", "ancestor", "floor", "gate"]
    x: tuple[float, ...]
    y: tuple[float, ...]
    lo: tuple[float, ...] = ()
    hi: tuple[float, ...] = ()
    null_lo: tuple[float, ...] = ()
    null_hi: tuple[float, ...] = ()


class Table(Noun):
    """A Parquet table of items beside the report (columns: item group role prompt target output score)."""

    path: str
    sha256: str
    rows: int
    columns: tuple[str, ...]


Kind = Literal["gate", "output", "causal", "decoding", "recovery", "context"]


class Measurement(Noun):
    """One question answered with numbers.

    On the ``effect`` scale 0 is the never-trained level and 1 is base. ``kind`` says what part a number may play:
    ``gate`` (is the suspect usable at all), ``output``, ``causal`` and ``decoding`` enter the in-case verdict,
    ``recovery`` (what comes back under an attack) only a calibrated one, ``context`` never does. ``p`` is for *above*
    the null, ``p_below`` for below it. ``floor`` is the same effect for one unaudited reference against another. A
    gate's ``value`` is the suspect's statistic over base's. ``form`` says which rows it reads: the verdict rests on
    ``trained`` rows, held-out forms are measurements of their own. A causal ``value`` that is missing says why no layer
    is eligible.
    """

    probe: str
    name: str
    kind: Kind
    mode: Literal["controlled", "paper"] = "controlled"
    form: Form = "trained"
    statistic: str
    value: Number
    unit: str
    ci95: Interval | Missing
    n: Count
    unit_of_replication: str
    units: int
    seed: int
    p: Number
    p_below: Number
    null: Null | Missing
    positive_control: Control | Missing
    floor: Number
    overall: Overall | Missing = Missing(missing="one number, no family of layers")
    readings: dict[str, float] = {}
    curves: tuple[Curve, ...] = ()
    items: Table | Missing
    cost: Cost = Cost()
    notes: tuple[str, ...] = ()

    @property
    def bound(self) -> Interval | Missing:
        """The interval that bounds what may be left: of the overall effect where there is a family of layers."""
        return self.ci95 if isinstance(self.overall, Missing) else self.overall.ci95


Outcome = Literal["trace found", "no trace found", "inconclusive", "not run"]


class Evidence(Noun):
    """A measurement judged: outcome, direction, why, and on what basis.

    ``in-case`` rests on this case's own nulls: it may carry a verdict, prints no likelihood ratio and no error rate.
    ``calibrated`` rests on models of known truth, and its ``ratio`` has their error rates.
    """

    measurement: Measurement
    outcome: Outcome
    direction: Literal["above", "below", "none"]
    because: str
    basis: Literal["calibrated", "in-case"] = "in-case"
    ratio: LikelihoodRatio | Missing = IN_CASE


class Skip(Noun):
    """A probe that was not run, or a measurement that could not be made, and the reason."""

    probe: str
    reason: str
    consequence: str


class Failure(Noun):
    """A probe that broke: recorded, never swallowed. ``error_id`` is found in the run's log."""

    probe: str
    error: str
    error_id: str


class Domain(Noun):
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


class Verdict(Noun):
    """The rung of the ladder, why, and what limits it. ``strength`` is limited by the roles that were given.

    A calibrated verdict is that of the joint rule, and its ``ratio`` that of the joint score.
    """

    word: VerdictWord
    sentence: str
    because: tuple[str, ...]
    strength: Literal["full", "weak", "none"]
    direction: Literal["above", "below", "none"]
    basis: Literal["calibrated", "in-case"]
    limits: tuple[str, ...]
    would_change: tuple[str, ...]
    ratio: LikelihoodRatio | Missing = IN_CASE


class Exhibit(Noun):
    """An item received: role, where it lay, what it hashed to before and after, and how large it is."""

    role: str
    path: str
    family: str
    fingerprint: str
    size_bytes: int
    files: dict[str, str]
    verified_after: bool


class PlannedTest(Noun):
    """One row of the plan: will it run, what it costs, and the reason if it will not.

    ``dropped_by`` names the limit that left it out, as it was given: it could run.
    """

    probe: str
    question: str
    will_run: bool
    reason: str
    cost: Cost
    dropped_by: str = ""


class Plan(Noun):
    """What will be done, fixed before looking. ``plan_hash`` covers code version, case, inputs and probe settings."""

    case: Case
    fingerprints: dict[str, str]
    data_sha256: dict[str, str]
    tests: tuple[PlannedTest, ...]
    code_version: str
    plan_hash: str


class Published(Noun):
    """Aggregates that others published, by metric: context, never judged. ``unread``: metrics without a number."""

    file: str
    sha256: str
    values: dict[str, float]
    unread: tuple[str, ...] = ()


class Environment(Noun):
    """Where and with what the numbers were made. Outside the plan hash."""

    python: str
    platform: str
    packages: dict[str, str]
    device: str
    dtype: str
    backend: str
    threads: int
    flags: dict[str, str]


class Timing(Noun):
    """Cost of one finished unit of work. Kept apart so that reports can be compared without times."""

    unit: str
    cpu_s: float
    wall_s: float


class Report(Noun):
    """The versioned document that every view reads: HTML, Markdown and dashboard are pure functions of it.

    ``report_id`` is ``UA-`` and the first 12 hex digits of the sha256 of the canonical document without ``report_id``,
    ``created``, ``registered`` and ``timings``. ``registered`` is when the plan was written down, before anything was
    measured. Texts of the data are quoted in ``excerpts`` alone; where they are not ``masked``, the document is derived
    from its ``parent``. Additive changes only within a major ``schema_version``.
    """

    schema_version: Literal["1.0", "1.1", "1.2"] = "1.2"
    kind: Literal["audit", "forecast"] = "audit"
    report_id: str
    created: str
    tool: dict[str, str]
    demo: bool
    plan: Plan
    exhibits: tuple[Exhibit, ...]
    environment: Environment
    cohorts: dict[str, dict[str, int]]
    evidence: tuple[Evidence, ...]
    skips: tuple[Skip, ...]
    failures: tuple[Failure, ...]
    verdict: Verdict
    decision_rule: tuple[str, ...]
    coverage: tuple[tuple[str, str, str], ...]
    limits: Annotated[tuple[str, ...], Field(max_length=5)]
    reproduce: str
    timings: tuple[Timing, ...]
    domain: Domain | Missing = Missing(missing="not recorded by this version")
    calibrations: tuple[CalibrationUse, ...] = ()
    status: Literal["draft", "final"] = "final"
    registered: str = ""
    masked: bool = True
    parent: str = ""
    excerpts: tuple[Excerpts, ...] = ()
    validation: Validation | Missing = Missing(missing="no calibration judged this case")
    published: Published | Missing = Missing(missing="no published numbers were given")
