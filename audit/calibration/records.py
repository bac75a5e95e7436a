"""What a folder of calibrations holds: subjects, one file a probe, the joint rule; all generated, never edited."""

from collections.abc import Mapping
from pathlib import Path
from typing import Literal, TypeVar

from pydantic import Field, ValidationError

from audit.calibration.scores import Content
from audit.schema import (
    AuditError,
    Counted,
    DetectionLimit,
    Domain,
    Dose,
    ExitCode,
    Form,
    Interval,
    Kind,
    Missing,
    Rate,
    Record,
    Reliability,
    TruthLabel,
)
from audit.stats import Scale
from audit.storage import write_atomic

SLACK = 1.25
"""A calibration holds up to this factor beyond the smallest and the largest that its models span."""
SUBJECTS, JOINT = "subjects.json", "joint.json"
Settings = Mapping[str, str | int | float | bool]
InCaseState = Literal["stopped", "shown", "below", "elsewhere", "quiet", "unreadable"]
"""What a case says before any joint rule: the gate stops it (or none was measured); it shows a trace by itself (in its
outputs, under an attack, or inside although it is below); it lies below the never-trained level; only held-out forms
show a trace; nothing of these; no causal test can read it, so that no joint rule judges, and it states no trace."""


class Subject(Record):
    """A model of known truth: its world, what was done to it, and how many of the audited people it knows.

    ``alone`` is what its audit says before any joint rule.
    """

    world: int
    model: str
    mechanism: str
    pool: TruthLabel
    kept: int
    audited: int
    content: Content = "same"
    alone: InCaseState = "quiet"


class Scope(Record):
    """The kinds of audit that a pool's models span, from the smallest value to the largest: a calibration says nothing
    about others."""

    architectures: tuple[str, ...]
    nulls: tuple[str, ...]
    parameters: Interval
    blocks: Interval
    d: Interval
    vocabulary: Interval
    forget_people: Interval
    references: Interval
    control_effect: Interval

    def differs(self, domain: Domain) -> str:
        """In what the audit lies outside, or an empty string."""
        found: list[str] = []
        if domain.architecture not in self.architectures:
            found.append(f"architecture {domain.architecture} (calibrated on {', '.join(self.architectures)})")
        if domain.null not in self.nulls:
            found.append(f"null {domain.null} (calibrated with {', '.join(self.nulls)})")
        for name in SPANS:
            span, value = _span(self, name), float(getattr(domain, name))
            if not _holds(span, value):
                found.append(f"{name.replace('_', ' ')} {value:g} (calibrated on {span.lo:g} to {span.hi:g})")
        return "; ".join(found)

    def words(self) -> str:
        """The scope in words, for a report."""
        spans = [(name.replace("_", " "), _span(self, name)) for name in SPANS]
        told = [f"{name} {s.lo:g}" if s.lo == s.hi else f"{name} {s.lo:g} to {s.hi:g}" for name, s in spans]
        return f"{' or '.join(self.architectures)}; null {' or '.join(self.nulls)}; {', '.join(told)}"


SPANS = ("parameters", "blocks", "d", "vocabulary", "forget_people", "references", "control_effect")


def _span(scope: Scope, name: str) -> Interval:
    found = getattr(scope, name)
    assert isinstance(found, Interval)
    return found


def _holds(span: Interval, value: float) -> bool:
    """Is the value inside, or at most :data:`SLACK` beyond?"""
    return span.lo / SLACK <= value <= span.hi * SLACK


class OwnKind(Record):
    """Whose own kind the models of known truth are: all of them stem from one case's base, which was taught decoys.

    ``base`` is the content key of that base, ``template`` the hash of the prompt template under which it was taught.
    ``people`` decoys of ``questions`` questions in all were taught to every knowing model, in ``steps`` steps.
    ``left_out`` says which mechanisms could not be made. ``share`` is the part of a score's variance that worlds of the
    zoo, each with a base of its own, have in common within a world: by it bounds are widened for models of other bases.
    """

    base: str
    template: str
    people: int
    questions: int
    steps: int
    share: float
    left_out: tuple[str, ...] = ()


class Subjects(Record):
    """The models of known truth behind a folder of calibrations, and how they can be made again.

    ``made_with`` states versions and machine: numbers are reproduced to the digit on the same ones. ``draws`` is how
    many bootstrap draws stand behind every interval. ``own``: of whose own kind they are, where one base had them all.
    """

    schema_version: str = "1.0"
    name: str
    command: str
    quick: bool
    draws: int
    worlds: int
    made_with: dict[str, str]
    subjects: tuple[Subject, ...]
    own: OwnKind | None = Field(default=None, exclude_if=lambda own: own is None)


class Column(Record):
    """One feature of a measurement, for the subjects that have it (by their place)."""

    feature: str
    subject: tuple[int, ...]
    value: tuple[float, ...]


class ErrorRates(Record):
    """What a rule does on worlds and mechanisms held out of its fitting.

    ``false_alarms``: worlds with an alarm on any clean model. ``misses``: worlds in which a model that keeps everything
    stays unfound. ``edited_clean``: alarms on models that were unlearned on facts that they did not know. Of one
    measurement an alarm is a value above its threshold; of the joint rule it is a verdict that states a trace (INTACT,
    SUPPRESSED or PARTIAL), whichever rung said so.
    """

    false_alarms: Rate
    misses: Rate
    edited_clean: Rate
    counted: tuple[Counted, ...]
    doses: tuple[Dose, ...]
    limit: DetectionLimit | Missing
    exceptions: tuple[str, ...] = ()


class Calibrated(Record):
    """One measurement of a probe: trace above ``threshold``, its ratios, its errors, and the features behind them."""

    name: str
    kind: Kind
    form: Form
    threshold: float
    scale: Scale
    record: ErrorRates
    reliability: Reliability
    columns: tuple[Column, ...]


class Calibration(Record):
    """A probe's calibration: valid for this version, these settings, this behaviour (by its digest) and this scope.

    One that does not ``join`` weighs its own findings, which are listed with their ratios, and stays out of the joint
    rule.
    """

    schema_version: str = "1.1"
    probe: str
    version: int
    settings: dict[str, str | int | float | bool]
    behaviour: str
    subjects: str
    scope: Scope
    joins: bool = True
    measurements: tuple[Calibrated, ...]


# ---- files ------------------------------------------------------------------------------------------------------
Stored = TypeVar("Stored", bound=Record)


def write(path: Path, noun: Record) -> None:
    """Write one generated file as canonical JSON."""
    write_atomic(path, (noun.canonical() + "\n").encode())


def read(path: Path, kind: type[Stored]) -> Stored:
    """One generated file. AuditError (code 3) if it is not one."""
    try:
        return kind.model_validate_json(path.read_bytes())
    except (OSError, ValidationError) as error:
        raise AuditError(
            f"{path} is not a {kind.__name__.lower()} of this version",
            "make it again with `residua calibrate`, or restore it from the release",
            ExitCode.INTEGRITY,
        ) from error
