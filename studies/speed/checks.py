"""What the checks of custody cost: a first audit and ``residua report``, on two checkouts side by side.

``python -m studies.speed.checks --before FOLDER --out studies/speed/checks.json``. FOLDER is a checkout of the build to
compare with (``git worktree add --detach FOLDER 7e44475``). Every repeat runs both once, in shuffled order, each as the
command that users type, with an empty store for the audit; CPU-seconds with children, ratios within a repeat.
"""

import argparse
import os
import shutil
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import numpy as np

from audit.schema import Interval, Record
from audit.storage import write_atomic
from audit.zoo import build
from studies.provenance import Stamp, commit, stamp
from studies.speed.commands import measure
from studies.speed.results import Ratio
from studies.speed.timing import ratio

MOST_TIMES, MOST_SECONDS = 1.02, 0.1
"""What is promised: a first audit of at most so many times the build before, so many CPU-seconds more for a report."""
AUDIT, REPORT = "a first audit", "report"
TODAY, BEFORE = "today", "before"
HERE: Final = Path(__file__).resolve().parents[2]


class CheckedRow(Record):
    """One command on both checkouts: CPU-seconds by repeat, the ratio within repeats, and the difference."""

    command: str
    today_s: tuple[float, ...]
    before_s: tuple[float, ...]
    ratio: Ratio
    more_s: float
    more_s_ci95: Interval


class Results(Record):
    """What was measured, on which build against which."""

    stamp: Stamp
    command: str
    before: str
    rows: tuple[CheckedRow, ...]

    def row(self, command: str) -> CheckedRow:
        """The row of a command."""
        return next(row for row in self.rows if row.command == command)

    @property
    def sentence(self) -> str:
        """What the page says of it."""
        first, report = self.row(AUDIT), self.row(REPORT)
        ends, more = first.ratio.ci95, report.more_s_ci95
        return (
            f"A first audit of the tiny world takes {np.median(first.today_s):.1f} CPU-seconds, "
            f"**{first.ratio.median:.3f}x** of the build before ({ends.lo:.3f} to {ends.hi:.3f}, promised at most "
            f"{MOST_TIMES}x); `residua report` takes {np.median(report.today_s):.2f}, **{report.more_s:+.3f}** "
            f"({more.lo:+.3f} to {more.hi:+.3f}, promised at most {MOST_SECONDS:+}); {len(first.today_s)} and "
            f"{len(report.today_s)} repeats."
        )


def row_of(command: str, repeats: list[dict[str, float]], seed: int, draws: int = 10_000) -> CheckedRow:
    """Both checkouts' CPU-seconds as a row; percentile bootstrap intervals over repeats (Efron 1979)."""
    today, before = (np.array([repeat[name] for repeat in repeats]) for name in (TODAY, BEFORE))
    more, dice = today - before, np.random.default_rng(seed)
    ends = np.quantile(np.median(more[dice.integers(0, len(more), (draws, len(more)))], axis=1), [0.025, 0.975])
    return CheckedRow(
        command=command, today_s=tuple(today.round(4)), before_s=tuple(before.round(4)),
        ratio=ratio(today, before, BEFORE, seed, draws), more_s=round(float(np.median(more)), 4),
        more_s_ci95=Interval(lo=round(float(ends[0]), 4), hi=round(float(ends[1]), 4)),
    )  # fmt: skip


def spent(checkout: Path, words: list[str], cache: Path) -> float:
    """CPU-seconds of one command on one checkout. RuntimeError where it fails."""
    env = {"PYTHONPATH": str(checkout), "RESIDUA_CACHE": str(cache), "HF_HUB_OFFLINE": "1"}
    row = measure(words, "", env=env, cwd=checkout)
    if row.exit_code not in (0, 4):  # a tiny case may be undecided
        raise RuntimeError(f"residua {' '.join(words)} ended with {row.exit_code} on {checkout}")
    return row.cpu_s


def measured(checkouts: Mapping[str, Path], scratch: Path, repeats: tuple[int, int], seed: int) -> list[CheckedRow]:
    """Both commands on both checkouts; one run of each that is not counted comes first, and fills what is cached."""
    order, case = np.random.default_rng(seed), build("tiny", 0).cases["refusal"]
    audits, reports = list[dict[str, float]](), list[dict[str, float]]()
    for repeat in range(-1, repeats[0]):
        seconds: dict[str, float] = {}
        for name in order.permutation(list(checkouts)):
            folder = scratch / "runs" / f"{name}-{repeat}"
            shutil.rmtree(scratch / "store", ignore_errors=True)
            words = ["run", str(case), "-o", str(folder), "--store", str(scratch / "store")]
            seconds[name] = spent(checkouts[name], words, scratch / f"cache-{name}")
        audits += [seconds] if repeat >= 0 else []
    for repeat in range(-1, repeats[1]):
        seconds = {
            name: spent(checkouts[name], ["report", str(scratch / "runs" / f"{name}-0")], scratch / f"cache-{name}")
            for name in order.permutation(list(checkouts))
        }
        reports += [seconds] if repeat >= 0 else []
    return [row_of(AUDIT, audits, seed), row_of(REPORT, reports, seed)]


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--before", type=Path, required=True)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--audits", type=int, default=7)
    parser.add_argument("--reports", type=int, default=25)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    begun = stamp(args.seed)
    compared = commit(args.before)
    with tempfile.TemporaryDirectory(prefix="residua-speed-") as folder:
        os.environ["RESIDUA_CACHE"] = str(Path(folder) / "cache")
        checkouts = {TODAY: HERE, BEFORE: args.before.resolve()}
        rows = measured(checkouts, Path(folder), (args.audits, args.reports), args.seed)
    command = f"python -m studies.speed.checks --before FOLDER --audits {args.audits} --reports {args.reports}"
    results = Results(stamp=begun, command=command, before=compared, rows=tuple(rows))
    if args.out:
        write_atomic(args.out, (results.model_dump_json(indent=1) + "\n").encode())
    sys.stdout.write(f"{results.sentence}\n")


if __name__ == "__main__":
    main()
