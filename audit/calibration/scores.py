"""Scores of models of known truth: one file per world, made by the zoo or from a user's own checkpoints.

A world is the unit of replication: its own facts, ancestor and training order. A calibration reads these files and
nothing else, so that thresholds and error rates can be computed again without a model.
"""

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Literal, Self

from pydantic import ValidationError

from audit.schema import (
    AuditError,
    Control,
    Count,
    Domain,
    ExitCode,
    Form,
    Interval,
    Kind,
    Measurement,
    MeasurementScale,
    Missing,
    Number,
    Overall,
    PeopleKept,
    Power,
    Record,
    TruthLabel,
)
from audit.stats import significant
from audit.storage import write_atomic

Content = Literal["same", "other words", "other people"]
DIGITS = 5
NOT_KEPT = Missing(missing="not computed for this measurement")
_rounded = partial(significant, digits=DIGITS)


def _number(value: Number) -> Number:
    return value if isinstance(value, Missing) else _rounded(value)


def _interval(ci95: Interval | Missing) -> Interval | Missing:
    return ci95 if isinstance(ci95, Missing) else Interval(lo=_rounded(ci95.lo), hi=_rounded(ci95.hi))


def _power(power: Power | Missing) -> Power | Missing:
    return power if isinstance(power, Missing) else power.model_copy(update={"share": _number(power.share)})


def _people(people: PeopleKept | Missing, names: Mapping[str, str]) -> PeopleKept | Missing:
    """Rounded; of the names only those that may be told are there, as they are to be told."""
    if isinstance(people, Missing):
        return people
    rounded = {"kept": _rounded(people.kept), "level": _rounded(people.level), "ci95": _interval(people.ci95)}
    listed = tuple(names[name] for name in people.named if name in names)
    return people.model_copy(update={**rounded, "log10_ratio": _rounded(people.log10_ratio), "named": listed})


def _enters(measurement: Measurement) -> bool:
    """May the measurement enter a verdict by itself? Of others nobody asks what they would find."""
    return measurement.kind != "context" and measurement.form == "trained" and measurement.mode == "controlled"


NOT_SCORED = Missing(missing="not scored")


class Score(Record):
    """What one measurement said of one model, without its curves, tables and costs; five significant digits.

    ``people`` names nobody but invented people: groups of a user's data are no part of a score.
    """

    probe: str
    name: str
    kind: Kind
    witness: Kind | None = None
    mode: Literal["controlled", "paper"] = "controlled"
    form: Form = "trained"
    value: Number
    ci95: Interval | Missing
    p: Number
    p_below: Number
    floor: Number
    overall: Overall | Missing
    control_found: bool
    units: int
    readings: dict[str, float] = {}
    scale: MeasurementScale = "effect"
    power: Power | Missing = NOT_SCORED
    people: PeopleKept | Missing = NOT_SCORED

    @classmethod
    def of(cls, measurement: Measurement, names: Mapping[str, str] | None = None) -> Self:
        """The score of a measurement. ``names`` says which groups may be told (as the measurement has them), and how;
        all others are left out."""
        m, overall = measurement, measurement.overall
        if isinstance(overall, Overall):
            overall = Overall(value=_rounded(overall.value), ci95=_interval(overall.ci95), floor=_number(overall.floor))
        return cls(
            probe=m.probe, name=m.name, kind=m.kind, witness=m.witness, mode=m.mode, form=m.form,
            value=_number(m.value), ci95=_interval(m.ci95), p=_number(m.p), p_below=_number(m.p_below),
            floor=_number(m.floor),
            overall=overall, units=m.units,
            control_found=not isinstance(m.positive_control, Missing) and m.positive_control.found,
            readings={name: _rounded(value) for name, value in m.readings.items()},
            scale=m.scale,
            power=_power(m.power) if _enters(m) else NOT_SCORED,
            people=_people(m.people, names or {}) if _enters(m) else NOT_SCORED,
        )  # fmt: skip

    def restored(self) -> Measurement:
        """The measurement again, as far as a judge needs it: curves, tables, words and costs are gone."""
        absent = Missing(missing="a score keeps numbers only")
        return Measurement(
            probe=self.probe, name=self.name, kind=self.kind, witness=self.witness, mode=self.mode, form=self.form,
            statistic=self.name,
            value=self.value, unit="", scale=self.scale, ci95=self.ci95, n=Count(scored=self.units),
            unit_of_replication="", units=self.units, seed=0, p=self.p, p_below=self.p_below, null=absent,
            positive_control=Control(value=float(self.control_found), ci95=absent, found=self.control_found),
            floor=self.floor, overall=self.overall, readings=self.readings, items=absent,
            power=self.power, people=self.people,
        )  # fmt: skip


class ScoredModel(Record):
    """One model of known truth and its scores.

    ``pool`` is the truth by construction: ``clean`` never saw the facts, ``knowing`` holds them, ``edited clean`` was
    unlearned on facts that it did not know, ``described`` is counted nowhere. ``mechanism`` names what was done to the
    model. ``kept`` of ``audited`` people are known to it. ``verdict`` is the in-case word, for comparison.
    """

    world: int
    model: str
    mechanism: str
    pool: TruthLabel
    kept: int
    audited: int
    content: Content = "same"
    domain: Domain
    scores: tuple[Score, ...]
    verdict: str = ""


class WorldScores(Record):
    """All scored models of one world, and what made them.

    ``recipe`` is what was drawn for this world, ``behaviours`` the digest of how every probe that scored behaved on the
    frozen world (:mod:`audit.calibration.behaviour`), ``versions`` and ``settings`` what those probes were;
    ``stages_cpu_s`` the cost.
    """

    schema_version: Literal["1.1"] = "1.1"
    world: int
    recipe: dict[str, str | int | float]
    stages_cpu_s: dict[str, float]
    behaviours: dict[str, str]
    versions: dict[str, int] = {}
    settings: dict[str, dict[str, str | int | float | bool]] = {}
    models: tuple[ScoredModel, ...]


def world_path(folder: Path, world: int) -> Path:
    """Where a world's scores lie in a pool's folder."""
    return folder / f"world-{world:04d}.json"


def write_world(path: Path, scores: WorldScores) -> None:
    """Write a world's scores whole or not at all; equal scores give equal bytes."""
    write_atomic(path, (scores.canonical() + "\n").encode())


def read_world(path: Path) -> WorldScores:
    """The scores in one file. AuditError (code 3) if it cannot be read as such."""
    try:
        return WorldScores.model_validate_json(path.read_bytes())
    except (OSError, ValidationError) as error:
        problems = f"{error.error_count()} problems" if isinstance(error, ValidationError) else str(error)
        raise AuditError(
            f"{path} holds no scores of a world ({problems})", "delete it, so that it is made again", ExitCode.INTEGRITY
        ) from None


def read_pool(folder: Path) -> tuple[WorldScores, ...]:
    """All worlds of a pool, by number; empty where there are none."""
    return tuple(sorted((read_world(path) for path in folder.glob("world-*.json")), key=lambda scores: scores.world))
