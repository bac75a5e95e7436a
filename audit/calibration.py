"""What models of known truth say of a probe: thresholds, likelihood ratios, error rates; and for which audits it holds.

A folder of calibrations holds ``subjects.json`` (the models of known truth), one ``<probe>.json`` a probe with its
scores of them, and ``joint.json`` (the joint rule of all probes together). All are generated and never edited by hand.
A calibration judges only audits inside its scope, by the probe, version and settings that it was made from, as long as
the probe gives the same numbers on a frozen tiny world (:mod:`audit.behaviour`).
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Literal, NamedTuple, TypeVar

from pydantic import ValidationError

from audit.behaviour import Attested, read_records, summary
from audit.disk import write_atomic
from audit.findings import CalibrationUse, DetectionLimit, Domain, Kind, Rate
from audit.likelihood import Scale
from audit.nouns import AuditError, ExitCode, Form, Missing, Noun
from audit.pools import Content
from audit.validation import Counted, Dose, Pool, Reliability

SLACK = 1.25
"""A calibration holds up to this factor beyond the smallest and the largest that its models span."""

SUBJECTS, JOINT = "subjects.json", "joint.json"
Settings = Mapping[str, str | int | float | bool]


Alone = Literal["stopped", "shown", "below", "elsewhere", "quiet"]
"""What a case says before any joint rule: the gate stops it (or none was measured); its outputs show a trace; it lies
below the never-trained level; only held-out forms show a trace; nothing of these."""


class Subject(Noun):
    """A model of known truth: its world, what was done to it, and how many of the audited people it knows.

    ``alone`` is what its audit says before any joint rule.
    """

    world: int
    model: str
    mechanism: str
    pool: Pool
    kept: int
    audited: int
    content: Content = "same"
    alone: Alone = "quiet"


class Span(Noun):
    """The smallest and the largest value in a pool."""

    lo: float
    hi: float

    def holds(self, value: float) -> bool:
        """Is the value inside, or at most :data:`SLACK` beyond?"""
        return self.lo / SLACK <= value <= self.hi * SLACK


class Scope(Noun):
    """The kinds of audit that a pool's models span: a calibration says nothing about others."""

    architectures: tuple[str, ...]
    nulls: tuple[str, ...]
    parameters: Span
    blocks: Span
    d: Span
    vocabulary: Span
    forget_people: Span
    references: Span
    control_effect: Span

    def differs(self, domain: Domain) -> str:
        """In what the audit lies outside, or an empty string."""
        found: list[str] = []
        if domain.architecture not in self.architectures:
            found.append(f"architecture {domain.architecture} (calibrated on {', '.join(self.architectures)})")
        if domain.null not in self.nulls:
            found.append(f"null {domain.null} (calibrated with {', '.join(self.nulls)})")
        for name in SPANS:
            span, value = _span(self, name), float(getattr(domain, name))
            if not span.holds(value):
                found.append(f"{name.replace('_', ' ')} {value:g} (calibrated on {span.lo:g} to {span.hi:g})")
        return "; ".join(found)

    def words(self) -> str:
        """The scope in words, for a report."""
        spans = [(name.replace("_", " "), _span(self, name)) for name in SPANS]
        told = [f"{name} {s.lo:g}" if s.lo == s.hi else f"{name} {s.lo:g} to {s.hi:g}" for name, s in spans]
        return f"{' or '.join(self.architectures)}; null {' or '.join(self.nulls)}; {', '.join(told)}"


SPANS = ("parameters", "blocks", "d", "vocabulary", "forget_people", "references", "control_effect")


def _span(scope: Scope, name: str) -> Span:
    found = getattr(scope, name)
    assert isinstance(found, Span)
    return found


class Subjects(Noun):
    """The models of known truth behind a folder of calibrations, and how they can be made again.

    ``made_with`` states versions and machine: numbers are reproduced to the digit on the same ones. ``draws`` is how
    many bootstrap draws stand behind every interval.
    """

    schema_version: str = "1.0"
    name: str
    command: str
    quick: bool
    draws: int
    worlds: int
    made_with: dict[str, str]
    subjects: tuple[Subject, ...]


class Column(Noun):
    """One feature of a measurement, for the subjects that have it (by their place)."""

    feature: str
    subject: tuple[int, ...]
    value: tuple[float, ...]


class Record(Noun):
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


