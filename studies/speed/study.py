"""Run the benchmark suite: ``python -m studies.speed.study --out studies/speed/results.json``.

Nothing else may run on the machine meanwhile; the load before the run is recorded. Results are written after every
part, so that an interrupted run leaves what it measured.
"""

import argparse
import logging
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple, cast

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from audit.nouns import Missing
from audit.store import write_atomic
from studies.speed import bounds, commands, memory
from studies.speed.methods import BARE, LOGITS, OPENERS, OURS, Call, Method, Mode, disagreement, methods
from studies.speed.results import Results, TimingRow, commit, machine, now
from studies.speed.sizes import SIZES, SizeName, checkpoint, rows
from studies.speed.timing import interleaved, ratio

log = logging.getLogger(__name__)
AGREE = 1e-4  # largest difference between methods that are still said to compute the same


class Settings(NamedTuple):
    """What to measure."""

    sizes: tuple[SizeName, ...]
    modes: tuple[Mode, ...]
    only: tuple[str, ...]
    repeats: int
    parts: tuple[str, ...]
    seed: int


def opened(size: SizeName, chosen: Sequence[Method], folder: Path, seed: int) -> dict[str, Call]:
    """Every method as a call, after a check that they return the same states. Raises ValueError where they do not."""
    ckpt, batch = checkpoint(size, folder, seed), rows(size, seed)
    calls: dict[str, Call] = {}
    expected: dict[Mode, list[torch.Tensor]] = {}
    for method in chosen:
        call = OPENERS[method.name](ckpt, batch, method.mode)
        result = call()
        if method.mode != "none":
            reference = expected.setdefault(method.mode, [state.clone() for state in result])
            if (gap := disagreement(result, reference)) > AGREE:
                raise ValueError(f"{method} at {size} differs by {gap:.2g} from the first method: nothing to compare")
        calls[str(method)] = call
    return calls


def time_size(size: SizeName, settings: Settings, folder: Path) -> list[TimingRow]:
    """All chosen methods at one size, interleaved."""
    chosen = [m for m in methods(settings.modes) if not settings.only or m.name in settings.only]
    calls = opened(size, chosen, folder, settings.seed)
    repeats, wanted = [], settings.repeats * SIZES[size].repeats_factor
    for seconds in interleaved(calls, wanted, SIZES[size].calls_per_repeat, settings.seed):
        repeats.append(seconds)
        log.info("%s: repeat %d of %d", size, len(repeats), wanted)
    taken = {name: np.array([r[name] for r in repeats]) for name in calls}
    table = []
    for method in chosen:
        ours = taken[str(method)]
        against = [m for m in chosen if m.name in (BARE, LOGITS) or (method.name == OURS and m.mode == method.mode)]
        table.append(
            TimingRow(
                size=size, method=method.name, mode=method.mode, cpu_s=float(np.median(ours)),
                cpu_s_min=float(ours.min()), cpu_s_max=float(ours.max()), repeats=len(ours),
                calls_per_repeat=SIZES[size].calls_per_repeat,
                ratios=tuple(ratio(ours, taken[str(m)], m.name, settings.seed) for m in against if m != method),
            )
        )  # fmt: skip
    return table


