"""Who received what, and what was done with a run: ``custody.jsonl``, a chain in which every line names the one before.

A line is the canonical JSON (keys sorted, no spaces, UTF-8, nothing escaped that need not be) of ``n`` (1, 2, ...),
``time`` (UTC), ``action``, ``about``, ``tool`` (the code version), ``before`` (``sha256`` of the line before, 64 zeros
for the first) and ``sha256``: the sha256 of the same JSON without ``sha256``. By hand, for line 3::

    sed -n 3p custody.jsonl | jq -cjS 'del(.sha256)' | sha256sum

``about`` holds ``role``, ``fingerprint`` and ``path`` (as given) of what was received, of a data file the role
``data <cohort>`` and no path; ``file`` and ``file_sha256`` of a file of the run that was kept (the plan, the key of the
masks, a finished unit, its tables), of unit and plan before the file is put in place; ``probe`` and ``file`` of a unit
that was begun where the folder has one of that probe, whose tables it writes over; ``report_id``, the sha256 of
``manifest.sha256``, and size and sha256 of the event log when the report was issued; ``outcome`` of a verification that
was asked to write itself down.
"""

import fcntl
import hashlib
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Final, Literal, NamedTuple

from pydantic import ValidationError

from audit.runs import run_files
from audit.schema import AuditError, ExitCode, Record, canonical_hash
from audit.storage import file_bytes, refuse_special

NAME: Final = run_files.CUSTODY
FIRST: Final = "0" * 64
DATA: Final = "data "
"""Before the cohort of a data file that was received."""
WHAT_IT_SHOWS: Final = (
    "The manifest lists the sha256 of every file of the run, and every line of the custody log holds the hash of the "
    "line before and its own: a file, a line or an order that changed by accident is found by `residua verify`.",
    "Whoever can write the folder can also make all of it anew. Against forgery compare the printed report id with one "
    "that was kept elsewhere, or keep a detached signature of manifest.sha256.",
    "Lines cut off the end of the custody log, after the one that says `issued`, cannot be seen.",
)
"""What hashes beside a report are worth: printed with it."""

Action = Literal["received", "begun", "kept", "issued", "verified"]


class Line(Record):
    """One line of the chain."""

    n: int
    time: str
    action: Action
    about: dict[str, str]
    tool: str
    before: str
    sha256: str

    def computed(self) -> str:
        """The hash that the line's other fields give it."""
        return canonical_hash(self.model_dump(mode="json", exclude={"sha256"}))


class Chain(NamedTuple):
    """The lines that could be read, and everything that is wrong with the file, each fault with its place."""

    lines: tuple[Line, ...]
    faults: tuple[str, ...]

    def last(self, action: Action) -> Line | None:
        """The last line of this kind."""
        return next((line for line in reversed(self.lines) if line.action == action), None)

    def after(self, line: Line) -> "Chain":
        """The same chain with one line more."""
        return self._replace(lines=(*self.lines, line))

    def file_hashes(self) -> dict[str, frozenset[str]]:
        """Every sha256 under which a file of the run was kept, by its path: a unit made anew is kept anew."""
        hashes: dict[str, frozenset[str]] = {}
        for about in (line.about for line in self.lines if line.action == "kept"):
            name = about.get("file", "")
            hashes[name] = hashes.get(name, frozenset()) | {about.get("file_sha256", "")}
        return hashes

    def unfinished(self) -> frozenset[str]:
        """The probes that were begun again and have kept no unit since: a kill may have left a table of any state."""
        begun: dict[str, str] = {}
        for line in self.lines:
            if line.action == "begun":
                begun[line.about.get("file", "")] = line.about.get("probe", "")
            elif line.action == "kept" and (probe := begun.get(line.about.get("file", ""))) is not None:
                begun = {file: other for file, other in begun.items() if other != probe}
        return frozenset(begun.values())


def read(folder: Path) -> Chain:
    """The chain beside a run; a file that is not there is an empty one."""
    path = folder / NAME
    return chain(file_bytes(path) if path.is_file() else b"")


def append(folder: Path, action: Action, about: dict[str, str], tool: str) -> Line:
    """Add one line, on the disk when this returns. AuditError (code 3) if the chain is broken or the disk refuses."""
    return _append(folder, action, (about,), tool)[-1]


def _append(folder: Path, action: Action, abouts: Sequence[dict[str, str]], tool: str) -> tuple[Line, ...]:
    path = folder / NAME
    try:
        with path.open("a+b") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            file.seek(0)
            existing = chain(file.read())
            if existing.faults:
                raise AuditError(f"{path} is broken: {existing.faults[0]}", "restore it; nothing was added",
                                 ExitCode.INTEGRITY)  # fmt: skip
            for about in abouts:
                existing = existing.after(_next(existing, action, about, tool))
            added = existing.lines[-len(abouts) :]
            file.write("".join(f"{line.canonical()}\n" for line in added).encode())
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise AuditError(f"{path}: cannot be written ({error.strerror})", "free some space, or make it writable",
                         ExitCode.INTEGRITY) from error  # fmt: skip
    return added


def _next(chain: Chain, action: Action, about: dict[str, str], tool: str) -> Line:
    before = chain.lines[-1].sha256 if chain.lines else FIRST
    now = datetime.now(UTC).isoformat(timespec="seconds")
    bare = Line(n=len(chain.lines) + 1, time=now, action=action, about=about, tool=tool, before=before, sha256="")
    return bare.model_copy(update={"sha256": bare.computed()})


