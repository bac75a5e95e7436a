"""The run folder: one process at a time, finished units that are never redone, and a final report never overwritten.

``plan.json`` is written before anything is measured; ``units/<key>.json`` holds one finished unit each (probe x
checkpoint x seed), ``events.jsonl`` what happened when, ``run.log`` tracebacks. The manifest is written last, so its
presence is what makes a report final. Every file but the two logs appears whole or not at all.
"""

import hashlib
import json
import logging
import os
import shutil
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from pydantic import ValidationError

from audit.runs import run_files
from audit.schema import AuditError, ExitCode, Measurement, Missing, Plan, Record, RoleAudit, Skip, Timing
from audit.storage import write_atomic

log = logging.getLogger(__name__)

WRITTEN = frozenset({
    run_files.PLAN, run_files.CUSTODY, run_files.EVENTS, run_files.LOG, run_files.UNITS, run_files.TABLES,
    run_files.MASK_KEY,
})  # fmt: skip
OWN_FILES = WRITTEN | {run_files.LOCK, run_files.CANCEL, run_files.SUPERSEDED}
SHOWN_DIFFERENCES = 20


class Cancelled(KeyboardInterrupt):
    """Someone asked this run, and no other, to stop."""


class Unit(Record):
    """One finished unit of work: what one probe measured, or why it could not, and what that cost.

    ``roles``: the records of the unit that audits who judges, which measures nothing.
    """

    key: str
    probe: str
    measurements: tuple[Measurement, ...]
    skip: Skip | None = None
    timing: Timing
    roles: tuple[RoleAudit, ...] = ()


def now() -> str:
    """The time in UTC, to the second."""
    return _utc(datetime.now(UTC).timestamp())


