"""What is promised about speed, and whether the measurement reaches it."""

from collections.abc import Iterable, Sequence

import numpy as np

from audit.schema import Missing
from studies.speed.methods import BARE, OURS
from studies.speed.results import Bound, CommandRow, MemoryRow, Results, TimingRow
from studies.speed.timing import ratio_of_medians

BARE_BOUNDS = {  # ours against a bare forward of the blocks alone, by size and mode
    "A": {"last": 1.05, "mean": 1.05},
    "B": {"last": 1.05, "mean": 1.05},
    "T": {"last": 1.10, "mean": 1.25},
}
BOUNDED_MODES = ("last", "mean")  # all positions is reported as its own row
BEST_ALTERNATIVE = 1.05
MEMORY = 1.05
DEMO_CPU_S = {"first time: trains the world": 480.0, "models cached": 40.0}
HELP_WALL_S = 0.5


def all_of(results: Results) -> tuple[Bound, ...]:
    """Every bound that the measured rows speak to."""
    return (*of_timings(results.timings), *of_memory(results.memory), *of_commands(results.commands))


def of_timings(timings: Sequence[TimingRow]) -> Iterable[Bound]:
    """Ours against the bare forward, and against the fastest alternative of the same mode."""
    for row in timings:
        if row.method != OURS or row.mode not in BOUNDED_MODES:
            continue
        by_name = {ratio.against: ratio for ratio in row.ratios}
        alternatives = [t for t in timings if t.size == row.size and t.mode == row.mode and t.method != OURS]
        best = min(alternatives, key=lambda t: t.cpu_s, default=None)
        comparisons = [(BARE, BARE_BOUNDS.get(row.size, {}).get(row.mode), f"against a bare forward of the {BARE}")]
        if best is not None:
            comparisons.append((best.method, BEST_ALTERNATIVE, f"against the best alternative ({best.method})"))
        for against, bound, words in comparisons:
            if bound is not None and (ratio := by_name.get(against)) is not None:
                yield Bound(
                    claim=f"extraction, {row.mode}: {words}",
                    size=row.size,
                    bound=bound,
                    measured=ratio.median,
                    ci95=ratio.ci95,
                    met=ratio.ci95.lo <= bound,
                )


def of_memory(memory: Sequence[MemoryRow]) -> Iterable[Bound]:
    """Ours against the bare forward plus the bytes returned and one block's output."""
    bare = {row.size: row for row in memory if row.method == BARE}
    for row in memory:
        if row.method != OURS or row.size not in bare:
            continue
        allowed = np.array(bare[row.size].peaks_mib) + row.returned_mib + row.block_output_mib
        measured, ci95 = ratio_of_medians(np.array(row.peaks_mib), allowed, seed=0)
        yield Bound(
            claim=f"peak memory, {row.mode}: against the same forward, plus what is returned, plus one block's output",
            size=row.size,
            bound=MEMORY,
            measured=measured,
            ci95=ci95,
            met=ci95.lo <= MEMORY,
        )


def of_commands(commands: Sequence[CommandRow]) -> Iterable[Bound]:
    """The demo's CPU-seconds and the wall seconds of the help page."""
    once = Missing(missing="measured once")
    for row in commands:
        if row.command == "residua demo --world demo":
            bound = DEMO_CPU_S[row.condition]
            yield Bound(
                claim=f"{row.command}, CPU-seconds with children ({row.condition})", size="demo", bound=bound,
                measured=row.cpu_s, ci95=once, met=row.cpu_s <= bound and row.exit_code == 0,
            )  # fmt: skip
        if row.command == "residua --help":
            yield Bound(
                claim="residua --help, wall seconds", size="-", bound=HELP_WALL_S, measured=row.wall_s,
                ci95=Missing(missing=f"median of {row.repeats}"), met=row.wall_s <= HELP_WALL_S,
            )  # fmt: skip
