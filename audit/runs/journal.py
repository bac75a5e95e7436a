"""The run folder: one process at a time, finished units that are never redone, and a final report never overwritten.

``plan.json`` is written before anything is measured; ``units/<key>.json`` holds one finished unit each (probe x
checkpoint x seed), ``events.jsonl`` what happened when, ``run.log`` tracebacks. The manifest is written last, so its
presence is what makes a report final. Every file but the two logs appears whole or not at all, and plan and units only
after the custody log holds their hashes: a unit that it does not hold is measured again, one that is not as it was
written down ends the run, since whoever audits must know that somebody was here.
"""

import hashlib
import json
import logging
import os
import shutil
from collections.abc import Generator, Mapping
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path

from pydantic import ValidationError

from audit.runs import custody, run_files
from audit.runs.plan_differences import difference
from audit.schema import AuditError, ExitCode, Measurement, Missing, Plan, Record, RoleAudit, Skip, Table, Timing
from audit.storage import file_bytes, write_atomic

log = logging.getLogger(__name__)

WRITTEN = frozenset({
    run_files.PLAN, run_files.CUSTODY, run_files.EVENTS, run_files.LOG, run_files.UNITS, run_files.TABLES,
    run_files.MASK_KEY,
})  # fmt: skip
OWN_FILES = WRITTEN | {run_files.LOCK, run_files.CANCEL, run_files.SUPERSEDED}
ROLES = "roles"
"""The name of the unit that audits who judges, beside those of the probes."""


class Cancelled(KeyboardInterrupt):
    """Someone asked this run, and no other, to stop."""


class Unit(Record):
    """One finished unit of work: what one probe measured, or why it could not, and what that cost.

    ``roles``: the records of the unit that audits who judges, which measures nothing; ``noticed`` what else limits a
    report, found before anything was measured.
    """

    key: str
    probe: str
    measurements: tuple[Measurement, ...]
    skip: Skip | None = None
    timing: Timing
    roles: tuple[RoleAudit, ...] = ()
    noticed: tuple[str, ...] = ()


def now() -> str:
    """The time in UTC, to the second."""
    return _utc(datetime.now(UTC).timestamp())


def _utc(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds")


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
        """Is the report in this folder complete, and does the custody log say that it was issued? A run that was killed
        before that makes its report anew from its units."""
        both = (self.out / run_files.MANIFEST).is_file() and (self.out / run_files.REPORT).is_file()
        return both and custody.read(self.out).last("issued") is not None

    def planned(self) -> Plan | None:
        """The plan this folder was started with, or None."""
        path = self.out / run_files.PLAN
        if not path.is_file():
            return None
        try:
            return Plan.model_validate_json(file_bytes(path))
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
        custody.mend(self.out)
        custody.check_kept(self.out, run_files.PLAN)
        if not (self.out / run_files.PLAN).exists():
            self._keep(run_files.PLAN, plan, {}, plan.code_version)

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
        """A unit finished earlier, as the custody log holds it and with its item tables; else None, which is logged.

        AuditError (code 3) names a unit or a table that is not what was written down when it was finished: measuring it
        again would hide that.
        """
        path, chain = self._path(key), custody.unbroken_chain(self.out)
        held = chain.file_hashes()
        name = path.relative_to(self.out).as_posix()
        if not path.is_file():
            return None
        data = file_bytes(path)
        if name not in held:
            return _measured_again(key, f"is not in {custody.NAME}")
        if hashlib.sha256(data).hexdigest() not in held[name]:
            raise custody.changed(self.out, name)
        try:
            unit = Unit.model_validate_json(data)
        except ValidationError:
            return _measured_again(key, "cannot be read")
        torn = unit.probe in chain.unfinished()
        absent = [t.path for t in _tables(unit) if not self._table_there(t, held, torn)]
        if absent:
            return _measured_again(key, f"lacks {absent[0]}")
        return unit if unit.key == key else _measured_again(key, "is another's")

    def _table_there(self, table: Table, held: Mapping[str, frozenset[str]], torn: bool) -> bool:
        """Is the table of a unit there as the unit states it? A later one of the same name, measured under other
        conditions, took its place; AuditError (code 3) for one that nobody wrote down, unless its probe was begun again
        and killed (``torn``)."""
        path = self.out / table.path
        digest = custody.sha256_of(path) if path.is_file() else ""
        if digest not in ("", table.sha256) and digest not in held.get(table.path, ()) and not torn:
            raise custody.changed(self.out, table.path)
        return digest == table.sha256

    def probes(self) -> frozenset[str]:
        """The probes of which the folder has units, measured under whatever conditions; unreadable ones say nothing."""
        logged: set[str] = set()
        for path in (self.out / run_files.UNITS).glob("*.json"):
            with suppress(OSError, ValidationError):
                logged.add(Unit.model_validate_json(file_bytes(path)).probe)
        return frozenset(logged)

    def begin_again(self, probe: str, key: str, tool: str) -> None:
        """Write down that a probe is measured of which there is a unit: the tables of that one are written over, and a
        kill in between is no tampering."""
        name = self._path(key).relative_to(self.out).as_posix()
        custody.append(self.out, "begun", {"probe": probe, "file": name}, tool)

    def finish(self, unit: Unit, tool: str) -> None:
        """Keep a finished unit, written down with its tables: from here on no kill can lose it. ``tool``: the code
        version that made it."""
        beside = {table.path: table.sha256 for table in _tables(unit)}
        words = f"{run_files.TABLES}/{unit.probe}{run_files.QUOTED}"
        if (self.out / words).is_file():
            beside[words] = custody.sha256_of(self.out / words)
        self._keep(self._path(unit.key).relative_to(self.out).as_posix(), unit, beside, tool)

    def _keep(self, name: str, record: Record, beside: Mapping[str, str], tool: str) -> None:
        """Write a record down in the custody log, with the hashes of what lies beside it, and then put it in place."""
        data = (record.model_dump_json(indent=1) + "\n").encode()
        custody.keep(self.out, {**beside, name: hashlib.sha256(data).hexdigest()}, tool)
        write_atomic(self.out / name, data)


def _tables(unit: Unit) -> list[Table]:
    tables = (measurement.items for measurement in unit.measurements)
    return [table for table in tables if not isinstance(table, Missing)]


def _measured_again(key: str, because: str) -> None:
    log.warning("unit %s %s and is measured again", key, because)
