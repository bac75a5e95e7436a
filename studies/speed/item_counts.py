"""How does a whole audit grow with the items? Three numbers of people, each a first audit from an empty store.

``python -m studies.speed.item_counts --work WORK --out studies/speed/item_counts.json``. Worlds of invented people, two
facts each in forget, retain and holdout, learnt by one small Llama (``price_worlds``). Every repeat audits each world
once, in shuffled order, in a process that is forked from one that has imported what a command imports: CPU-seconds of
all units, the report among them, of one thread, and the peak of the process's resident memory.
"""

import argparse
import logging
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import numpy as np
import torch

from audit.schema import Record
from audit.storage import write_atomic
from studies.provenance import Stamp, stamp
from studies.speed.price import folder_of, forked, took
from studies.speed.price_worlds import PriceWorld, llama_config, write_world
from studies.speed.results import Ratio
from studies.speed.timing import ratio

PEOPLE: Final = (20, 40, 80)
MOST_TIMES, MOST_MEMORY = 4.3, 1.3
"""What is promised for four times the items: CPU-seconds, and peak memory."""


class CountRow(Record):
    """Audits of one world: CPU-seconds and peak memory by repeat, and CPU-seconds by unit of the last."""

    people: int
    cpu_s: tuple[float, ...]
    peak_mb: tuple[float, ...]
    units: dict[str, float]


class CountResults(Record):
    """Every number of people, and how the largest compares with the smallest, by repeat."""

    stamp: Stamp
    command: str
    rows: tuple[CountRow, ...]
    grows: Ratio
    memory: Ratio

    @property
    def sentence(self) -> str:
        """What the page says of it."""
        peaks = ", ".join(f"{np.median(row.peak_mb):.0f} MB with {2 * row.people}" for row in self.rows)
        return (
            f"Four times the items take **{self.grows.median:.2f}** times as long ({self.grows.ci95.lo:.2f} to "
            f"{self.grows.ci95.hi:.2f}, promised at most {MOST_TIMES}) and **{self.memory.median:.2f}** times the "
            f"memory ({self.memory.ci95.lo:.2f} to {self.memory.ci95.hi:.2f}, promised at most {MOST_MEMORY}): {peaks} "
            f"items; {len(self.rows[0].cpu_s)} repeats."
        )


def world_of(people: int) -> PriceWorld:
    """The world of so many people: the vocabulary is the same for all."""
    return PriceWorld(f"llama, {people} people, counted", "llama", llama_config(48, 3, 600), people)


def measured(work: Path, people: Sequence[int], repeats: int, seed: int) -> list[CountRow]:
    """Every world as often as is asked for, interleaved; what was run before is kept in ``work``."""
    cases = {n: folder_of(world_of(n), work) for n in people}
    for n, folder in cases.items():
        forked(lambda n=n, folder=folder: write_world(world_of(n), folder))
    order, taken = np.random.default_rng(seed), {n: list[dict[str, float]]() for n in people}
    peaks = {n: list[float]() for n in people}
    for repeat in range(repeats):
        for n in order.permutation(list(people)):
            spent = took(cases[n] / "case.toml", cases[n] / f"spent-{repeat}")
            taken[n].append(spent["units"])
            peaks[n].append(round(spent["peak_mb"] * 1.048576, 1))
            logging.info("%d people: %.1f s, %.0f MB", n, sum(spent["units"].values()), peaks[n][-1])
    return [
        CountRow(
            people=n, cpu_s=tuple(round(sum(units.values()), 2) for units in taken[n]), peak_mb=tuple(peaks[n]),
            units={name: round(seconds, 2) for name, seconds in taken[n][-1].items()},
        )
        for n in people
    ]  # fmt: skip


def main() -> None:
    """Audit, compare, write."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--work", type=Path, default=Path("runs/item_counts"), help="where worlds and audits are kept")
    parser.add_argument("--people", type=int, nargs=3, default=PEOPLE, help="the last four times the first")
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", stream=sys.stderr)
    torch.set_num_threads(1)
    begun = stamp(0)
    rows = measured(args.work.resolve(), args.people, args.repeats, 0)
    few, many = rows[0], rows[-1]
    results = CountResults(
        stamp=begun, command=f"python -m studies.speed.item_counts --work WORK --repeats {args.repeats}",
        rows=tuple(rows), grows=ratio(np.array(many.cpu_s), np.array(few.cpu_s), f"{few.people} people", 0),
        memory=ratio(np.array(many.peak_mb), np.array(few.peak_mb), f"{few.people} people", 0),
    )  # fmt: skip
    if args.out:
        write_atomic(args.out, (results.model_dump_json(indent=1) + "\n").encode())
    sys.stdout.write(f"{results.sentence}\n")


if __name__ == "__main__":
    main()
