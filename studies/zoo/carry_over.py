"""Carry scores over from an identity by source to one by behaviour, where the same code gave both.

``record FILE`` runs in a checkout of the code that scored, with the modules that measure a behaviour laid beside it
(``audit/{behaviour,behaviour_scores,frozen_models,frozen_world,sources}.py`` and this file): it writes how every probe
behaves there, and the source hash by which that code named it. ``apply FILE`` runs here: it computes the behaviours
again by what is installed now, refuses where a number moved, and puts the behaviours in the place of those source
hashes: in the worlds' scores and in the calibrations, of which no number is touched (made again on another processor
they would differ in the sixteenth digit).
"""

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import probes
from audit.behaviour import MEASURED_BY, Attested, attested, moved, write_record
from audit.behaviour_scores import behaviour_of
from audit.calibration import JOINT, Calibration, read
from audit.disk import write_atomic
from audit.nouns import AuditError, ExitCode
from audit.planning import configured
from audit.sources import installed

PROBES = "probes"
SCORES = Path(__file__).parent / "scores"
CALIBRATIONS = Path(probes.__file__).parent / "calibrations"
ATTACKED = Path(__file__).parent.parent / "faithfulness" / "attacked"


def record(path: Path) -> None:
    """Write how every probe behaves by the code that is installed, under the hash of its source."""
    from audit.plugins import source_hash  # only the code that named probes by their source has it

    known = {
        source_hash(PROBES, name): attested(
            behaviour_of(PROBES, name, probe.model_dump(mode="json")), installed(PROBES, name, MEASURED_BY)
        ).model_dump(mode="json")
        for name, probe in configured({}, PROBES).items()
    }
    write_atomic(path, (json.dumps(known, indent=1, sort_keys=True) + "\n").encode())


def apply(path: Path) -> int:
    """Name the committed scores by the recorded behaviours. AuditError (code 3) where one is another now."""
    before = {source: Attested.model_validate(row) for source, row in json.loads(path.read_bytes()).items()}
    for known in before.values():
        name, settings = known.behaviour.probe, known.behaviour.settings
        changed = moved(known.behaviour, behaviour_of(PROBES, name, settings))
        if changed:
            raise AuditError(f"{name} behaves otherwise now: {changed[:3]}", "score anew", ExitCode.INTEGRITY)
        now = attested(known.behaviour, installed(PROBES, name, MEASURED_BY))
        for folder in (SCORES, CALIBRATIONS) if (CALIBRATIONS / f"{name}.json").is_file() else (SCORES,):
            write_record(folder, now)
    files = [*sorted(SCORES.glob("world-*.json")), *sorted(ATTACKED.glob("*.json"))]
    for file in files:
        raw: dict[str, Any] = json.loads(file.read_bytes())
        named = _named(raw.pop("code"), before)
        key = "behaviours" if file.parent == SCORES else "code"
        whole = raw | {key: named} | ({"schema_version": "1.1"} if file.parent == SCORES else {})
        _write(file, whole)
    return len(files) + _calibrations(before)


def _calibrations(before: Mapping[str, Attested]) -> int:
    """Name the calibrations by behaviours too; the joint rule says anew what it was made from."""
    paths = {known.behaviour.probe: CALIBRATIONS / f"{known.behaviour.probe}.json" for known in before.values()}
    paths = {probe: path for probe, path in paths.items() if path.is_file()}
    for path in paths.values():
        raw: dict[str, Any] = json.loads(path.read_bytes())
        digest = before[raw.pop("source")].digest
        _write(path, raw | {"behaviour": digest, "schema_version": "1.1"})
    made_from = {probe: read(path, Calibration).content_hash() for probe, path in paths.items()}
    _write(CALIBRATIONS / JOINT, json.loads((CALIBRATIONS / JOINT).read_bytes()) | {"made_from": made_from})
    return len(paths) + 1


def _write(path: Path, document: Mapping[str, object]) -> None:
    text = json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    write_atomic(path, (text + "\n").encode())


def _named(code: Mapping[str, str], before: Mapping[str, Attested]) -> dict[str, str]:
    """The digests in place of the source hashes; what is named otherwise stays. AuditError if a hash is not known."""
    named = {name: before[source].digest if source in before else source for name, source in code.items()}
    strange = [name for name, source in code.items() if source not in before and name != "settings"]
    if strange:
        raise AuditError(f"scored by other code of {', '.join(strange)}", "score anew", ExitCode.INTEGRITY)
    return named


if __name__ == "__main__":
    if sys.argv[1] == "record":
        record(Path(sys.argv[2]))
    else:
        print(f"{apply(Path(sys.argv[2]))} files carried over")
