"""Twelve suspects of one base: swept by two processes, against a run of each.

``python -m studies.speed.sweep --out studies/speed/sweep.json``. The suspects are the tiny world's base with growing
noise, audited by some of the probes. A run is a process of its own, as a command is; it has an empty store, or all
have one store. CPU-seconds with children, and the reports of all three are compared.
"""

import argparse
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import torch

from audit import plugins
from audit.case import CaseFile
from audit.engine import Spread, Suspect, run, suspects_of, sweep
from audit.planning import RunSettings, unwatched
from audit.runs import run_files
from audit.schema import Record
from audit.storage import read_tensors, write_atomic, write_tensors
from audit.zoo import build
from studies.provenance import Stamp, stamp

PROBES = ("answer_lens", "forget_likelihood", "quantisation_recovery", "relearning_recovery", "reverse_patch",
          "utility", "weight_difference")  # fmt: skip
PACKAGE = "probes_of_the_sweep"
SUSPECTS, WORKERS, NOISE = 12, 2, 0.02
EMPTY, SHARED = "an empty store each", "one store"
OF_THE_RUN = ("created", "registered", "timings")
"""What of a report says when it was made and how long it took."""


class ArmRow(Record):
    """One way to audit all suspects: CPU-seconds of all its processes, and seconds by the clock."""

    arm: str
    cpu_s: float
    wall_s: float


class Results(Record):
    """What was measured. ``start_cpu_s``: a process that imports everything and opens no model, the least of three.

    ``same_reports``: are the reports of every arm those of the first, but for when they were made?
    """

    stamp: Stamp
    command: str
    load_after: float
    suspects: int
    workers: int
    probes: tuple[str, ...]
    start_cpu_s: float
    same_reports: bool
    rows: tuple[ArmRow, ...]

    def cpu(self, arm: str) -> float:
        """CPU-seconds of an arm."""
        return next(row.cpu_s for row in self.rows if row.arm == arm)

    def times(self, arm: str) -> float:
        """CPU-seconds of the sweep as a share of another arm's."""
        return self.cpu("sweep") / self.cpu(arm)

    def times_without_start(self, arm: str) -> float:
        """The same without what starting the processes takes."""
        started = self.cpu("sweep") - (self.workers + 1) * self.start_cpu_s
        return started / (self.cpu(arm) - self.suspects * self.start_cpu_s)

    @property
    def sentence(self) -> str:
        """What the page says of it."""
        separate, over_one = EMPTY, SHARED
        return (
            f"{self.suspects} suspects of one base, {len(self.probes)} probes, {self.workers} processes: "
            f"{self.cpu('sweep'):.0f} CPU-seconds, **{self.times(separate):.2f}x** of {self.suspects} runs with "
            f"{separate} ({self.cpu(separate):.0f}) and **{self.times(over_one):.2f}x** of {self.suspects} runs over "
            f"{over_one} ({self.cpu(over_one):.0f}). To start a process takes {self.start_cpu_s:.1f} of them; without "
            f"that {self.times_without_start(separate):.2f}x and {self.times_without_start(over_one):.2f}x."
        )


class World(NamedTuple):
    """The case and the pool of suspects, in a folder that also holds the package of probes."""

    scratch: Path
    case: Path

    def suspects(self) -> tuple[Suspect, ...]:
        """The suspects, each with its case."""
        return suspects_of([self.case], [str(self.scratch / "pool")])


def world_in(scratch: Path, seed: int, probes: Sequence[str] = PROBES) -> World:
    """Train the world, write the pool and the package of probes."""
    case = build("tiny", seed).cases["refusal"]
    read = CaseFile.read(case)
    base = (read.root / read.case.roles.base.path).resolve()
    for n in range(SUSPECTS):
        folder = scratch / "pool" / f"noise-{n}"
        shutil.copytree(base, folder)
        path, rng = folder / "model.safetensors", torch.Generator().manual_seed(seed + n)
        noisy = {
            name: w + NOISE * (n + 1) * w.std() * torch.randn(w.shape, generator=rng)
            for name, w in read_tensors(path).items()
        }
        write_tensors(path, noisy, {"format": "pt"})
    package = scratch / "packages" / PACKAGE
    package.mkdir(parents=True)
    (package / "__init__.py").write_text('"""Some of the probes."""\n')
    for name in probes:
        shutil.copy(plugins.folder("probes") / f"{name}.py", package)
    return World(scratch, case)


