"""What does an audit cost beside its model passes? Every pass is recorded, run again bare, and timed in turn with it.

``python -m studies.speed.audit --data DIR --work WORK`` (DIR holds TOFU and stories260K; without it only the demo's
tiny world is audited). An audit is run once with everything recorded (``pass_recorder``), then, in shuffled order, as
users run it and as its bare passes (``pass_replayer``), each a process of its own with one thread: CPU-seconds with
children, ratios within a repeat. Once over an empty store, where probes share passes: the whole audit. Once without a
store, where each probe makes its own passes: each probe. ``--trees`` keeps where each probe's time goes as text;
``--before FOLDER`` times a run with everything cached on another checkout too.
"""

import argparse
import json
import logging
import os
import resource
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np

from audit.schema import Record
from audit.storage import write_atomic
from studies.provenance import Stamp, commit, stamp
from studies.speed.pass_list import PassList
from studies.speed.results import Ratio
from studies.speed.story_case import stories
from studies.speed.timing import ratio

HERE: Final = Path(__file__).resolve().parents[2]
MOST_WHOLE, MOST_PROBE, MOST_CACHED, MOST_MERGED = 1.2, 1.3, 0.4, 0.6
"""What is promised: an audit over its passes, a probe over its own, a cached run over that of the build before, the
passes of the merged plan over every probe's own."""
LEAST_S = 0.05
"""Bare passes of less are no denominator."""
SHARED, ALONE, CACHED = "whole", "by probe", "cached"
AUDIT, BARE = "audit", "bare"
NOT_PROBES: Final = ("roles", "recall", "reads", "report")
log = logging.getLogger(__name__)


class UnitRow(Record):
    """A unit of an audit and its own bare passes, in CPU-seconds by repeat. ``work``: tokens times blocks, forward;
    ``back``: of those, with a backward pass; ``head``: positions through the head. No ratio where there are hardly any
    passes."""

    unit: str
    audit_s: tuple[float, ...]
    bare_s: tuple[float, ...]
    ratio: Ratio | None
    passes: int
    work: int
    back: int
    head: int
    steps: int
    other_steps: int


class AuditRow(Record):
    """One audit in one condition as a whole, processes and imports among it, and its units."""

    case: str
    condition: str
    audit_s: tuple[float, ...]
    bare_s: tuple[float, ...]
    ratio: Ratio
    work: int
    peak_mb: float
    units: tuple[UnitRow, ...]


class CachedRow(Record):
    """A run with everything cached, here and in the build before, in CPU-seconds by repeat."""

    case: str
    today_s: tuple[float, ...]
    before_s: tuple[float, ...]
    before: str
    ratio: Ratio | None


class Results(Record):
    """What was measured."""

    stamp: Stamp
    command: str
    rows: tuple[AuditRow, ...]
    cached: tuple[CachedRow, ...] = ()

    def merged(self, case: str) -> float | None:
        """The passes of the merged plan (tokens times blocks) over every probe's own; None unless both were counted."""
        work = {row.condition: row.work for row in self.rows if row.case == case}
        return work[SHARED] / work[ALONE] if len(work) == 2 else None

    @property
    def sentences(self) -> list[str]:
        """What the page says of it."""
        lines: list[str] = []
        for row in self.rows:
            if row.condition == SHARED:
                lines.append(
                    f"{row.case}: a first audit takes {np.median(row.audit_s):.1f} CPU-seconds, {_times(row.ratio)} "
                    f"its bare passes ({np.median(row.bare_s):.1f}; promised at most {MOST_WHOLE})."
                )
                continue
            within = [unit for unit in row.units if unit.ratio is not None and unit.unit not in NOT_PROBES]
            cheap = sum(unit.ratio is not None and unit.ratio.median <= MOST_PROBE for unit in within)
            lines.append(f"{row.case}: {cheap} of {len(within)} probes take at most {MOST_PROBE}x their own passes.")
            lines += [f"  {unit.unit}: {_times(unit.ratio)} ({np.median(unit.audit_s):.2f} CPU-seconds)"
                     for unit in within if unit.ratio is not None]  # fmt: skip
        for row in self.cached:
            compared = "" if row.ratio is None else f", {_times(row.ratio)} the build before's"
            lines.append(f"{row.case}: a run with everything cached takes {np.median(row.today_s):.1f}{compared}.")
        return lines


def _times(share: Ratio) -> str:
    return f"**{share.median:.2f}x** ({share.ci95.lo:.2f} to {share.ci95.hi:.2f})"


class Bench(NamedTuple):
    """A case to be audited, and the folder where everything is kept."""

    name: str
    case: Path
    work: Path

    def folder(self, name: str) -> Path:
        """A place for this case."""
        return self.work / self.name / name


class Spent(NamedTuple):
    """What one process and its children took, and what it printed."""

    cpu_s: float
    peak_mb: float
    printed: str


