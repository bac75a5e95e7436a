"""What identifies a calibration: the numbers that its probe gives on a frozen tiny world, not the text of its source.

A behaviour is a probe's version and settings and its scores of the world of its kind
(:mod:`audit.probing.frozen_world`), as numbers of five digits. It is stored with a hash of the sources and the
libraries that gave it. Where others are installed, the numbers are computed again before a calibration may judge, never
assumed; they are the same within :data:`TOLERANCE`, so that another processor is no change. A change in statistics,
data rules or the bench that moves a number is seen, and a refactoring is none. Free of torch: whoever can compute is
given as a function.
"""

import hashlib
import json
import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Literal, Self

import numpy as np
from pydantic import ValidationError, model_validator

from audit.calibration.scores import Score
from audit.calibration.sources import Installed, installed
from audit.schema import AuditError, ExitCode, Interval, Overall, Record
from audit.storage import cache_root, exclusive, write_atomic

log = logging.getLogger(__name__)

Kind = Literal["causal_lm", "image_classifier", "vision_language"]
Settings = Mapping[str, str | int | float | bool]
TOLERANCE = 1e-4
"""Two values are one value up to this, absolutely or relatively."""
FOLDER = "behaviour"
MEASURED_BY = "audit.probing.behaviour_scores"
"""The module that measures: its sources count among those behind every behaviour."""
SHOWN = 3


class Behaviour(Record):
    """What a probe of a version, with its settings, says of the frozen world of a kind of model.

    ``values`` are named by model family, measurement and field; a number that is missing there is not among them.
    """

    schema_version: Literal["1.0"] = "1.0"
    probe: str
    version: int
    settings: dict[str, str | int | float | bool]
    kind: Kind = "causal_lm"
    values: dict[str, float]


class Attested(Record):
    """A behaviour, its content hash, and what was installed where it was last computed."""

    behaviour: Behaviour
    digest: str
    installed: Installed

    @model_validator(mode="after")
    def _digest_is_of_the_behaviour(self) -> Self:
        if self.digest != self.behaviour.content_hash():
            raise ValueError("the digest is not that of the behaviour")
        return self


def attested(behaviour: Behaviour, by: Installed) -> Attested:
    """A behaviour with what is installed where it was computed."""
    return Attested(behaviour=behaviour, digest=behaviour.content_hash(), installed=by)


# ---- numbers ----------------------------------------------------------------------------------------------------
def numbers(score: Score) -> dict[str, float]:
    """The numbers of a score by field; True is 1. What is missing is left out."""
    name = score.name if score.mode == "controlled" else f"{score.name} ({score.mode})"
    fields: dict[str, object] = {
        "value": score.value, "ci95": score.ci95, "p": score.p, "p_below": score.p_below, "floor": score.floor,
        "control_found": float(score.control_found), "units": float(score.units),
    }  # fmt: skip
    if isinstance(score.overall, Overall):
        overall = score.overall
        fields |= {"overall": overall.value, "overall ci95": overall.ci95, "overall floor": overall.floor}
    fields |= {f"reading {key}": value for key, value in score.readings.items()}
    flat: dict[str, float] = {}
    for key, value in fields.items():
        if isinstance(value, Interval):
            flat |= {f"{name}, {key} lo": value.lo, f"{name}, {key} hi": value.hi}
        elif isinstance(value, float):
            flat[f"{name}, {key}"] = value
    return flat


def moved(before: Behaviour, now: Behaviour) -> tuple[str, ...]:
    """What differs between two behaviours, in words; nothing where they are the same within :data:`TOLERANCE`."""
    if (before.version, before.settings, before.kind) != (now.version, now.settings, now.kind):
        return ("another version, other settings or another kind of model",)
    if not before.values:
        return ("it gives no number on the frozen world, and its sources or the libraries are others",)
    changed: list[str] = []
    for name in sorted(before.values.keys() | now.values.keys()):
        old, new = before.values.get(name), now.values.get(name)
        if old is None or new is None or not np.isclose(new, old, rtol=TOLERANCE, atol=TOLERANCE):
            changed.append(f"{name}: {_shown(old)} → {_shown(new)}")
    return tuple(changed)


def _shown(value: float | None) -> str:
    return "no number" if value is None else f"{value:.5g}"


def summary(changed: Sequence[str], among: int) -> str:
    """The first few of the numbers that moved, and how many did."""
    shown = "; ".join(changed[:SHOWN])
    return f"{shown} ({len(changed)} of {among} numbers moved)" if len(changed) > SHOWN else shown


# ---- files ------------------------------------------------------------------------------------------------------
def record_path(folder: Path, probe: str, digest: str) -> Path:
    """Where the record of a behaviour lies in a folder of calibrations or of scores."""
    return folder / FOLDER / f"{probe}-{digest[:12]}.json"