def mend(folder: Path) -> None:
    """Cut off a last line that a killed process left without its end. Any other fault stays, and stays a fault."""
    path = folder / NAME
    data = file_bytes(path) if path.is_file() else b""
    complete = data.rfind(b"\n") + 1
    if complete < len(data):
        os.truncate(path, complete)


class Arrival(NamedTuple):
    """Something received: in which role, what it hashes to, and the path as it was given."""

    role: str
    fingerprint: str
    path: str


def receive(folder: Path, arrivals: Iterable[Arrival], tool: str) -> None:
    """Write down what was received, once: a resumed run finds its lines there."""
    known = {(line.about.get("role"), line.about.get("fingerprint")) for line in read(folder).lines}
    for arrival in arrivals:
        if (arrival.role, arrival.fingerprint) not in known:
            append(folder, "received", arrival._asdict(), tool)


def keep(folder: Path, files: Mapping[str, str], tool: str) -> None:
    """Write down files of the run that are kept (path below the folder: sha256), each of them once."""
    known = read(folder).file_hashes()
    new = [{"file": name, "file_sha256": sha} for name, sha in files.items() if sha not in known.get(name, ())]
    if new:
        _append(folder, "kept", new, tool)


def held(folder: Path) -> dict[str, frozenset[str]]:
    """What the log holds of the files of an unfinished run: :meth:`Chain.file_hashes` of :func:`unbroken_chain`."""
    return unbroken_chain(folder).file_hashes()


def unbroken_chain(folder: Path) -> Chain:
    """The chain beside an unfinished run; an end that a kill tore off counts for nothing. AuditError (code 3) where it
    is broken elsewhere."""
    path = folder / NAME
    data = file_bytes(path) if path.is_file() else b""
    existing = chain(data[: data.rfind(b"\n") + 1])
    if existing.faults:
        raise AuditError(f"{path} is broken: {existing.faults[0]}", "restore it, or use --force-new, which keeps what "
                         "is there aside", ExitCode.INTEGRITY)  # fmt: skip
    return existing


def check_kept(folder: Path, name: str) -> None:
    """Is a file that is there the one that was kept? AuditError (code 3) where it is not; nothing where the log holds
    no such file yet, or the folder no such file."""
    stated = held(folder).get(name)
    if stated is not None and (folder / name).is_file() and sha256_of(folder / name) not in stated:
        raise changed(folder, name)


def changed(folder: Path, name: str) -> AuditError:
    """The refusal of a file that is not the one that was kept."""
    return AuditError(
        f"{folder / name} was changed after it was written: it is not what {NAME} holds",
        "restore it; or use --force-new, which keeps what is there aside and measures everything again",
        ExitCode.INTEGRITY,
    )


def sha256_of(path: Path) -> str:
    """The sha256 (hex) of a file of a run, none of which is large. AuditError (code 3) if this one is."""
    refuse_special(path, in_memory=True, code=ExitCode.INTEGRITY)
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def issue(folder: Path, report_id: str, manifest: Path, tool: str) -> None:
    """Write down that a report was issued, unless the last line of that kind says so already."""
    about = {"report_id": report_id, "manifest_sha256": sha256_of(manifest)} | _events(folder)
    last = read(folder).last("issued")
    if last is None or last.about != about:
        append(folder, "issued", about, tool)


def _events(folder: Path) -> dict[str, str]:
    """Size and sha256 of the event log as it is: what it says from here on comes after."""
    path = folder / run_files.EVENTS
    data = file_bytes(path) if path.is_file() else b""
    return {"events_bytes": str(len(data)), "events_sha256": hashlib.sha256(data).hexdigest()}


# ---- reading ----------------------------------------------------------------------------------------------------
def chain(data: bytes) -> Chain:
    """The chain in the bytes of a custody log."""
    lines: list[Line] = []
    faults: list[str] = []
    *complete, torn = data.split(b"\n")
    before = FIRST
    for n, raw in enumerate(complete, 1):
        try:
            line = Line.model_validate_json(raw)
        except ValidationError as error:
            where = ".".join(str(part) for part in error.errors()[0]["loc"]) or "the whole line"
            faults.append(f"{NAME}, line {n}, {where}: cannot be read")
            before = ""
            continue
        faults += [f"{NAME}, line {n}, {fault}" for fault in _faults(line, raw, n, before)]
        lines.append(line)
        before = line.sha256
    if torn:
        faults.append(f"{NAME}, line {len(complete) + 1}, its end: is torn off")
    return Chain(tuple(lines), tuple(faults))


def _faults(line: Line, raw: bytes, n: int, before: str) -> Iterator[str]:
    """What is wrong with one line; ``before`` is empty after a line that could not be read."""
    if line.n != n:
        yield f"n: states {line.n}"
    if before and line.before != before:
        yield f"before: states {line.before[:12]}, the line before gives {before[:12]}"
    if (computed := line.computed()) != line.sha256:
        yield f"sha256: states {line.sha256[:12]}, the line gives {computed[:12]}"
    if line.canonical().encode() != raw:
        yield "the whole line: is not canonical JSON"
