"""What became of each mutant, a file a room; and the reasons of those that nothing caught.

A reason belongs to a change (file, before, after) and not to a line. It begins with ``equivalent``: nothing tells the
mutant from the code; or with ``open``: a test could.
"""

import json
import os
import platform
import subprocess
import sys
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tests.mutants.operators import Mutant, digest
from tests.mutants.rooms import ROOT, Room

RESULTS = Path(__file__).parent / "results"
REASONS = Path(__file__).parent / "survivors.json"

Key = tuple[str, str, str]


def _key(row: Mapping[str, Any]) -> Key:
    return row["path"], row["before"], row["after"]


class Results:
    """The results of a room's sample: read back, added to one by one, and written whole each time."""

    def __init__(self, name: str, room: Room, drawn: Sequence[Mutant], asked: Mapping[str, Any]) -> None:
        self._name, self._room, self.drawn, self._asked = name, room, drawn, asked
        self._path = _file(name)
        self.rows: dict[Key, dict[str, Any]] = {}
        self.read()

    def read(self) -> None:
        """The results that there are for files that are still the same."""
        rows = json.loads(self._path.read_text(encoding="utf-8"))["mutants"] if self._path.is_file() else []
        there = [row for row in rows if (ROOT / row["path"]).is_file()]
        same = [row for row in there if digest((ROOT / row["path"]).read_text(encoding="utf-8")) == row["source"]]
        wanted = {_key(mutant._asdict()) for mutant in self.drawn}
        self.rows = {_key(row): row for row in same if _key(row) in wanted}

    def missing(self) -> list[Mutant]:
        """The mutants without a result."""
        return [mutant for mutant in self.drawn if _key(mutant._asdict()) not in self.rows]

    def forget_survivors(self) -> None:
        """Leaves those that nothing caught without a result, so that they are run again."""
        self.rows = {key: row for key, row in self.rows.items() if row["outcome"] == "caught"}
        self._write()

    def keep(self, mutant: Mutant, found: dict[str, Any]) -> None:
        """Adds a result and writes the file."""
        self.rows[_key(mutant._asdict())] = {**mutant._asdict(), **found}
        self._write()

    def _write(self) -> None:
        """Writes the file, whole or not at all."""
        ordered = [self.rows[key] for m in self.drawn if (key := _key(m._asdict())) in self.rows]
        git = ["git", "rev-parse", "HEAD"]
        record = {
            "room": self._name, "tests": list(self._room.tests), "seed": self._asked["seed"],
            "size": self._asked["size"], "most_seconds": self._asked["most"],
            "commit": subprocess.run(git, cwd=ROOT, capture_output=True, text=True, check=True).stdout.strip(),
            "machine": f"{platform.machine()}, {os.cpu_count()} cores", "python": platform.python_version(),
            "finished": datetime.now(UTC).isoformat(timespec="seconds"),
            "caught": sum(row["outcome"] == "caught" for row in ordered), "of": len(ordered),
            "processor_seconds": round(sum(row["seconds"] for row in ordered), 1), "mutants": ordered,
        }  # fmt: skip
        RESULTS.mkdir(exist_ok=True)
        written = self._path.with_suffix(".new")
        written.write_text(json.dumps(record, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
        written.replace(self._path)


def _file(name: str) -> Path:
    return RESULTS / f"{name.replace(' ', '_')}.json"


def reasons() -> dict[Key, str]:
    """The reason of each survivor that has one."""
    rows = json.loads(REASONS.read_text(encoding="utf-8")) if REASONS.is_file() else []
    return {_key(row): row["reason"] for row in rows}


def summary(rooms: Sequence[str]) -> bool:
    """Writes k of n a room and every survivor to the console; has each of them a reason?"""
    known, complete = reasons(), True
    for room in rooms:
        if not _file(room).is_file():
            continue
        rows = json.loads(_file(room).read_text(encoding="utf-8"))["mutants"]
        alive = [(row, known.get(_key(row), "")) for row in rows if row["outcome"] == "alive"]
        equivalent = sum(reason.startswith("equivalent") for _, reason in alive)
        caught, of = len(rows) - len(alive), len(rows) - equivalent
        _say(f"{room}: {caught} of {of} caught ({caught / max(of, 1):.1%}), {equivalent} equivalent left out")
        for row, reason in alive:
            complete = complete and bool(reason)
            _say(f"  {row['path']}:{row['line']}\n    - {row['before']}\n    + {row['after']}")
            _say(f"    {reason or 'no reason written down'}{' (' + row['by'] + ')' if row['by'] else ''}")
    return complete


def _say(text: str) -> None:
    sys.stdout.write(text + "\n")
