"""Calibrations of a model's own kind: where they lie, whether nothing in them changed, and whom they judge.

They are made from one case's base that was taught decoys (``residua calibrate --on``) and judge audits of that base
under that prompt template, and no others. They lie beside the case file, in a folder named by the base, so that every
case of this base beside it finds them. A list of the hashes of all files is written last: without it, or where a file
is another, the folder judges nothing.
"""

import hashlib
import json
from pathlib import Path
from typing import Final, NamedTuple

from audit.calibration.behaviour import FOLDER as BEHAVIOURS
from audit.calibration.records import SUBJECTS, OwnKind, Subjects, read
from audit.schema import AuditError, Template, content_key
from audit.storage import write_atomic

FOLDER: Final = "own-calibrations"
SEAL: Final = "files.sha256"
_SHOWN: Final = 16


class Bound(NamedTuple):
    """What a calibration of its own kind is bound to: a base, by its content, and the template that it is asked in."""

    base: str
    template: str

    @classmethod
    def of(cls, base_key: str, template: Template) -> "Bound":
        """Of a base with this content key."""
        return cls(base_key, content_key(template.model_dump(mode="json")))


class OwnFolder(NamedTuple):
    """A folder of calibrations of a model's own kind, and why it does not judge (empty: it may)."""

    path: Path
    refused: str = ""


def own_folder(root: Path, base_key: str) -> Path:
    """Where the calibrations of this base's own kind lie, for cases in the folder ``root``."""
    return root / FOLDER / base_key[:_SHOWN]


def own_folders(root: Path) -> tuple[Path, ...]:
    """All calibrations of models' own kinds that lie in the folder ``root``, of whichever base."""
    return tuple(sorted(path for path in (root / FOLDER).glob("*") if (path / SUBJECTS).is_file()))


def seal(folder: Path) -> None:
    """List the hashes of what calibrates, last of all: a folder without the list is one that was not finished."""
    write_atomic(folder / SEAL, (json.dumps(_hashes(folder), indent=1, sort_keys=True) + "\n").encode())


def find_own(root: Path, bound: Bound) -> OwnFolder | None:
    """The calibrations of this base's own kind beside a case; None where there are none, not even of another base."""
    folder = own_folder(root, bound.base)
    if not folder.is_dir():
        others = own_folders(root)
        if not others:
            return None
        return OwnFolder(folder, f"calibrations in {FOLDER} are of another base ({others[0].name}), not of this one "
                         f"({bound.base[:_SHOWN]})")  # fmt: skip
    return OwnFolder(folder, refusal(folder, bound))


def refusal(folder: Path, bound: Bound) -> str:
    """Why calibrations of a model's own kind do not judge an audit with this base and template; empty: they do.

    Calibrations of a pool are of no model's own kind, and are not refused here.
    """
    try:
        if not (folder / SUBJECTS).is_file():
            return "the calibration of this model's own kind was not finished" if (folder / "scores").is_dir() else ""
        own = read(folder / SUBJECTS, Subjects).own
        return "" if own is None else _differs(folder, own, bound)
    except AuditError as error:
        return f"the calibration of this model's own kind cannot be used: {error.what}"


def _differs(folder: Path, own: OwnKind, bound: Bound) -> str:
    if own.base != bound.base:
        return (
            f"calibrated on the own kind of another base ({own.base[:_SHOWN]}), not of this one ({bound.base[:_SHOWN]})"
        )
    if own.template != bound.template:
        return "calibrated on this model's own kind under another prompt template"
    if not (folder / SEAL).is_file():
        return "the calibration of this model's own kind was not finished"
    try:
        listed = json.loads((folder / SEAL).read_bytes())
    except ValueError:
        listed = None
    if listed != _hashes(folder):
        return "files of the calibration of this model's own kind have changed since they were made"
    return ""


def _hashes(folder: Path) -> dict[str, str]:
    """sha256 of every file that calibrates: of the folder itself, and the recorded behaviours."""
    files = sorted((*folder.glob("*.json"), *folder.glob(f"{BEHAVIOURS}/*.json")))
    return {path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}