def run(settings: Settings, out: Path) -> Results:
    """Measure what ``settings`` ask for and write it to ``out``. A part that is not asked for is listed as not run."""
    torch.set_num_threads(1)
    parts = ("time", "memory", "commands")
    found = Results(
        created=now(), commit=commit(), seed=settings.seed, machine=machine(),
        command="python -m studies.speed.study " + " ".join(sys.argv[1:]),
        not_run={part: "not asked for" for part in parts if part not in settings.parts},
    )  # fmt: skip

    def keep(**more: object) -> Results:
        kept = found.model_copy(update=more)
        checks = (*bounds.of_timings(kept.timings), *bounds.of_memory(kept.memory), *bounds.of_commands(kept.commands))
        kept = kept.model_copy(update={"bounds": checks})
        write_atomic(out, (kept.model_dump_json(indent=1) + "\n").encode())
        return kept

    with tempfile.TemporaryDirectory(prefix="residua-speed-") as name:
        folder = Path(name)
        if "commands" in settings.parts:
            world = "tiny" if settings.sizes == ("smoke",) else "demo"
            helps = commands.measure(["--help"], "warm disk", repeats=max(3, settings.repeats))
            found = keep(commands=(helps, *commands.demo(folder, world)))
        if "memory" in settings.parts:
            for size in settings.sizes:
                for method in methods(settings.modes):
                    if size != "T" and (not settings.only or method.name in settings.only):
                        row = memory.in_its_own_process(size, method, folder, settings.seed)
                        found = keep(memory=(*found.memory, row))
                        log.info("%s, %s: %.0f MiB", size, method, row.peak_mib)
        if "time" in settings.parts:
            for size in settings.sizes:
                found = keep(timings=(*found.timings, *time_size(size, settings, folder)))
    return found


def tables(found: Results, console: Console) -> None:
    """Print what was measured, and which bounds are met."""
    times = Table(title="CPU-seconds a call, one thread; ratio to a bare forward of the blocks alone [95 % interval]")
    for column in ("size", "method", "cpu_s", "ratio to blocks alone", "ratio to full logits"):
        times.add_column(column)
    for row in found.timings:
        by_name = {r.against: f"{r.median:.3f} [{r.ci95.lo:.3f}, {r.ci95.hi:.3f}]" for r in row.ratios}
        name = str(Method(row.method, cast(Mode, row.mode)))
        times.add_row(row.size, name, f"{row.cpu_s:.4g}", by_name.get(BARE, "1"), by_name.get(LOGITS, "1"))
    peaks = Table(title="Peak memory in a process of its own, MiB")
    for column in ("size", "method", "peak", "returned"):
        peaks.add_column(column)
    for row in found.memory:
        name = str(Method(row.method, cast(Mode, row.mode)))
        peaks.add_row(row.size, name, f"{row.peak_mib:.0f}", f"{row.returned_mib:.1f}")
    lines = Table(title="Commands")
    for column in ("command", "condition", "cpu_s", "wall_s", "exit code"):
        lines.add_column(column)
    for row in found.commands:
        lines.add_row(row.command, row.condition, f"{row.cpu_s:.2f}", f"{row.wall_s:.2f}", str(row.exit_code))
    checks = Table(title="Bounds: met when the interval reaches the bound")
    for column in ("size", "claim", "bound", "measured", "met"):
        checks.add_column(column)
    for row in found.bounds:
        spread = "" if isinstance(row.ci95, Missing) else f" [{row.ci95.lo:.3f}, {row.ci95.hi:.3f}]"
        checks.add_row(
            row.size, row.claim, f"{row.bound:g}", f"{row.measured:.3f}{spread}", "met" if row.met else "NOT MET"
        )
    for table in (times, peaks, lines, checks):
        if table.row_count:
            console.print(table)


def main() -> None:
    """The command line of the suite."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sizes", nargs="+", choices=list(SIZES), default=["A", "B", "T"])
    parser.add_argument("--modes", nargs="+", choices=["last", "mean", "all"], default=["last", "mean", "all"])
    parser.add_argument("--only", nargs="+", choices=list(OPENERS), default=[], help="these methods alone")
    parser.add_argument(
        "--parts", nargs="+", choices=["time", "memory", "commands"], default=["commands", "memory", "time"]
    )
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("studies/speed/results.json"))
    given = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", stream=sys.stderr)
    settings = Settings(
        tuple(given.sizes), tuple(given.modes), tuple(given.only), given.repeats, tuple(given.parts), given.seed
    )
    tables(run(settings, given.out), Console(width=150))


if __name__ == "__main__":
    main()
