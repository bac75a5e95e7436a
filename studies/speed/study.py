"""Run the benchmark suite: ``python -m studies.speed.study --out studies/speed/results.json``.

Nothing else may run on the machine meanwhile; the load before the run is recorded. Results are written after every
part, so that an interrupted run leaves what it measured, and a part that is measured again replaces the old one.
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

from audit.schema import Missing
from audit.storage import write_atomic
from studies.provenance import stamp
from studies.speed import bounds, commands, memory, readouts
from studies.speed.methods import BARE, LOGITS, OPENERS, OURS, Call, Method, Mode, disagreement, methods
from studies.speed.results import MemoryRow, Part, Results, TimingRow
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


def stored_results(out: Path) -> Results:
    """What ``out`` holds already, or nothing."""
    return Results.model_validate_json(out.read_bytes()) if out.is_file() else Results()


def run(settings: Settings, out: Path) -> Results:
    """Measure what ``settings`` ask for and write it to ``out``. What it holds of parts not asked for stays."""
    torch.set_num_threads(1)
    results = stored_results(out)

    def keep(part: str, provenance: Part, **rows_of: object) -> None:
        nonlocal results
        new = results.model_copy(update={**rows_of, "parts": {**results.parts, part: provenance}})
        results = new.model_copy(update={"bounds": bounds.all_of(new)})
        write_atomic(out, (results.model_dump_json(indent=1) + "\n").encode())

    with tempfile.TemporaryDirectory(prefix="residua-speed-") as name:
        folder = Path(name)
        if "commands" in settings.parts:
            provenance = begun(settings)
            world = "tiny" if settings.sizes == ("smoke",) else "demo"
            helps = commands.measure(["--help"], "warm disk", repeats=max(3, settings.repeats))
            keep("commands", provenance, commands=(helps, *commands.demo(folder, world)))
        if "readouts" in settings.parts:
            provenance = begun(settings)
            loss = readouts.neighbour_scoring(folder, settings.repeats, settings.seed)
            keep("readouts", provenance, readouts=(readouts.grouped(settings.repeats, settings.seed), *loss))
        for size in settings.sizes:
            if "memory" in settings.parts and size != "T":
                provenance = begun(settings)
                others = tuple(row for row in results.memory if row.size != size)
                keep(f"memory {size}", provenance, memory=(*others, *peaks(size, settings, folder)))
            if "time" in settings.parts:
                provenance = begun(settings)
                rest = tuple(row for row in results.timings if row.size != size)
                keep(f"time {size}", provenance, timings=(*rest, *time_size(size, settings, folder)))
    return results


def begun(settings: Settings) -> Part:
    """A part that begins now."""
    return Part(stamp=stamp(settings.seed), command="python -m studies.speed.study " + " ".join(sys.argv[1:]))


def peaks(size: SizeName, settings: Settings, folder: Path) -> list[MemoryRow]:
    """Peak memory of all chosen methods at one size; the two that a bound compares get five processes, the rest one."""
    table = []
    for method in methods(settings.modes):
        if not settings.only or method.name in settings.only:
            processes = 5 if method.name in (BARE, OURS) else 1
            row = memory.in_own_processes(size, method, folder, settings.seed, processes)
            log.info("%s, %s: %.0f MiB", size, method, row.peak_mib)
            table.append(row)
    return table


def tables(results: Results, console: Console) -> None:
    """Print what was measured, and which bounds are met."""
    times = Table(title="CPU-seconds a call, one thread; ratio to a bare forward of the blocks alone [95 % interval]")
    for column in ("size", "method", "cpu_s", "ratio to blocks alone", "ratio to full logits"):
        times.add_column(column)
    for row in results.timings:
        by_name = {r.against: f"{r.median:.3f} [{r.ci95.lo:.3f}, {r.ci95.hi:.3f}]" for r in row.ratios}
        name = str(Method(row.method, cast(Mode, row.mode)))
        times.add_row(row.size, name, f"{row.cpu_s:.4g}", by_name.get(BARE, "1"), by_name.get(LOGITS, "1"))
    peak = Table(title="Peak memory in a process of its own, MiB")
    for column in ("size", "method", "peak", "returned"):
        peak.add_column(column)
    for row in results.memory:
        name = str(Method(row.method, cast(Mode, row.mode)))
        peak.add_row(row.size, name, f"{row.peak_mib:.0f}", f"{row.returned_mib:.1f}")
    lines = Table(title="Commands")
    for column in ("command", "condition", "cpu_s", "wall_s", "exit code"):
        lines.add_column(column)
    for row in results.commands:
        lines.add_row(row.command, row.condition, f"{row.cpu_s:.2f}", f"{row.wall_s:.2f}", str(row.exit_code))
    checks = Table(title="Bounds: met when the interval reaches the bound")
    for column in ("size", "claim", "bound", "measured", "met"):
        checks.add_column(column)
    for row in results.bounds:
        spread = "" if isinstance(row.ci95, Missing) else f" [{row.ci95.lo:.3f}, {row.ci95.hi:.3f}]"
        checks.add_row(
            row.size, row.claim, f"{row.bound:g}", f"{row.measured:.3f}{spread}", "met" if row.met else "NOT MET"
        )
    read = Table(title="Read-outs against what they replace")
    for column in ("what", "cpu_s", "against", "cpu_s of that", "times"):
        read.add_column(column)
    for row in results.readouts:
        read.add_row(row.what, f"{row.cpu_s:.3g}", row.against, f"{row.against_cpu_s:.4g}", f"{row.ratio:.4g}")
    for table in (times, peak, lines, read, checks):
        if table.row_count:
            console.print(table)


def main() -> None:
    """The command line of the suite."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sizes", nargs="+", choices=list(SIZES), default=["A", "B", "T"])
    parser.add_argument("--modes", nargs="+", choices=["last", "mean", "all"], default=["last", "mean", "all"])
    parser.add_argument("--only", nargs="+", choices=list(OPENERS), default=[], help="these methods alone")
    parser.add_argument(
        "--parts",
        nargs="+",
        choices=["time", "memory", "commands", "readouts"],
        default=["commands", "readouts", "memory", "time"],
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
