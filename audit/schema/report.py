"""The versioned document that every view reads, and the parts that only a whole audit has."""

from typing import Annotated, Final, Literal

from pydantic import Field, model_validator

from audit.schema.case import Case
from audit.schema.error_rates import CalibrationUse, Validation
from audit.schema.error_rates import DetectionLimit as DetectionLimit
from audit.schema.error_rates import Rate as Rate
from audit.schema.excerpts import Excerpts
from audit.schema.migration import migrated
from audit.schema.record import Missing, Record
from audit.schema.requirements import Cost
from audit.schema.verdict import Domain, Evidence, Verdict


class Skip(Record):
    """A probe that was not run, or a measurement that could not be made, and the reason.

    ``absent``: the models of this family have nothing that it could look at, which was not known before they were open.
    """

    probe: str
    reason: str
    consequence: str
    absent: bool = Field(default=False, exclude_if=lambda absent: not absent)


class Failure(Record):
    """A probe that broke: recorded, never swallowed. ``error_id`` is found in the run's log."""

    probe: str
    error: str
    error_id: str


class Exhibit(Record):
    """An item received: role, where it lay, what it hashed to before and after, and how large it is.

    ``released``: of weights that were handed in as codes, in which format and how they were turned into floating point;
    empty for plain weights. ``code``: the code of the case's own that built the model, with its hash; empty for none.
    """

    role: str
    path: str
    family: str
    fingerprint: str
    size_bytes: int
    files: dict[str, str]
    verified_after: bool
    released: str = Field(default="", exclude_if=lambda released: not released)
    code: str = Field(default="", exclude_if=lambda code: not code)


class PlannedTest(Record):
    """One row of the plan: will it run, what it costs, and the reason if it will not.

    ``dropped_by`` names the limit that left it out, as it was given: it could run. ``undecidable`` says why it can
    decide nothing with so few groups although it runs, and what would suffice; empty where it can. ``attack`` is the
    word by which the probe declares that it makes an attack.
    """

    probe: str
    question: str
    will_run: bool
    reason: str
    cost: Cost
    dropped_by: str = ""
    undecidable: str = ""
    attack: str = Field(default="", exclude_if=lambda attack: not attack)


class Plan(Record):
    """What will be done, fixed before looking. ``plan_hash`` covers everything else: code version, case, inputs, tests.

    ``settings_sha256``: of the version and the settings of every probe. ``notes``: how the data files were read, and
    what is to be said of their groups as units of replication.
    """

    case: Case
    fingerprints: dict[str, str]
    data_sha256: dict[str, str]
    tests: tuple[PlannedTest, ...]
    code_version: str
    plan_hash: str
    notes: tuple[str, ...] = ()
    settings_sha256: str = Field(default="", exclude_if=lambda sha256: not sha256)


class Published(Record):
    """Aggregates that others published, by metric: context, never judged. ``unread``: metrics without a number."""

    file: str
    sha256: str
    values: dict[str, float]
    unread: tuple[str, ...] = ()


class RoleAudit(Record):
    """Was a role audited before it judges, and may it? ``because`` names the check that it failed, with the numbers.

    ``settled`` is False where it disagrees with another role and nothing says which of them is wrong: it takes part,
    and no verdict rests on it. ``unknown``: groups of which base shows no knowledge, so that nothing about them can be
    counted (role base).
    """

    role: str
    takes_part: bool
    settled: bool = True
    because: tuple[str, ...]
    readings: dict[str, float] = {}
    unknown: tuple[str, ...] = ()


class Environment(Record):
    """Where and with what the numbers were made. Outside the plan hash."""

    python: str
    platform: str
    packages: dict[str, str]
    device: str
    dtype: str
    backend: str
    threads: int
    flags: dict[str, str]


class Timing(Record):
    """Cost of one finished unit of work. Kept apart so that reports can be compared without times."""

    unit: str
    cpu_s: float
    wall_s: float


SCHEMA_VERSION: Final = "1.4"


class AttackCoverage(Record):
    """One attack family at one access level, and how many measurements tested it (0: not tested).

    ``attack`` is the word by which a probe declares that it makes this attack; empty where a kind of reading counts.
    """

    family: str
    access: str
    attack: str
    measurements: int

    @property
    def state(self) -> str:
        """Tested or not, in words."""
        n = self.measurements
        return f"tested ({n} measurement{'s' if n > 1 else ''})" if n else "not tested"


class Report(Record):
    """The versioned document that every view reads: HTML, Markdown and dashboard are pure functions of it.

    ``report_id`` is ``UA-`` and the first 12 hex digits of the sha256 of the canonical document without ``report_id``,
    ``created``, ``registered`` and ``timings``. ``registered`` is when the plan was written down, before anything was
    measured. Texts of the data are quoted in ``excerpts`` alone; where they are not ``masked``, the document is derived
    from its ``parent``. Additive changes only within a major ``schema_version``; a document of an earlier one is
    brought to this one as it is read, and states what it was. ``coverage`` is ``attacks`` in words.
    """

    schema_version: Literal["1.0", "1.1", "1.2", "1.3", "1.4"] = SCHEMA_VERSION
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
    attacks: tuple[AttackCoverage, ...]
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
    roles_audited: tuple[RoleAudit, ...] = ()
    published: Published | Missing = Missing(missing="no published numbers were given")

    @model_validator(mode="before")
    @classmethod
    def _of_any_version(cls, document: object) -> object:
        return migrated(document) if isinstance(document, dict) else document