class Calibrated(Noun):
    """One measurement of a probe: trace above ``threshold``, its ratios, its errors, and the features behind them."""

    name: str
    kind: Kind
    form: Form
    threshold: float
    scale: Scale
    record: Record
    reliability: Reliability
    columns: tuple[Column, ...]


class Calibration(Noun):
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
Stored = TypeVar("Stored", bound=Noun)


def write(path: Path, noun: Noun) -> None:
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


class Shelf(NamedTuple):
    """A folder of calibrations, read, with the records of the behaviours that they are for (by digest)."""

    folder: Path
    subjects: Subjects | None
    calibrations: dict[str, Calibration]
    records: Mapping[str, Attested] = {}

    @property
    def command(self) -> str:
        """What renews these calibrations."""
        return self.subjects.command if self.subjects else "residua calibrate"


def read_shelf(folder: Path) -> Shelf:
    """All calibrations of a folder; none where it has no subjects. AuditError (code 3) if one belongs to others."""
    if not (folder / SUBJECTS).is_file():
        return Shelf(folder, None, {})
    subjects = read(folder / SUBJECTS, Subjects)
    named = [path for path in sorted(folder.glob("*.json")) if path.name not in (SUBJECTS, JOINT, "floors.json")]
    found = {path.stem: read(path, Calibration) for path in named}
    for name, calibration in found.items():
        if calibration.subjects != subjects.content_hash():
            raise AuditError(
                f"{folder / name}.json was made from other models than {SUBJECTS}",
                f"make all of them again: {subjects.command}",
                ExitCode.INTEGRITY,
            )
    return Shelf(folder, subjects, found, read_records(folder))


# ---- does it hold? ----------------------------------------------------------------------------------------------
class Asked(NamedTuple):
    """A probe as it ran: its version and its settings."""

    version: int
    settings: Settings


Moved = Callable[[Attested], tuple[str, ...]]
"""Which numbers of a recorded behaviour are others by what is installed now, in words; empty where none is."""


def use_of(shelf: Shelf, probe: str, asked: Asked, domain: Domain, moved: Moved) -> CalibrationUse:
    """Does the probe's calibration judge this audit? If not: why, and which command makes one that does.

    What costs nothing is looked at first: the behaviour only where the calibration would hold by all else.
    """
    calibration = shelf.calibrations.get(probe)
    if calibration is None or shelf.subjects is None:
        why = "no calibration of this probe is stored"
        return CalibrationUse(probe=probe, status="none", because=why, renew=shelf.command)
    status, why = "holds", f"valid for {calibration.scope.words()}; not for audits outside these"
    if calibration.version != asked.version:
        status, why = "stale", f"calibrated as version {calibration.version}, and it is version {asked.version} now"
    elif calibration.settings != dict(asked.settings):
        status, why = "outside", "calibrated with other settings of this probe"
    elif outside := calibration.scope.differs(domain):
        status, why = "outside", f"outside the domain of its calibration: {outside}"
    elif change := _change(shelf, calibration, moved):
        status, why = "stale", change
    if status != "holds":
        why += context(calibration)
    return CalibrationUse.model_validate(
        {
            "probe": probe, "status": status, "because": why, "renew": "" if status == "holds" else shelf.command,
            "sha256": calibration.content_hash(), "pool": shelf.subjects.name, "worlds": shelf.subjects.worlds,
        }
    )  # fmt: skip


def _change(shelf: Shelf, calibration: Calibration, moved: Moved) -> str:
    """Why the probe is not the one that was calibrated, or an empty string."""
    record = shelf.records.get(calibration.behaviour)
    if record is None:
        return "no record lies beside its calibration of the numbers that the probe gave on the frozen world then"
    changed = moved(record)
    told = summary(changed, len(record.behaviour.values))
    return f"its numbers on the frozen world are others than when it was calibrated: {told}" if changed else ""


def context(calibration: Calibration) -> str:
    """The rates of a calibration that does not judge, as context and no more."""
    told = [m for m in calibration.measurements if m.form == "trained" and m.kind != "context"][:1]
    if not told:
        return ""
    alarms, misses = told[0].record.false_alarms, told[0].record.misses
    return (
        f" (context only: among the models it was made from, {told[0].name.replace('_', ' ')} gave a false alarm in "
        f"{alarms.k} of {alarms.n} worlds and missed in {misses.k} of {misses.n})"
    )
