"""What starting up costs: commands that have nothing left to measure, on two checkouts side by side.

``python -m studies.speed.startup --before FOLDER --out studies/speed/startup.json``. FOLDER is a checkout of the build
to compare with (``git worktree add --detach FOLDER 3552af1``). Both audit one suspect of the tiny world once, each into
a run folder and a store of its own; then every repeat runs each command once on each, in shuffled order, as users type
it. CPU-seconds with children, ratios within a repeat; compiled bytecode is there on both sides. The case names no forms
of its facts, which that build did not read.
"""

import argparse
import json
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Final

import numpy as np

from audit.schema import Record
from audit.storage import write_atomic
from audit.zoo import build
from studies.provenance import Stamp, commit, stamp
from studies.speed.checks import BEFORE, TODAY, CheckedRow, row_of, spent

MOST_SHARE: Final = 0.4
"""What is promised of a finished run and of its report: at most so much of the CPU-seconds of the build before."""
FINISHED, REPORT, VERIFY = "run, finished", "report", "verify"
PLAN, CACHED = "plan", "run, new folder, reads cached"
PROMISED: Final = (FINISHED, REPORT)
REPEATS: Final[Mapping[str, int]] = {FINISHED: 5, REPORT: 11, VERIFY: 5, PLAN: 3, CACHED: 3}
COMMAND: Final = "python -m studies.speed.startup --before FOLDER"
HERE: Final = Path(__file__).resolve().parents[2]
Command = Callable[[str, int], list[str]]
"""The words of a command on a checkout, in a repeat."""


class Results(Record):
    """What was measured, on which build against which. ``probes``: how many tests the audit of each has."""

    stamp: Stamp
    command: str
    before: str
    probes: dict[str, int]
    rows: tuple[CheckedRow, ...]

    def row(self, command: str) -> CheckedRow:
        """The row of a command."""
        return next(row for row in self.rows if row.command == command)

    @property
    def lines(self) -> tuple[str, ...]:
        """The table of the page, a line a command."""
        head = "| command | CPU-seconds | before | share of it (95 %) | at most |", "|---|---|---|---|---|"
        return (*head, *(_line(row) for row in self.rows))


def _line(row: CheckedRow) -> str:
    today, before, ends = np.median(row.today_s), np.median(row.before_s), row.ratio.ci95
    promised = f"{MOST_SHARE:g}" if row.command in PROMISED else "-"
    share = f"**{row.ratio.median:.2f}** ({ends.lo:.2f} to {ends.hi:.2f})"
    return f"| `{row.command}` | {today:.2f} | {before:.2f} | {share} | {promised} |"


def case_of(world: Path) -> Path:
    """The case of the tiny world's refusing suspect, without its forms."""
    usual = build("tiny", 0, cache=world).cases["refusal"]
    lines = usual.read_text(encoding="utf-8").splitlines(keepends=True)
    plain = usual.with_name("startup.toml")
    write_atomic(plain, "".join(line for line in lines if not line.startswith("forms")).encode())
    return plain


def commands(case: Path, work: Path) -> dict[str, Command]:
    """What is run, by name: on the finished run of a checkout, or into a folder of the repeat."""
    return {
        FINISHED: lambda name, _: ["run", str(case), "-o", str(work / name)],
        REPORT: lambda name, _: ["report", str(work / name)],
        VERIFY: lambda name, _: ["verify", str(work / name)],
        PLAN: lambda _, __: ["plan", str(case)],
        CACHED: lambda name, repeat: ["run", str(case), "-o", str(work / f"{name}-{repeat}")],
    }


def measured(
    checkouts: Mapping[str, Path], work: Path, repeats: Mapping[str, int], seed: int
) -> Iterator[CheckedRow]:  # fmt: skip
    """Every command on both checkouts; one run of each that is not counted comes first."""
    order = np.random.default_rng(seed)
    for command, words in commands(case_of(work / "world"), work).items():
        spent_s = list[dict[str, float]]()
        for repeat in range(-1, repeats[command]):
            seconds: dict[str, float] = {}
            for name in order.permutation(list(checkouts)):
                seconds[name] = spent(checkouts[name], words(name, repeat), work / f"cache-{name}")
                shutil.rmtree(work / f"{name}-{repeat}", ignore_errors=True)
            spent_s += [seconds] if repeat >= 0 else []
        yield row_of(command, spent_s, seed)


def tests_of(run: Path) -> int:
    """How many tests a finished run has."""
    plan = json.loads((run / "plan.json").read_bytes())
    return sum(test["will_run"] for test in plan["tests"])


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--before", type=Path, required=True)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--work", type=Path, help="a folder for world and stores, kept; what is there is used")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    os.environ["PYTHONDONTWRITEBYTECODE"] = ""  # empty: off
    begun, compared = stamp(args.seed), commit(args.before)
    with tempfile.TemporaryDirectory(prefix="residua-speed-") as temporary:
        work = args.work or Path(temporary)
        checkouts = {TODAY: HERE, BEFORE: args.before.resolve()}
        for name in checkouts:
            shutil.rmtree(work / name, ignore_errors=True)
        results = Results(stamp=begun, command=COMMAND, before=compared, probes={}, rows=())
        for row in measured(checkouts, work, REPEATS, args.seed):
            probes = {name: tests_of(work / name) for name in checkouts}
            results = results.model_copy(update={"probes": probes, "rows": (*results.rows, row)})
            if args.out:  # as far as it has come: a busy machine takes long
                write_atomic(args.out, (results.model_dump_json(indent=1) + "\n").encode())
            sys.stdout.write(f"{_line(row)}\n")


if __name__ == "__main__":
    main()
