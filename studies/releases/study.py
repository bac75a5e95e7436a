"""Does `residua init --from` give a case that runs without an edit, for the releases of five pools?

``python -m studies.releases.study [--seed N] [--only NAME]`` makes the five, runs the two commands on each as a user
would, in processes of their own, and writes results.json and the table of the page here.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

from audit.storage import write_atomic
from studies.pages import with_section
from studies.provenance import stamp
from studies.releases.layouts import LAYOUTS

HERE: Final = Path(__file__).parent
MARKS: Final = "<!-- table: made by studies.releases.study -->", "<!-- end of table -->"
UNDECIDED: Final = ("INCONCLUSIVE", "INVALID")


class Commanded(NamedTuple):
    """A command as it was given, how it ended, how long it took, and what it answered."""

    command: str
    code: int
    seconds: float
    answer: dict[str, Any]


def command(arguments: Sequence[str], at: Path) -> Commanded:
    """Run ``residua`` in a process of its own, offline."""
    began = time.perf_counter()
    environment = os.environ | {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", "RESIDUA_CACHE": str(at / "cache")}
    ended = subprocess.run(
        [sys.executable, "-m", "audit.cli", *arguments, "--json"], cwd=at, env=environment, capture_output=True,
        text=True, check=False,
    )  # fmt: skip
    seconds = round(time.perf_counter() - began, 1)
    answer = json.loads(ended.stdout) if ended.stdout.strip().startswith("{") else {"said": ended.stderr[-2000:]}
    return Commanded(f"residua {' '.join(arguments)}", ended.returncode, seconds, answer)


def audited(name: str, at: Path, seed: int = 0) -> dict[str, Any]:
    """One release made in ``at``, its case written and run as it is: commands, exit codes, seconds, verdict."""
    release = LAYOUTS[name](at / "pool", seed)
    first = command(["init", "--from", f"pool/{release.name}"], at)
    written = (at / "case.toml").read_bytes() if first.code == 0 else b""
    then = command(["run", "-q", "-o", "run"], at) if written else Commanded("", 2, 0.0, {})
    assert not written or (at / "case.toml").read_bytes() == written, "nobody edits the case"
    return {
        "release": release.name, "recognised": first.answer.get("recognised", []),
        "left": [entry["key"] for entry in first.answer.get("left", [])],
        "case": written.decode(), "commands": [[c.command, c.code, c.seconds] for c in (first, then)],
        "verdict": then.answer.get("verdict", ""), "sentence": _told(then.answer) or _told(first.answer),
    }  # fmt: skip


def _told(answer: dict[str, Any]) -> str:
    """What a command has to say in one sentence: the verdict's, or what is wrong."""
    return next((str(answer[key]) for key in ("sentence", "error", "said") if answer.get(key)), "")


def decided(row: dict[str, Any]) -> bool:
    """Was the release audited to a verdict that says something of what is left?"""
    return bool(row["verdict"]) and row["verdict"] not in UNDECIDED


def table(rows: dict[str, dict[str, Any]]) -> str:
    """The rows as the page shows them."""
    lines = [MARKS[0], "| release | recognised | `init` (s) | `run` (s) | verdict |", "|---|---|---|---|---|"]
    for name, row in rows.items():
        (_, _, init), (_, code, run) = row["commands"]
        verdict = row["verdict"] or f"exit {code}"
        lines.append(f"| {name} | {'; '.join(row['recognised'])} | {init} | {run} | {verdict} |")
    return "\n".join([*lines, MARKS[1]])


def main() -> None:
    """Make, audit, write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", choices=LAYOUTS)
    parser.add_argument("--keep", type=Path, help="keep the folders here")
    args = parser.parse_args()
    for name in [args.only] if args.only else LAYOUTS:
        with tempfile.TemporaryDirectory() as folder:
            at = Path(folder) if args.keep is None else args.keep / name
            at.mkdir(parents=True, exist_ok=True)
            for earlier in ("pool", "run", "cache"):
                shutil.rmtree(at / earlier, ignore_errors=True)
            (at / "case.toml").unlink(missing_ok=True)
            (at / "pool").mkdir()
            row = audited(name, at, args.seed)
        print(name, row["verdict"], row["commands"], row["sentence"], flush=True)
        _keep(name, row, args.seed)


def _keep(name: str, row: dict[str, Any], seed: int) -> None:
    """Put the row of a release into the record and the page, beside those of the others."""
    results, page = HERE / "results.json", HERE / "README.md"
    rows = json.loads(results.read_text(encoding="utf-8"))["releases"] if results.is_file() else {}
    rows = {each: (rows | {name: row})[each] for each in LAYOUTS if each in rows or each == name}
    document = {**stamp(seed).model_dump(mode="json"), "releases": rows}
    write_atomic(results, (json.dumps(document, indent=1) + "\n").encode())
    page.write_text(with_section(page.read_text(encoding="utf-8"), table(rows)), encoding="utf-8")


if __name__ == "__main__":
    main()