def measured(world: World) -> Results:
    """All arms in turn, each by processes of its own, after one run that fills what is cached beside the store."""
    scratch = world.scratch
    _spent(world, "one", "0", "warm", "warm")
    start = min(_spent(world, "start").cpu_s for _ in range(3))
    rows = [_spent(world, "sweep", str(WORKERS), "sweep", "store-sweep")]
    for arm, own in ((EMPTY, True), (SHARED, False)):
        each = [_spent(world, "one", str(n), arm, f"store-{n if own else 'one'}-{own}") for n in range(SUSPECTS)]
        rows.append(ArmRow(arm=arm, cpu_s=sum(r.cpu_s for r in each), wall_s=sum(r.wall_s for r in each)))
    names = [suspect.name for suspect in world.suspects()]
    reports = [[timeless(scratch / "runs" / row.arm / name) for name in names] for row in rows]
    return Results(
        stamp=stamp(0), command="", load_after=round(os.getloadavg()[0], 2), suspects=SUSPECTS, workers=WORKERS,
        probes=PROBES, start_cpu_s=start, same_reports=all(each == reports[0] for each in reports), rows=tuple(rows),
    )  # fmt: skip


def timeless(folder: Path) -> dict[str, object]:
    """The report of a run without what says when it was made and how long it took."""
    document = json.loads((folder / run_files.REPORT).read_text(encoding="utf-8"))
    return {name: part for name, part in document.items() if name not in OF_THE_RUN}


def _spent(world: World, *words: str) -> ArmRow:
    """What one process of this module and its children use."""
    before, begin = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    path = os.pathsep.join([str(world.scratch / "packages"), *filter(None, sys.path)])
    command = [sys.executable, "-m", "studies.speed.sweep", "--child", str(world.scratch), str(world.case), *words]
    subprocess.run(
        command, env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": path}, check=True, stderr=subprocess.DEVNULL
    )
    after, wall = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter() - begin
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return ArmRow(arm=words[0], cpu_s=cpu, wall_s=wall)


def child(scratch: Path, case: Path, words: Sequence[str]) -> None:
    """What a measured process does: start, run one suspect (by number), or sweep all by so many workers."""
    kind, *rest = words
    if kind == "start":
        import transformers.models.llama.modeling_llama as _  # noqa: F401 - what opening a model imports

        return
    number, arm, store = rest
    settings = RunSettings(package=PACKAGE, store=scratch / store, threads=1)
    suspects = World(scratch, case).suspects()
    chosen = suspects if kind == "sweep" else suspects[int(number) : int(number) + 1]
    for suspect in chosen:
        folder = scratch / "runs" / arm / suspect.name
        folder.mkdir(parents=True)
        (folder / run_files.MASK_KEY).write_text("0" * 64)
    if kind == "sweep":
        sweep(suspects, scratch / "runs" / arm, settings, Spread(int(number)), unwatched)
    else:
        run(CaseFile(chosen[0].case, chosen[0].root), scratch / "runs" / arm / chosen[0].name, settings)


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--out", type=Path)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--child", nargs="+", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        child(Path(args.child[0]), Path(args.child[1]), args.child[2:])
        return
    before = stamp(args.seed)
    with tempfile.TemporaryDirectory(prefix="residua-speed-") as folder:
        os.environ["RESIDUA_CACHE"] = str(Path(folder) / "cache")
        results = measured(world_in(Path(folder), args.seed))
    command = "python -m studies.speed.sweep --out studies/speed/sweep.json"
    stamped = results.model_copy(update={"stamp": before, "command": command})
    write_atomic(args.out, (stamped.model_dump_json(indent=1) + "\n").encode())
    sys.stdout.write(f"{stamped.sentence}\n")


if __name__ == "__main__":
    main()