def write_record(folder: Path, record: Attested) -> Path:
    """Write a record whole or not at all; another one of the same behaviour gives way."""
    path = record_path(folder, record.behaviour.probe, record.digest)
    write_atomic(path, (record.canonical() + "\n").encode())
    return path


def read_records(folder: Path) -> dict[str, Attested]:
    """The records of a folder by digest. AuditError (code 3) if one is none."""
    records = [_record(path) for path in sorted((folder / FOLDER).glob("*.json"))]
    return {record.digest: record for record in records}


def _record(path: Path) -> Attested:
    try:
        return Attested.model_validate_json(path.read_bytes())
    except (OSError, ValidationError) as error:
        raise AuditError(
            f"{path} is no record of a probe's behaviour", "restore it from the release, or calibrate again",
            ExitCode.INTEGRITY,
        ) from error  # fmt: skip


def recorded(folder: Path, behaviours: "InstalledBehaviours", probe: str, settings: Settings) -> str:
    """The digest under which a folder knows how a probe behaves now; a behaviour that is new to it is added."""
    known = behaviours.among(read_records(folder).values(), probe, settings)
    if known is None:
        known = behaviours.now(probe, settings)
        write_record(folder, known)
    return known.digest


def attest(folder: Path, behaviours: "InstalledBehaviours") -> tuple[str, ...]:
    """Have every record of a folder say that what is installed now gives its numbers too, where it does.

    What is the same is computed again only where the sources are others. The probes that behave otherwise are returned.
    """
    others: list[str] = []
    for record in read_records(folder).values():
        probe = record.behaviour.probe
        if behaviours.moved(record):
            others.append(probe)
        elif record.installed != behaviours.installed(probe):
            write_record(folder, attested(record.behaviour, behaviours.installed(probe)))
    return tuple(others)


# ---- now --------------------------------------------------------------------------------------------------------
Compute = Callable[[str, str, Settings], Behaviour]
"""package, probe, settings -> its behaviour by what is installed."""


class InstalledBehaviours:
    """How the probes of a package behave on the frozen world of a kind by what is installed: from the cache, else
    computed and kept there."""

    def __init__(self, package: str, compute: Compute, cache: Path | None = None, kind: Kind = "causal_lm") -> None:
        self.package, self._compute, self.kind = package, compute, kind
        self._cache = cache_root() / FOLDER if cache is None else cache
        self._known: dict[str, Attested] = {}
        self._installed: dict[str, Installed] = {}

    def installed(self, probe: str) -> Installed:
        """What is installed, of all that can change this probe's numbers; read once."""
        if probe not in self._installed:
            self._installed[probe] = installed(self.package, probe, MEASURED_BY)
        return self._installed[probe]

    def now(self, probe: str, settings: Settings) -> Attested:
        """The behaviour of a probe by what is installed."""
        by = self.installed(probe)
        parts = [by.canonical(), dict(settings), *([] if self.kind == "causal_lm" else [self.kind])]
        key = hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()
        if key not in self._known:
            path = self._cache / f"{probe}-{key[:24]}.json"
            with exclusive(path):
                known = _cached(path, by)
                if known is None:
                    known = attested(self._compute(self.package, probe, settings), by)
                    write_atomic(path, known.canonical().encode())
            self._known[key] = known
        return self._known[key]

    def among(self, records: Iterable[Attested], probe: str, settings: Settings) -> Attested | None:
        """The record of the probe's behaviour with these settings by what is installed, if it is among these."""
        wanted = (self.kind, probe, dict(settings))
        of_probe = [r for r in records if (r.behaviour.kind, r.behaviour.probe, r.behaviour.settings) == wanted]
        return next((record for record in of_probe if not self.moved(record)), None)

    def moved(self, record: Attested) -> tuple[str, ...]:
        """What of a recorded behaviour is another by what is installed; nothing where it was computed by the same.

        A probe that cannot be measured any more is another one too, and the reason is said.
        """
        before = record.behaviour
        try:
            if record.installed == self.installed(before.probe):
                return ()
            return moved(before, self.now(before.probe, before.settings).behaviour)
        except AuditError as error:
            if error.code == ExitCode.INTEGRITY:
                raise
            return (error.what,)


def _cached(path: Path, by: Installed) -> Attested | None:
    """A whole record of the same sources and libraries, or None."""
    if not path.is_file():
        return None
    try:
        record = Attested.model_validate_json(path.read_bytes())
    except (OSError, ValidationError):
        log.warning("%s is broken: the behaviour is computed again", path)
        return None
    return record if record.installed == by else None
