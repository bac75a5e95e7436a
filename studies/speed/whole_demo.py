"""What does ``residua demo`` cost, with the models to train and with them at hand, beside the build before?

``python -m studies.speed.whole_demo --before FOLDER --out studies/speed/whole_demo.json``. FOLDER is a checkout of
3552af1. Every repeat runs the demo on both checkouts from an empty cache, then again with the store of passes emptied
and the models at hand, in shuffled order: CPU-seconds with children. Probes that the build before does not have are
left out of the comparison by what their units took; that is a little less than what they cost, since some of their
passes lie in the merged reads. What each of them took stands beside.
"""

import argparse
import json
import shutil
import sys
import tempfile
from collections import defaultdict
from pathlib import Path
from typing import Final

import numpy as np

from audit.schema import Record
from audit.storage import write_atomic
from studies.provenance import Stamp, commit, stamp
from studies.speed.commands import measure
from studies.speed.results import Ratio
from studies.speed.timing import ratio

TODAY, BEFORE = "today", "before"
ANEW, AT_HAND = "trained anew", "models at hand"
MOST: Final = {ANEW: 1.0, AT_HAND: 0.6}
"""What is promised: the share of the build before, on its probes."""
MOST_LATER: Final = 600.0
"""CPU-seconds that later probes may take together."""
HERE: Final = Path(__file__).resolve().parents[2]


class DemoRow(Record):
    """CPU-seconds of the command by repeat, and of those of today what the later probes took, by probe."""

    checkout: str
    condition: str
    cpu_s: tuple[float, ...]
    later_s: tuple[dict[str, float], ...] = ()

    @property
    def shared_s(self) -> tuple[float, ...]:
        """Without the later probes."""
        later = self.later_s or ({},) * len(self.cpu_s)
        return tuple(cpu - sum(each.values()) for cpu, each in zip(self.cpu_s, later, strict=True))


class DemoResults(Record):
    """Both builds in both conditions, and how they compare on the probes of the build before."""

    stamp: Stamp
    command: str
    before: str
    rows: tuple[DemoRow, ...]
    shares: dict[str, Ratio]

    @property
    def sentence(self) -> str:
        """What the page says of it."""
        parts = [
            f"{condition} **{share.median:.2f}** of the build before ({share.ci95.lo:.2f} to {share.ci95.hi:.2f}, "
            f"promised at most {MOST[condition]})" for condition, share in self.shares.items()
        ]  # fmt: skip
        later = [row.later_s for row in self.rows if row.checkout == TODAY]
        most = max(sum(each.values()) for row in later for each in row)
        return (
            f"On the probes of the build before the demo takes {', '.join(parts)}; the later probes take at most "
            f"{most:.0f} CPU-seconds together (promised {MOST_LATER:.0f}); {len(self.rows[0].cpu_s)} repeats."
        )


def later_units(cache: Path, before: Path) -> dict[str, float]:
    """CPU-seconds by probe of the units in a cache's timings, of probes that the other checkout does not have."""
    units = defaultdict[str, float](float)
    for line in (cache / "timings.jsonl").read_text(encoding="utf-8").splitlines():
        unit = json.loads(line)
        units[unit["unit"]] += unit["cpu_s"]
    own = {path.stem for path in (HERE / "probes").glob("[!_]*.py")}
    old = {path.stem for path in (before / "probes").glob("[!_]*.py")}
    return {unit: round(units[unit], 2) for unit in sorted(units) if unit in own - old}


def measured(before: Path, world: str, repeats: int, seed: int) -> list[DemoRow]:
    """Both checkouts in both conditions."""
    order = np.random.default_rng(seed)
    checkouts = {TODAY: HERE, BEFORE: before}
    cpu, later = defaultdict[tuple[str, str], list[float]](list), defaultdict[str, list[dict[str, float]]](list)
    for _ in range(repeats):
        with tempfile.TemporaryDirectory(prefix="residua-demo-") as scratch:
            for condition in (ANEW, AT_HAND):
                for name in order.permutation(list(checkouts)):
                    cache = Path(scratch) / name
                    for left in ("store", "behaviour"):
                        shutil.rmtree(cache / left, ignore_errors=True)
                    (cache / "timings.jsonl").unlink(missing_ok=True)
                    out = Path(scratch) / f"{name}-{condition}".replace(" ", "-")
                    env = {"RESIDUA_CACHE": str(cache), "PYTHONPATH": str(checkouts[name]), "HF_HUB_OFFLINE": "1"}
                    words = ["demo", "--world", world, "--out", str(out)]
                    row = measure(words, condition, env=env, cwd=checkouts[name])
                    cpu[str(name), condition].append(round(row.cpu_s, 2))
                    if name == TODAY:
                        later[condition].append(later_units(cache, before))
                    sys.stderr.write(f"{name}, {condition}: {row.cpu_s:.1f} CPU-seconds, exit {row.exit_code}\n")
    return [
        DemoRow(checkout=name, condition=condition, cpu_s=tuple(seconds),
                later_s=tuple(later[condition]) if name == TODAY else ())
        for (name, condition), seconds in sorted(cpu.items())
    ]  # fmt: skip


def main() -> None:
    """Run, compare, write."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--before", type=Path, required=True)
    parser.add_argument("--world", choices=("demo", "tiny"), default="demo")
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    begun, before = stamp(0), args.before.resolve()
    rows = measured(before, args.world, args.repeats, 0)
    of = {(row.checkout, row.condition): np.array(row.shared_s) for row in rows}
    results = DemoResults(
        stamp=begun, command=f"python -m studies.speed.whole_demo --before FOLDER --world {args.world}",
        before=commit(before), rows=tuple(rows),
        shares={condition: ratio(of[TODAY, condition], of[BEFORE, condition], BEFORE, 0) for condition in MOST},
    )  # fmt: skip
    if args.out:
        write_atomic(args.out, (results.model_dump_json(indent=1) + "\n").encode())
    sys.stdout.write(f"{results.sentence}\n")


if __name__ == "__main__":
    main()
