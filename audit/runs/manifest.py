"""A list of hashes beside a run, in the coreutils format: ``sha256sum -c manifest.sha256`` needs no tool of ours.

Left out are the manifest itself, its signature, what is appended to beside it (event log, custody log, lock), keys and
temporary files; of a run that was kept aside, below, everything is listed.
"""

import hashlib
import re
from pathlib import Path
from typing import Final, Literal, NamedTuple

from audit.runs import run_files
from audit.schema import AuditError, ExitCode
from audit.storage import refuse_special, write_atomic

NAME: Final = run_files.MANIFEST
SIGNATURE: Final = run_files.SIGNATURE
LEFT_OUT: Final = frozenset({NAME, SIGNATURE, run_files.EVENTS, run_files.LOCK, run_files.CUSTODY, run_files.CANCEL})
LEFT_OUT_ENDINGS: Final = (".tmp", ".key", ".pem")
_LINE: Final = re.compile(r"(\\?)([0-9a-f]{64}) [ *](.+)")


class Problem(NamedTuple):
    """One file that is not as the manifest says."""

    path: str
    fault: Literal["changed", "missing", "extra"]


def write(folder: Path) -> Path:
    """Hash every file under ``folder`` that belongs in the manifest and write it, sorted by path, in one step."""
    lines = [_line(path, _sha256(folder / path)) for path in _files(folder)]
    write_atomic(folder / NAME, "".join(lines).encode("utf-8", "surrogateescape"))
    return folder / NAME


class Compared(NamedTuple):
    """What a manifest lists (path: sha256), and which files are not as it says."""

    digests: dict[str, str]
    problems: list[Problem]


def check(folder: Path) -> list[Problem]:
    """Which files changed, are missing, or are there without being listed. Empty means: as written."""
    return compared(folder).problems


def compared(folder: Path) -> Compared:
    """:func:`check`, with what the manifest lists. AuditError (code 3) if it is missing or damaged."""
    digests = _read(folder / NAME)
    present = set(_files(folder))
    problems = [Problem(path, "missing") for path in digests if path not in present]
    problems += [
        Problem(p, "changed") for p, digest in digests.items() if p in present and _changed(folder / p, digest)
    ]
    problems += [Problem(path, "extra") for path in present if path not in digests]
    return Compared(digests, sorted(problems))


def _files(folder: Path) -> list[str]:
    """Paths of the listed kind, relative and with forward slashes, sorted. A link counts as what it points to."""
    paths = [p for p in folder.rglob("*") if p.is_file()]
    names = [p.relative_to(folder).as_posix() for p in paths if not p.name.endswith(LEFT_OUT_ENDINGS)]
    return sorted(path for path in names if path not in LEFT_OUT)


def _changed(path: Path, digest: str) -> bool:
    """Does a file hash to something else, or is it none that a run writes?"""
    try:
        return _sha256(path) != digest
    except AuditError:
        return True


def _sha256(path: Path) -> str:
    refuse_special(path, in_memory=True, code=ExitCode.INTEGRITY)
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _line(path: str, digest: str) -> str:
    """One line; a name with a backslash or line break is escaped as coreutils does."""
    escaped = path.replace("\\", "\\\\").replace("\n", "\\n").replace("\r", "\\r")
    return f"{'' if escaped == path else chr(92)}{digest}  {escaped}\n"


def _read(path: Path) -> dict[str, str]:
    if not path.is_file():
        raise AuditError(f"{path} is missing", "the run is not finished, or was taken apart: run it again",
                         ExitCode.INTEGRITY)  # fmt: skip
    refuse_special(path, in_memory=True, code=ExitCode.INTEGRITY)
    return listed(path.read_text(encoding="utf-8", errors="surrogateescape"), str(path))


def listed(text: str, where: str) -> dict[str, str]:
    """Path to hash of every line of a manifest's text. AuditError (code 3) names the line that is no checksum line."""
    digests: dict[str, str] = {}
    for i, line in enumerate(text.split("\n"), 1):
        if not line:
            continue
        match = _LINE.fullmatch(line)
        if match is None:
            raise AuditError(f"{where}, line {i}, is not a checksum line", "restore the manifest", ExitCode.INTEGRITY)
        escaped, digest, name = match.groups()
        if escaped:
            name = re.sub(r"\\([\\nr])", lambda m: {"\\": "\\", "n": "\n", "r": "\r"}[m.group(1)], name)
        digests[name] = digest
    return digests
