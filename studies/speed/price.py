"""Is the price of a run true? What ``residua plan`` says of time and memory, beside what the run then takes.

``python -m studies.speed.price --work WORK --out studies/speed/price.json``. For every world of ``price_worlds`` the
plan is made with a cache that holds no timing of any run, and so is the run, from an empty store: each in a process
forked from one that has imported what a command imports. Compared are the CPU-seconds of the run's units (its start
takes the same whatever is audited, and is priced apart), one thread, and the peak of the process's resident memory.
``--fit`` makes the factors that are shipped anew, on worlds of their own.
"""

import argparse
import json
import logging
import os
import resource
import shutil
import sys
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

import torch

from audit.engine import prepare, run
from audit.planning import (
    START_UNIT,
    UNIT_COSTS,
    Observed,
    RunSettings,
    UnitCosts,
    Workload,
    fit_unit_costs,
    small_seconds,
)
from audit.schema import Record
from audit.storage import write_atomic
from studies.provenance import Stamp, stamp
from studies.speed.audit import unit_seconds
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
    """A run: ranges of the plan, and what it took."""

    name: str
    lo_s: float
    hi_s: float
    took_s: float
    lo_mb: float
    hi_mb: float
    took_mb: float
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


def forked(act: Callable[[], object]) -> resource.struct_rusage:
    """Do something in a process that is forked from this one, and return what it took. RuntimeError where it fails."""
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            act()
            code = 0
        finally:
            if code:
                traceback.print_exc()
            os._exit(code)
    _, status, usage = os.wait4(pid, 0)
    if status:
        raise RuntimeError(f"a process ended with {os.waitstatus_to_exitcode(status)}")
    return usage


def planned(case: Path, scratch: Path) -> dict[str, Any]:
    """The price of a run from an empty store by a process with an empty cache, and what each unit has to do."""
    shutil.rmtree(scratch, ignore_errors=True)
    record_path = scratch.with_suffix(".said.json")

    def say() -> None:
        os.environ["RESIDUA_CACHE"] = str(scratch / "cache")
        prepared = prepare(case, scratch / "run", RunSettings(device="cpu", threads=1, store=scratch / "store"))
        prices = prepared.pricer.prices(prepared.planner)
        times, small = prepared.pricer.times, small_seconds()
        units = [
            {"unit": price.unit, "seconds": price.seconds.ends, "work": Workload.of(price.cost, times, small),
             "bytes": (price.least_bytes, price.peak_bytes), **price.cost.model_dump(mode="json")}
            for price in prices.units
        ]  # fmt: skip
        document = {"units": units, "bytes": (prices.least_bytes, prices.peak_bytes)}
        write_atomic(record_path, json.dumps(document).encode())

    forked(say)
    return json.loads(record_path.read_bytes())


def took(case: Path, scratch: Path) -> dict[str, Any]:
    """What a run from an empty store takes; kept, since it does not depend on what the plan said."""
    record_path = scratch.with_suffix(".took.json")
    if not record_path.is_file():
        shutil.rmtree(scratch, ignore_errors=True)

        def act() -> None:
            os.environ["RESIDUA_CACHE"] = str(scratch / "cache")
            settings = RunSettings(device="cpu", threads=1, store=scratch / "store")
            run(case, scratch / "run", settings)

        usage = forked(act)
        record = {"peak_mb": usage.ru_maxrss / 1024, "units": unit_seconds(scratch / "cache")}
        write_atomic(record_path, json.dumps(record).encode())
        shutil.rmtree(scratch)
    return json.loads(record_path.read_bytes())


def priced(world: PriceWorld, work: Path) -> PricedCase:
    """One world: its plan and its run."""
    folder = folder_of(world, work)
    forked(lambda: write_world(world, folder))
    spent = took(folder / "case.toml", folder / "spent")
    price = planned(folder / "case.toml", folder / "planned")
    units = tuple(
        PricedUnit(
            unit=unit["unit"], lo_s=round(unit["seconds"][0], 3), hi_s=round(unit["seconds"][1], 3),
            took_s=spent["units"].get(unit["unit"]), fwd_tokens=unit["fwd_tokens"], bwd_tokens=unit["bwd_tokens"],
            steps=unit["steps"],
        )
        for unit in price["units"] if unit["unit"] != START_UNIT
    )  # fmt: skip
    lo_mb, hi_mb = (round(size / 1e6, 1) for size in price["bytes"])
    return PricedCase(
        name=world.name, lo_s=round(sum(u.lo_s for u in units), 2), hi_s=round(sum(u.hi_s for u in units), 2),
        took_s=round(sum(u.took_s or 0.0 for u in units), 2), lo_mb=lo_mb, hi_mb=hi_mb,
        took_mb=round(spent["peak_mb"] * 1.048576, 1), units=units,
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
def fitted_costs(worlds: Sequence[PriceWorld], more: Sequence[Path], work: Path) -> UnitCosts:
    """Factors fitted on worlds, and on further cases; a run of each is made, or taken from where it was kept."""
    cases = [(folder_of(world, work) / "case.toml", folder_of(world, work)) for world in worlds]
    for world in worlds:
        forked(lambda world=world: write_world(world, folder_of(world, work)))
    cases += [(case, work / f"further-{n}") for n, case in enumerate(more)]
    observed = list[Observed]()
    for case, folder in cases:
        folder.mkdir(parents=True, exist_ok=True)
        units, stated = took(case, folder / "spent")["units"], planned(case, folder / "planned")["units"]
        observed += [Observed(u["unit"], Workload(*u["work"]), units[u["unit"]]) for u in stated if u["unit"] in units]
    return fit_unit_costs(observed)


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
    torch.set_num_threads(1)
    if args.fit is not None:
        costs = fitted_costs(FITTED, args.fit, args.work.resolve())
        write_atomic(UNIT_COSTS, (costs.model_dump_json(indent=1) + "\n").encode())
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
