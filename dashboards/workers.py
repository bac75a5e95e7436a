"""Work that outlives a click: `residua` in a process of its own, known by a record beside the runs.

A page starts a worker and from then on reads files only: the record, what the worker said, and the event log of its run
folder. So a page change, a closed browser or a restarted dashboard loses nothing. The dashboard runs no other program
than this Residua, and every argument reaches it as it is, past any shell. A folder of runs may come from anybody, and a
record in it could name anybody's process and any command: only records sealed with this user's own key are believed.
"""

import hashlib
import hmac
import json
import secrets
import signal
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Final, Literal, NamedTuple

import psutil
from pydantic import JsonValue, ValidationError

from audit.runs import key_of, run_files
from audit.schema import AuditError, ExitCode, Record
from audit.storage import cache_root, disk_error, write_atomic
from audit.wording import PROSE, visible
from dashboards.serving import environment
from dashboards.vault import MB, Refused, Vault

PLACE: Final = ".workers"
CAP, SAID = 8 * MB, 4000
VERBS: Final = ("run", "sweep", "calibrate", "forecast")
"""What can be started on a case; a verb that this Residua does not have is not offered."""


class Worker(Record):
    """One process that was started from here: what it was asked, where it writes, and which process it is."""

    id: str
    verb: str
    arguments: tuple[str, ...]
    out: str
    started: str
    pid: int
    born: float
    seal: str = ""

    def sealed(self, key: bytes) -> "Worker":
        """The record with a seal by this key."""
        content = self.model_copy(update={"seal": ""}).model_dump_json().encode()
        return self.model_copy(update={"seal": hmac.new(key, content, hashlib.sha256).hexdigest()})


Ending = Literal["running", "finished", "failed", "cancelled"]


class Heard(NamedTuple):
    """What became of a worker: how it ended, the object that it printed, and the last of what it said."""

    ending: Ending
    answer: dict[str, JsonValue]
    log: str


def own_key() -> bytes:
    """This user's key, made on first use outside every folder of runs. AuditError (code 3) where it cannot be kept."""
    folder = cache_root() / "dashboard"
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise disk_error(folder, error) from None
    return key_of(folder)


def residua(*arguments: str) -> list[str]:
    """The command line of this Residua."""
    return [sys.executable, "-m", "audit.cli", *arguments]


def ours(folder: Path) -> dict[str, str]:
    """The environment of a worker: the same Residua as the dashboard's, and plain lines."""
    return {**environment(folder), "NO_COLOR": "1"}


def verbs(folder: Path) -> tuple[str, ...]:
    """Which of :data:`VERBS` this Residua has."""
    answers = {verb: subprocess.run(residua(verb, "--help"), capture_output=True, env=ours(folder), check=False)
             for verb in VERBS}  # fmt: skip
    return tuple(verb for verb, done in answers.items() if done.returncode == 0)


def start(vault: Vault, verb: str, arguments: Sequence[str], out: str) -> Worker:
    """Start `residua <verb> <arguments> --json` in a session of its own. ``out`` is its run folder, below the root."""
    name, key = f"{datetime.now(UTC):%Y%m%dT%H%M%S}-{secrets.token_hex(3)}", own_key()
    try:
        place, folder = vault.inside(f"{PLACE}/{name}"), vault.inside(out)
        place.mkdir(parents=True)
        # A wish to stop an earlier run is none to stop this one.
        (folder / run_files.CANCEL).unlink(missing_ok=True)
        with (place / "answer.json").open("wb") as answer, (place / "said.log").open("wb") as log:
            process = subprocess.Popen(
                residua(verb, *arguments, "--json"), stdin=subprocess.DEVNULL, stdout=answer, stderr=log,
                start_new_session=True, env=ours(vault.root),
            )  # fmt: skip
    except OSError as error:
        raise AuditError(
            f"{vault.root / PLACE} cannot be written ({error.strerror})", "start the dashboard on a folder you own"
        ) from None
    worker = Worker(id=name, verb=verb, arguments=tuple(arguments), out=out, pid=process.pid,
                    started=datetime.now(UTC).isoformat(timespec="seconds"), born=_born(process.pid))  # fmt: skip
    sealed = worker.sealed(key)
    write_atomic(place / "worker.json", sealed.model_dump_json().encode())
    return sealed


def _born(pid: int) -> float:
    with suppress(psutil.Error):
        return psutil.Process(pid).create_time()
    return 0.0


def workers(vault: Vault) -> tuple[Worker, ...]:
    """What this user started here, the newest first; a record of somebody else, or a broken one, is passed over."""
    place = vault.root / PLACE
    names = sorted((p.name for p in place.iterdir()), reverse=True) if place.is_dir() else []
    records, key = list[Worker](), own_key() if names else b""
    for name in names[:200]:
        with suppress(Refused, ValidationError):
            record = Worker.model_validate_json(vault.read(f"{PLACE}/{name}/worker.json", MB))
            if record.id == name and hmac.compare_digest(record.sealed(key).seal, record.seal):
                records.append(record)
    return tuple(records)


def process(worker: Worker) -> psutil.Process | None:
    """The worker's process while it lives; another process that got its number is not it."""
    with suppress(psutil.Error):
        candidate = psutil.Process(worker.pid)
        alive = candidate.status() != psutil.STATUS_ZOMBIE
        return candidate if alive and abs(candidate.create_time() - worker.born) < 1 else None
    return None


def heard(vault: Vault, worker: Worker) -> Heard:
    """What became of a worker so far."""
    place, answer, log = f"{PLACE}/{worker.id}", dict[str, JsonValue](), ""
    with suppress(Refused, ValueError, RecursionError):
        document = json.loads(vault.read(f"{place}/answer.json", CAP))
        answer = document if isinstance(document, dict) else {}
    with suppress(Refused):
        log = vault.tail(f"{place}/said.log", SAID).decode("utf-8", "replace")
    if process(worker) is not None:
        return Heard("running", answer, log)
    if "error" in answer or not answer:
        silent = not answer and ("interrupted" in log or vault.stamp(f"{worker.out}/{run_files.CANCEL}") is not None)
        stopped = silent or answer.get("exit_code") == ExitCode.INTERRUPTED
        return Heard("cancelled" if stopped else "failed", answer, log)
    return Heard("finished", answer, log)


def cancel(vault: Vault, worker: Worker) -> None:
    """Ask the run to stop after the test in hand: finished tests are kept, and the same command resumes."""
    with suppress(OSError, Refused):
        folder = vault.inside(worker.out)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / run_files.CANCEL).touch()


def stop(worker: Worker) -> None:
    """Interrupt the worker now, as Ctrl-C would: the test in hand is lost, finished tests are kept."""
    running = process(worker)
    if running is not None:
        with suppress(psutil.Error):
            running.send_signal(signal.SIGINT)


def trouble(outcome: Heard) -> str:
    """Why a worker failed, in its own words."""
    if isinstance(outcome.answer.get("error"), str):
        return visible(f"{outcome.answer['error']} What to do: {outcome.answer.get('do', '')}", PROSE)
    return visible(outcome.log[-PROSE:]) or "It ended without a word."