class Side(NamedTuple):
    """One process that was timed: an audit or its bare passes, and what each unit took."""

    side: str
    cpu_s: float
    peak_mb: float
    units: dict[str, float]


# ---- processes --------------------------------------------------------------------------------------------------
def spend(words: Sequence[str], env: Mapping[str, str], checkout: Path = HERE) -> Spent:
    """Run ``python -m words`` of a checkout. RuntimeError where it fails; a case may be undecided."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    settled = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "PYTHONPATH": str(checkout), **env}
    settled.pop("PYTHONDONTWRITEBYTECODE", None)
    done = subprocess.run(
        [sys.executable, "-m", *words], env=settled, cwd=checkout, capture_output=True, text=True, check=False
    )
    if done.returncode not in (0, 4):
        raise RuntimeError(f"{' '.join(words)} ended with {done.returncode}: {done.stderr[-2000:]}")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return Spent(cpu, after.ru_maxrss / 1024, done.stdout)


def run_words(bench: Bench, out: Path, store: Path | None) -> list[str]:
    """The command line of an audit."""
    return ["run", str(bench.case), "-o", str(out), "--store", "none" if store is None else str(store), "-q"]


def unit_seconds(cache: Path) -> dict[str, float]:
    """CPU-seconds of each unit, as the audit itself wrote them down in its cache."""
    lines = (cache / "timings.jsonl").read_text(encoding="utf-8").splitlines()
    return {row["unit"]: row["cpu_s"] for row in map(json.loads, lines)}


# ---- measuring --------------------------------------------------------------------------------------------------
def recorded(bench: Bench, condition: str) -> Path:
    """The list of passes of an audit in this condition; one that is there is taken."""
    path = bench.folder(f"{condition}.passes".replace(" ", "-"))
    if not path.is_file():
        scratch = bench.folder("recording")
        shutil.rmtree(scratch, ignore_errors=True)
        scratch.mkdir(parents=True)
        words = run_words(bench, scratch / "run", scratch / "store" if condition == SHARED else None)
        spend(["studies.speed.pass_recorder", str(path), *words], {"RESIDUA_CACHE": str(scratch / "cache")})
    return path


def audited(bench: Bench, condition: str) -> Side:
    """One audit as users run it, from nothing."""
    scratch = bench.folder("audit")
    shutil.rmtree(scratch, ignore_errors=True)
    scratch.mkdir(parents=True)
    words = run_words(bench, scratch / "run", scratch / "store" if condition == SHARED else None)
    spent = spend(["audit.cli", *words], {"RESIDUA_CACHE": str(scratch / "cache")})
    return Side(AUDIT, spent.cpu_s, spent.peak_mb, unit_seconds(scratch / "cache"))


def replayed(path: Path) -> Side:
    """The bare passes of a list."""
    spent = spend(["studies.speed.pass_replayer", str(path)], {})
    result: dict[str, Any] = json.loads(spent.printed.splitlines()[-1])
    return Side(BARE, spent.cpu_s, result["peak_mb"], result["units"])


def measured(bench: Bench, condition: str, repeats: int, seed: int) -> AuditRow:
    """An audit and its bare passes in turn, each repeat in shuffled order; repeats that were made before are kept."""
    path, repeats_file = recorded(bench, condition), bench.folder(f"{condition}.jsonl".replace(" ", "-"))
    done = (
        [Side(**json.loads(line)) for line in repeats_file.read_text().splitlines()] if repeats_file.is_file() else []
    )
    dice = np.random.default_rng((seed, len(done)))
    for _ in range(len(done) // 2, repeats):
        both = [
            audited(bench, condition) if side == AUDIT else replayed(path) for side in dice.permutation([AUDIT, BARE])
        ]
        done += both
        with repeats_file.open("a", encoding="utf-8") as file:
            file.writelines(json.dumps(side._asdict()) + "\n" for side in both)
        log.info("%s, %s: %s", bench.name, condition, [(side.side, round(side.cpu_s, 1)) for side in both])
    passes = PassList.read(path)
    sides = {name: [side for side in done if side.side == name] for name in (AUDIT, BARE)}
    audit_s, bare_s = (np.array([round(side.cpu_s, 3) for side in sides[name]]) for name in (AUDIT, BARE))
    return AuditRow(
        case=bench.name, condition=condition, audit_s=tuple(audit_s), bare_s=tuple(bare_s),
        ratio=ratio(audit_s, bare_s, "bare passes", seed), peak_mb=round(max(s.peak_mb for s in sides[AUDIT]), 1),
        work=sum(count.work for count in passes.counts().values()),
        units=unit_rows(passes, {name: [side.units for side in its] for name, its in sides.items()}, seed),
    )  # fmt: skip


def unit_rows(
    passes: PassList, units: Mapping[str, Sequence[Mapping[str, float]]], seed: int
) -> tuple[UnitRow, ...]:  # fmt: skip
    """Every unit that the audit wrote down, beside its bare passes."""
    rows, counts = list[UnitRow](), passes.counts()
    for name in units[AUDIT][0]:
        ours, bare = (np.array([by.get(name, 0.0) for by in units[side]]) for side in (AUDIT, BARE))
        count = counts.get(name)
        share = ratio(ours, bare, "bare passes", seed) if bare.min() >= LEAST_S else None
        rows.append(
            UnitRow(
                unit=name, audit_s=tuple(ours.round(4)), bare_s=tuple(bare.round(4)), ratio=share,
                passes=count.passes if count else 0, work=count.work if count else 0, back=count.back if count else 0,
                head=count.head if count else 0, steps=count.steps if count else 0,
                other_steps=count.other_steps if count else 0,
            )
        )  # fmt: skip
    return tuple(rows)


def cached(bench: Bench, before: Path | None, repeats: int, seed: int) -> CachedRow:
    """A run into a new folder over a store that has everything, on this checkout and on another in turn."""
    checkouts, dice = {"today": HERE} | ({"before": before.resolve()} if before else {}), np.random.default_rng(seed)
    seconds: dict[str, list[float]] = {name: [] for name in ("today", "before")}
    for repeat in range(-1, repeats):
        for name in dice.permutation(list(checkouts)):
            scratch = bench.folder(f"cached-{name}")
            if repeat < 0:
                shutil.rmtree(scratch, ignore_errors=True)
            shutil.rmtree(scratch / "run", ignore_errors=True)
            words = run_words(bench, scratch / "run", scratch / "store")
            env = {"RESIDUA_CACHE": str(scratch / "cache")}
            seconds[name] += [round(spend(["audit.cli", *words], env, checkouts[name]).cpu_s, 3)][: repeat + 1]
    share = ratio(np.array(seconds["today"]), np.array(seconds["before"]), "before", seed) if before else None
    return CachedRow(
        case=bench.name, today_s=tuple(seconds["today"]), before_s=tuple(seconds["before"]),
        before=commit(before) if before else "", ratio=share,
    )  # fmt: skip


def trees(bench: Bench, folder: Path) -> None:
    """Where the time of each unit goes, as text: an audit without a store, sampled."""
    scratch = bench.folder("trees")
    shutil.rmtree(scratch, ignore_errors=True)
    words = ["studies.speed.unit_trees", str(folder / bench.name), *run_words(bench, scratch / "run", None)]
    spend(words, {"RESIDUA_CACHE": str(scratch / "cache")})


# ---- cases ------------------------------------------------------------------------------------------------------
def cases(work: Path, data: Path | None, facts: int) -> list[Bench]:
    """The demo's tiny world, and stories260K with so many facts of TOFU's authors where they are: trained once, kept in
    ``work``."""
    from audit.zoo import build

    benches = [Bench("tiny", build("tiny", 0).cases["refusal"], work)]
    if data is not None:
        benches.append(Bench("stories", stories(work / "stories", data, facts), work))
    return benches


def main() -> None:
    """Measure and write; what was measured is written after each part."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--data", type=Path, help="folder with tofu/, text/ and models/stories260K-hf")
    parser.add_argument("--work", type=Path, default=Path("runs/speed_audit"), help="where models and runs are kept")
    parser.add_argument("--parts", nargs="+", default=[SHARED, ALONE, CACHED], choices=[SHARED, ALONE, CACHED])
    parser.add_argument("--cases", nargs="+", help="of them, these alone")
    parser.add_argument("--facts", type=int, default=4, help="of TOFU's authors, how many of four are audited")
    parser.add_argument("--before", type=Path, help="another checkout, for the run with everything cached")
    parser.add_argument("--trees", type=Path, help="folder for the text trees of where each probe's time goes")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", stream=sys.stderr)
    command = (
        f"python -m studies.speed.audit --data DIR --facts {args.facts} --before FOLDER --repeats {args.repeats} "
        f"--parts {' '.join(args.parts)}{f' --cases {chr(32).join(args.cases)}' if args.cases else ''}"
    )
    results = Results(stamp=stamp(args.seed), command=command, rows=())
    for bench in cases(args.work.resolve(), args.data, args.facts):
        if args.cases and bench.name not in args.cases:
            continue
        for part in args.parts:
            if part == CACHED:
                row = cached(bench, args.before, args.repeats, args.seed)
                results = results.model_copy(update={"cached": (*results.cached, row)})
            else:
                audit = measured(bench, part, args.repeats, args.seed)
                results = results.model_copy(update={"rows": (*results.rows, audit)})
            if args.out:
                write_atomic(args.out, (results.model_dump_json(indent=1) + "\n").encode())
        if args.trees:
            trees(bench, args.trees)
    sys.stdout.write("\n".join(results.sentences) + "\n")


if __name__ == "__main__":
    main()
