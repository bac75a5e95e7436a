"""Is the price of a run true? What ``residua plan`` says of time and memory, beside what the run then takes.

``python -m studies.speed.price --work WORK --out studies/speed/price.json``. For every world of ``price_worlds`` the
plan is made in a process of its own with a cache that holds no timing of any run, and so is the run: CPU-seconds with
children and the peak of resident memory of the whole process, one thread, an empty store. A case counts as priced
where both lie inside the plan's ranges. ``--fitted`` takes the worlds that the shipped prices were fitted on.
"""

import argparse
import json
import logging
import shutil
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import torch

from audit.engine import prepare
from audit.planning import RunSettings
from audit.planning.machine_speed import small_seconds
from audit.planning.unit_costs import FILE, Observed, UnitCosts, Workload, fit
from audit.schema import Record
from audit.storage import write_atomic
from studies.provenance import Stamp, stamp
from studies.speed.audit import spend, unit_seconds
from studies.speed.price_worlds import FITTED, JUDGED, PriceWorld, write_world

MOST_WIDTH: Final = 3.0
"""How many times its lower end the upper end of a range may be."""
log = logging.getLogger(__name__)


class PricedUnit(Record):
    """A unit of a run: what the plan says, and what it took, in CPU-seconds. None where it was not made."""

    unit: str
    lo_s: float
    hi_s: float
    took_s: float | None
    fwd_tokens: int
    bwd_tokens: int
    steps: int


class PricedCase(Record):
    """A run: ranges of the plan, and what it took. ``code``: how the run ended."""

    name: str
    lo_s: float
    hi_s: float
    took_s: float
    lo_mb: float
    hi_mb: float
    took_mb: float
    code: int
    source: str
    units: tuple[PricedUnit, ...]

    @property
    def time_inside(self) -> bool:
        """Whether the run took as long as was said."""
        return self.lo_s <= self.took_s <= self.hi_s

    @property
    def memory_inside(self) -> bool:
        """Whether it took as much memory as was said."""
        return self.lo_mb <= self.took_mb <= self.hi_mb


class Results(Record):
    """What was said of every case, and what it took."""

    stamp: Stamp
    command: str
    cases: tuple[PricedCase, ...]

    @property
    def sentence(self) -> str:
        """What the page says of it."""
        n, cases = len(self.cases), self.cases
        widest = max(max(case.hi_s / case.lo_s, case.hi_mb / case.lo_mb) for case in cases)
        time, memory = sum(case.time_inside for case in cases), sum(case.memory_inside for case in cases)
        both = sum(case.time_inside and case.memory_inside for case in cases)
        return (
            f"Of {n} runs that the price was not fitted on, **{both}** took the time and the memory that the plan had "
            f"said ({time} the time, {memory} the memory); the widest range has an upper end of {widest:.1f} times its "
            f"lower one (promised at most {MOST_WIDTH:g})."
        )


def folder_of(world: PriceWorld, work: Path) -> Path:
    """Where a world is kept."""
    return work / "".join(c if c.isalnum() else "-" for c in world.name)


def planned(case: Path, scratch: Path) -> dict[str, Any]:
    """The price in the answer of ``residua plan --json``, by a process with an empty cache."""
    shutil.rmtree(scratch, ignore_errors=True)
    words = ["audit.cli", "plan", str(case), "-o", str(scratch / "run"), "--store", str(scratch / "store"), "--json"]
    return json.loads(spend(words, {"RESIDUA_CACHE": str(scratch / "cache")}).printed)["price"]


def took(case: Path, scratch: Path) -> dict[str, Any]:
    """What a run from an empty store takes; kept, since it does not depend on what the plan said."""
    kept = scratch.with_suffix(".took.json")
    if not kept.is_file():
        shutil.rmtree(scratch, ignore_errors=True)
        words = ["audit.cli", "run", str(case), "-o", str(scratch / "run"), "--store", str(scratch / "store"), "-q"]
        spent = spend([*words, "--allow-undecided"], {"RESIDUA_CACHE": str(scratch / "cache")})
        report = json.loads((scratch / "run" / "report.json").read_text(encoding="utf-8"))
        record = {"cpu_s": spent.cpu_s, "peak_mb": spent.peak_mb, "units": unit_seconds(scratch / "cache"),
                  "verdict": report["verdict"]["word"]}  # fmt: skip
        write_atomic(kept, json.dumps(record).encode())
        shutil.rmtree(scratch)
    return json.loads(kept.read_bytes())


