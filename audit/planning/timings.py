"""What units of work cost on this machine: ``timings.jsonl`` in the cache, from which the next run is priced.

A line is a :class:`Spent`. Lines are only added, and the oldest are let go; a line that cannot be read is passed over.
"""

import logging
from pathlib import Path
from typing import Final

from pydantic import ValidationError

from audit.schema import Record
from audit.storage import cache_root, write_atomic

log = logging.getLogger(__name__)

NAME: Final = "timings.jsonl"
MOST_BYTES: Final = 1_000_000
KEPT_LINES: Final = 2000


class Spent(Record):
    """One finished unit: how it was made, on how large a model, the tokens asked for and really run, and the seconds.

    ``how`` names backend, device, dtype, attention and threads. What was found in a store was not run. ``said_s``: what
    the plan had said, before anything that this machine learnt from earlier units; 0 where it had said nothing.
    """

    unit: str
    how: str
    parameters: int
    fwd_tokens: int
    bwd_tokens: int
    run_tokens: int
    cpu_s: float
    wall_s: float
    said_s: float = 0.0


def path() -> Path:
    """Where this machine's timings are."""
    return cache_root() / NAME


def record(spent: Spent) -> None:
    """Add one line. A cache that cannot be written costs an estimate and no audit: it is said in the log."""
    where = path()
    try:
        where.parent.mkdir(parents=True, exist_ok=True)
        if where.is_file() and where.stat().st_size > MOST_BYTES:
            tail = where.read_bytes().splitlines(keepends=True)[-KEPT_LINES:]
            write_atomic(where, b"".join(tail))
        with where.open("ab") as file:
            file.write(f"{spent.canonical()}\n".encode())
    except OSError as error:
        log.info("timings are not kept: %s", error)


def recorded(conditions: str) -> tuple[Spent, ...]:
    """What was spent under these conditions, oldest first."""
    where, matching = path(), list[Spent]()
    for line in where.read_bytes().splitlines() if where.is_file() else ():
        try:
            spent = Spent.model_validate_json(line)
        except ValidationError:
            continue
        if spent.how == conditions:
            matching.append(spent)
    return tuple(matching)