def _utc(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds")


def _leaves(value: object, path: str = "") -> Iterator[tuple[str, str]]:
    if isinstance(value, dict):
        for key, below in value.items():
            yield from _leaves(below, f"{path}.{key}" if path else str(key))
    elif isinstance(value, list):
        for index, below in enumerate(value):
            yield from _leaves(below, f"{path}[{index}]")
    else:
        yield path, json.dumps(value)


def difference(old: Plan, new: Plan) -> list[str]:
    """Where two plans differ, one line a leaf: ``path: old -> new``."""
    before = dict(_leaves(old.model_dump(mode="json")))
    after = dict(_leaves(new.model_dump(mode="json")))
    changed = [key for key in {**before, **after} if key != "plan_hash" and before.get(key) != after.get(key)]
    lines = [f"{key}: {before.get(key, 'absent')} -> {after.get(key, 'absent')}" for key in changed]
    more = len(lines) - SHOWN_DIFFERENCES
    return lines[:SHOWN_DIFFERENCES] + ([f"... and {more} more"] if more > 0 else [])


def _disk_refuses(out: Path, error: OSError) -> AuditError:
    return AuditError(
        f"{out}: cannot be written ({error.strerror})",
        "choose a folder that can be written, or free some space",
        ExitCode.INTEGRITY,
    )


class RunJournal:
    """A locked run folder. Use as ``with Journal(out).locked() as journal``."""

    def __init__(self, out: Path) -> None:
        self.out = out
        self._log_file: logging.FileHandler | None = None

    # ---- the lock -----------------------------------------------------------------------------------------------
    @contextmanager
    def locked(self) -> Generator["RunJournal"]:
        """Hold the folder's lock; AuditError (code 2) if another process holds it, code 3 if the disk refuses.

        The kernel drops the lock when its process dies, so a lock file left by a killed run is stale by construction.
        """
        self._refuse_foreign_folder()
        handle = self._lock()
        self._sweep()
        self._log_file = logging.FileHandler(self.out / run_files.LOG, delay=True, encoding="utf-8")
        self._log_file.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
        logging.getLogger("audit").addHandler(self._log_file)
        try:
            yield self
        except KeyboardInterrupt:
            self.event("interrupted")
            raise
        finally:
            logging.getLogger("audit").removeHandler(self._log_file)
            self._log_file.close()
            # A wish to stop is for the run that it was made to; the next one in this folder was not asked.
            (self.out / run_files.CANCEL).unlink(missing_ok=True)
            (self.out / run_files.LOCK).unlink(missing_ok=True)
            os.close(handle)

    def _sweep(self) -> None:
        """Remove what a killed run had not yet put in place; with the lock held nobody else is writing here."""
        for path in list(self.out.rglob("*.tmp")):
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)

    def _refuse_foreign_folder(self) -> None:
        if self.out.exists() and not self.out.is_dir():
            raise AuditError(f"{self.out} is a file", "name a folder with -o")
        if self.out.is_dir() and not (self.out / run_files.PLAN).exists():
            foreign = sorted(p.name for p in self.out.iterdir() if p.name not in OWN_FILES and p.suffix != ".tmp")
            if foreign:
                raise AuditError(
                    f"{self.out} is not a run folder and is not empty (it holds {foreign[0]})",
                    "name a new folder with -o",
                )

    def _lock(self) -> int:
        import fcntl

        path = self.out / run_files.LOCK
        try:
            self.out.mkdir(parents=True, exist_ok=True)
            handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        except OSError as error:
            raise _disk_refuses(self.out, error) from error
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            owned = path.exists() and os.stat(path).st_ino == os.fstat(handle).st_ino
        except BlockingIOError:
            owned = False
        if not owned:
            holder = os.read(handle, 32).decode(errors="replace").strip() or "unknown"
            os.close(handle)
            raise AuditError(
                f"another process (pid {holder}) is running in {self.out}",
                "wait for it, or name another folder with -o",
            )
        stale = os.read(handle, 32).decode(errors="replace").strip()
        if stale:
            log.info("stale lock of pid %s: that process is gone", stale)
        os.ftruncate(handle, 0)
        os.pwrite(handle, str(os.getpid()).encode(), 0)
        return handle

    # ---- plan, events, units ------------------------------------------------------------------------------------
    @property
    def registered(self) -> str:
        """When the plan was written down, in UTC: the time of plan.json, which is never written again."""
        return _utc((self.out / run_files.PLAN).stat().st_mtime)

    @property
    def final(self) -> bool:
        """Is the report in this folder complete?"""
        return (self.out / run_files.MANIFEST).is_file() and (self.out / run_files.REPORT).is_file()

    def planned(self) -> Plan | None:
        """The plan this folder was started with, or None."""
        path = self.out / run_files.PLAN
        if not path.is_file():
            return None
        try:
            return Plan.model_validate_json(path.read_bytes())
        except ValidationError as error:
            raise AuditError(
                f"{path} cannot be read ({error.error_count()} problems)",
                "it is of another version or was changed: use --force-new, which keeps the old run aside",
            ) from error

    def begin(self, plan: Plan, force_new: bool) -> None:
        """Register the plan before looking. AuditError (code 2) with a diff if the folder holds another plan."""
        if force_new and (self.out / run_files.PLAN).exists():
            self._set_aside()
        self.refuse_other(plan)
        if not (self.out / run_files.PLAN).exists():
            write_atomic(self.out / run_files.PLAN, (plan.model_dump_json(indent=1) + "\n").encode())

    def refuse_other(self, plan: Plan) -> None:
        """Raises AuditError (code 2) with a diff if the folder was started with another plan."""
        old = self.planned()
        if old is not None and old.plan_hash != plan.plan_hash:
            lines = "\n    ".join(difference(old, plan))
            raise AuditError(
                f"{self.out} was started with another plan ({old.plan_hash[:12]}, now {plan.plan_hash[:12]}):\n"
                f"    {lines}",
                "name another folder with -o, or use --force-new, which keeps the old run aside",
            )

    def _set_aside(self) -> None:
        """Move what is here into ``superseded/``: a report that was issued stays readable."""
        shelf = self.out / run_files.SUPERSEDED
        taken = len(list(shelf.iterdir())) if shelf.is_dir() else 0
        target = shelf / f"run-{taken + 1}"
        target.mkdir(parents=True)
        # plan.json goes last: killed half-way, the folder still counts as started and the move is done again.
        names = sorted((p.name for p in self.out.iterdir()), key=lambda name: name == run_files.PLAN)
        for name in names:
            if name not in (run_files.LOCK, run_files.CANCEL, run_files.SUPERSEDED, run_files.LOG):
                (self.out / name).rename(target / name)

    def event(self, kind: str, detail: str = "") -> None:
        """Append one line to events.jsonl."""
        line = json.dumps({"at": now(), "event": kind, "detail": detail}, ensure_ascii=False)
        try:
            with (self.out / run_files.EVENTS).open("a", encoding="utf-8") as file:
                file.write(line + "\n")
        except OSError as error:
            raise _disk_refuses(self.out, error) from error

    def heed(self) -> None:
        """Stop here if someone put a file ``cancel`` into the folder: as by Ctrl-C, but never within a unit."""
        if (self.out / run_files.CANCEL).exists():
            self.event("cancelled")
            raise Cancelled

    def _path(self, key: str) -> Path:
        return self.out / run_files.UNITS / f"{key}.json"

    def finished(self, key: str) -> Unit | None:
        """A unit finished earlier, whole and with the item tables that it refers to; else None."""
        path = self._path(key)
        if not path.is_file():
            return None
        try:
            unit = Unit.model_validate_json(path.read_bytes())
        except ValidationError:
            log.warning("unit %s cannot be read and is measured again", key)
            return None
        intact = unit.key == key and all(self._table_intact(m) for m in unit.measurements)
        return unit if intact else None

    def _table_intact(self, measurement: Measurement) -> bool:
        table = measurement.items
        if isinstance(table, Missing):
            return True
        path = self.out / table.path
        return path.is_file() and hashlib.sha256(path.read_bytes()).hexdigest() == table.sha256

    def finish(self, unit: Unit) -> None:
        """Keep a finished unit: from here on no kill can lose it."""
        write_atomic(self._path(unit.key), (unit.model_dump_json(indent=1) + "\n").encode())