def priced(world: PriceWorld, work: Path) -> PricedCase:
    """One world: its plan and its run."""
    folder = folder_of(world, work)
    case = write_world(world, folder)
    spent = took(case, folder / "spent")
    price = planned(case, folder / "planned")
    memory = price.get("least_bytes", 1e6), price["peak_bytes"]
    units = tuple(
        PricedUnit(
            unit=unit["unit"], lo_s=round(unit["seconds"][0], 3), hi_s=round(unit["seconds"][1], 3),
            took_s=spent["units"].get(unit["unit"]), fwd_tokens=unit["fwd_tokens"], bwd_tokens=unit["bwd_tokens"],
            steps=unit["steps"],
        )
        for unit in price["units"]
    )  # fmt: skip
    return PricedCase(
        name=world.name, lo_s=round(price["seconds"][0], 2), hi_s=round(price["seconds"][1], 2),
        took_s=round(spent["cpu_s"], 2), lo_mb=round(memory[0] / 1e6, 1), hi_mb=round(memory[1] / 1e6, 1),
        took_mb=round(spent["peak_mb"] * 1.048576, 1), code=0, source=price["source"], units=units,
    )  # fmt: skip


def priced_all(worlds: Sequence[PriceWorld], work: Path) -> list[PricedCase]:
    """Every world; one that cannot be trained so that base recalls is left out, and said in the log."""
    done = list[PricedCase]()
    for world in worlds:
        try:
            done.append(priced(world, work))
        except RuntimeError as error:
            log.warning("%s is left out: %s", world.name, str(error)[-300:])
            continue
        case = done[-1]
        log.info("%s: said %.1f to %.1f s, took %.1f; said %.0f to %.0f MB, took %.0f", case.name, case.lo_s,
                 case.hi_s, case.took_s, case.lo_mb, case.hi_mb, case.took_mb)  # fmt: skip
    return done


# ---- fitting ----------------------------------------------------------------------------------------------------
def workloads(case: Path) -> dict[str, Workload]:
    """What each unit of a case has to do, in this process."""
    with tempfile.TemporaryDirectory() as folder:
        settings = RunSettings(device="cpu", threads=1, store=Path(folder) / "store")
        prepared = prepare(case, Path(folder) / "run", settings)
        prices = prepared.pricer.prices(prepared.planner)
        times, small = prepared.pricer.times, small_seconds()
    return {price.unit: Workload.of(price.cost, times, small) for price in prices.units}


def fitted_costs(worlds: Sequence[PriceWorld], more: Sequence[Path], work: Path) -> UnitCosts:
    """Factors fitted on worlds, and on further cases; a run of each is made, or taken from where it was kept."""
    observed = list[Observed]()
    cases = [(write_world(world, folder_of(world, work)), folder_of(world, work) / "spent") for world in worlds]
    cases += [(case, work / f"further-{n}" / "spent") for n, case in enumerate(more)]
    for case, scratch in cases:
        scratch.parent.mkdir(parents=True, exist_ok=True)
        units, works = took(case, scratch)["units"], workloads(case)
        observed += [Observed(unit, works[unit], units[unit]) for unit in works if unit in units]
    return fit(observed)


def main() -> None:
    """Price, run, compare, write."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--work", type=Path, default=Path("runs/speed_price"), help="where worlds are kept")
    parser.add_argument("--fitted", action="store_true", help="the worlds that the prices were fitted on")
    parser.add_argument("--names", nargs="+", help="of the worlds, these alone")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--fit", nargs="*", type=Path, metavar="CASE", help="fit the factors that are shipped, on the "
                        "worlds for it and on further cases, and write them")  # fmt: skip
    args = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", stream=sys.stderr)
    if args.fit is not None:
        torch.set_num_threads(1)
        costs = fitted_costs(FITTED, args.fit, args.work.resolve())
        write_atomic(FILE, (costs.model_dump_json(indent=1) + "\n").encode())
        return
    begun = stamp(0)
    worlds = [world for world in (FITTED if args.fitted else JUDGED) if not args.names or world.name in args.names]
    cases = priced_all(worlds, args.work.resolve())
    results = Results(stamp=begun, command="python -m studies.speed.price --work WORK", cases=tuple(cases))
    if args.out:
        write_atomic(args.out, (results.model_dump_json(indent=1) + "\n").encode())
    sys.stdout.write(f"{results.sentence}\n")


if __name__ == "__main__":
    main()
