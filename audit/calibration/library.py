"""What models of known truth say of a probe: thresholds, likelihood ratios, error rates; and for which audits it holds.

A folder of calibrations holds ``subjects.json`` (the models of known truth), one ``<probe>.json`` a probe with its
scores of them, and ``joint.json`` (the joint rule of all probes together). All are generated and never edited by hand.
A calibration judges only audits inside its scope, by the probe, version and settings that it was made from, as long as
the probe gives the same numbers on a frozen tiny world (:mod:`audit.calibration.behaviour`).
"""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

from audit import plugins
from audit.calibration.behaviour import Attested, Kind, read_records, summary
from audit.calibration.records import JOINT, SUBJECTS, Calibration, Settings, Subjects, read
from audit.schema import (
    AuditError,
    CalibrationUse,
    Domain,
    ExitCode,
    Modality,
)

KINDS: Mapping[Modality, Kind] = {
    "text": "causal_lm", "image": "image_classifier", "image+text": "vision_language",
}  # fmt: skip
"""The kind of models of known truth that stand for models of a modality; for the others there are none yet."""


def kind_for(modality: Modality) -> Kind:
    """The kind of models of known truth by which models of a modality are judged; language models where there is none,
    whose calibrations do not hold for them."""
    return KINDS.get(modality, "causal_lm")


def stored(modality: Modality = "text") -> Path:
    """Where the calibrations lie that come with the probes: a folder for each kind of model, none of another's."""
    return plugins.folder("probes") / "calibrations" / KINDS.get(modality, modality)


def zoo_floors(folder: Path | None = None) -> dict[str, float]:
    """The largest floor that the zoo ever measured, per measurement (``probe.name``); empty if none is stored.

    ``folder`` holds the stored calibrations (default: beside the probes).
    """
    path = (folder or stored()) / "floors.json"
    if not path.is_file():
        return {}
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
        return {str(name): float(value) for name, value in document["floors"].items()}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise AuditError(
            f"{path} is not a floors file ({error})", "restore it from the release", ExitCode.INTEGRITY
        ) from error


class CalibrationLibrary(NamedTuple):
    """A folder of calibrations, read, with the records of the behaviours that they are for (by digest)."""

    folder: Path
    subjects: Subjects | None
    calibrations: dict[str, Calibration]
    records: Mapping[str, Attested] = {}

    @property
    def command(self) -> str:
        """What renews these calibrations."""
        return self.subjects.command if self.subjects else "residua calibrate"


def read_library(folder: Path) -> CalibrationLibrary:
    """All calibrations of a folder; none where it has no subjects. AuditError (code 3) if one belongs to others."""
    if not (folder / SUBJECTS).is_file():
        return CalibrationLibrary(folder, None, {})
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
    return CalibrationLibrary(folder, subjects, found, read_records(folder))


# ---- does it hold? ----------------------------------------------------------------------------------------------
class ProbeIdentity(NamedTuple):
    """A probe as it ran: its version and its settings."""

    version: int
    settings: Settings


Moved = Callable[[Attested], tuple[str, ...]]
"""Which numbers of a recorded behaviour are others by what is installed now, in words; empty where none is."""


def use_of(shelf: CalibrationLibrary, probe: str, asked: ProbeIdentity, domain: Domain, moved: Moved) -> CalibrationUse:
    """Does the probe's calibration judge this audit? If not: why, and which command makes one that does.

    What costs nothing is looked at first: the behaviour only where the calibration would hold by all else.
    """
    calibration = shelf.calibrations.get(probe)
    if calibration is None or shelf.subjects is None:
        why = "no calibration of this probe is stored"
        return CalibrationUse(probe=probe, status="none", because=why, renew=shelf.command)
    own = shelf.subjects.own is not None
    of_whom = f"calibrated on this model's own kind, {shelf.subjects.worlds} decoy worlds; " if own else ""
    status, why = "holds", f"{of_whom}valid for {calibration.scope.words()}; not for audits outside these"
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
            "own": own,
        }
    )  # fmt: skip


def _change(shelf: CalibrationLibrary, calibration: Calibration, moved: Moved) -> str:
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
