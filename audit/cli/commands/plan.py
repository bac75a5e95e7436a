"""Say what would be done and what it costs (run --dry-run)."""

from argparse import ArgumentParser, Namespace
from pathlib import Path
from typing import TYPE_CHECKING

from audit.cli import flags
from audit.cli.answer import Answer, JsonValue
from audit.runs import run_files

if TYPE_CHECKING:
    from rich.table import Table

    from audit.case import CaseFile
    from audit.planning import Planner, Price, Prices, RunSettings
    from audit.schema import Plan

ORDER = 30
OUTPUTS = (
    run_files.PLAN, run_files.REPORT, run_files.PAGE, run_files.MARKDOWN, run_files.JUNIT, run_files.MANIFEST,
    run_files.CUSTODY, run_files.EVENTS, f"{run_files.UNITS}/", f"{run_files.TABLES}/",
)  # fmt: skip
SOURCES = {
    "recorded": "recorded on this machine",
    "benchmark": "from a short benchmark of base",
    "arithmetic": "from this device's speed at a matrix product",
}


def add_arguments(parser: ArgumentParser) -> None:
    """Which case, how, and within which limits."""
    flags.add_case(parser)
    flags.add_settings(parser)
    flags.add_limits(parser)
    parser.add_argument("--config-only", action="store_true", help="price it from the models' configs alone, before "
                        "their weights are there")  # fmt: skip


def act(args: Namespace) -> Answer:
    """What would be done, what it costs, and what will not run and why. Writes nothing."""
    from audit.case import CaseFile

    case_file = CaseFile.read(Path(args.case))
    out, settings = flags.out_folder(args, case_file.case.name), flags.settings(args)
    with flags.progress(args) as progress:
        progress.say(f"opening {args.case}")
        return shown(case_file, out, settings, args.config_only)


def shown(case_file: "CaseFile", out: Path, settings: "RunSettings", config_only: bool = False) -> Answer:
    """The plan of a case with its prices; nothing is written."""
    from audit.engine import prepare, sketch

    prepared = (sketch if config_only else prepare)(case_file, out, settings)
    planner = prepared.planner
    return _priced(planner, prepared.pricer.prices(planner), out, prepared.case.replicate.of_images)


def _priced(planner: "Planner", prices: "Prices", out: Path, of_images: bool) -> Answer:
    """The plan: inputs, tests with their prices, what will not run and why, what cannot be decided with so few groups,
    totals, and what would be written."""
    from audit.schema import ExitCode
    from audit.wording import lasting

    plan, undecidable = planner.plan, planner.undecidable
    running = [test for test in plan.tests if test.will_run]
    total = f"{lasting(*prices.seconds.ends)}, {_source(prices)}; {_memory(prices)}"
    lines = [f"input {role}: {fingerprint[:12]}" for role, fingerprint in plan.fingerprints.items()]
    lines += [f"input {cohort}: {sha256[:12]}" for cohort, sha256 in plan.data_sha256.items()]
    lines += [f"data {note}" for note in plan.notes]
    lines += [f"will not run: {test.probe}: {test.reason}" for test in plan.tests if not test.will_run]
    short = dict.fromkeys(test.undecidable for test in plan.tests if test.undecidable)
    for reason in short:
        probes = ", ".join(test.probe for test in plan.tests if test.undecidable == reason)
        lines.append(f"cannot decide: {probes}: {reason}")
    lines += [f"models: {note}" for note in prices.notes]
    lines += [f"NOTHING CAN BE DECIDED of what is left: {undecidable}"] if undecidable else []
    lines += [
        f"from an empty store: {total}",
        f"plan {plan.plan_hash[:12]}, to be written to {out}: {', '.join(OUTPUTS)}",
    ]
    lo, hi = prices.seconds.ends
    document: dict[str, JsonValue] = {
        **plan.model_dump(mode="json"), "out": str(out),
        "outputs": list[JsonValue](str(out / name) for name in OUTPUTS),
        "price": {
            "seconds": [lo, hi], "source": _source(prices), "peak_bytes": prices.peak_bytes,
            "least_bytes": prices.least_bytes,
            "fwd_tokens": sum(price.cost.fwd_tokens for price in prices.units),
            "bwd_tokens": sum(price.cost.bwd_tokens for price in prices.units),
            "notes": list[JsonValue](prices.notes),
            "units": [_unit(price) for price in prices.units],
        },
    }  # fmt: skip
    return Answer(
        document,
        (_table(plan, prices, of_images), *lines),
        ExitCode.OK if running and not undecidable else ExitCode.UNDECIDED,
    )


def _memory(prices: "Prices") -> str:
    from audit.wording import told_bytes

    return f"memory {told_bytes(prices.least_bytes)} to {told_bytes(prices.peak_bytes)}"


def _source(prices: "Prices") -> str:
    return " and ".join(
        words for source, words in SOURCES.items() if source in {price.source for price in prices.units}
    )


def _unit(price: "Price") -> dict[str, JsonValue]:
    return {
        "unit": price.unit, **price.cost.model_dump(mode="json"), "peak_bytes": price.peak_bytes,
        "seconds": list[JsonValue](price.seconds.ends), "source": price.source,
    }  # fmt: skip


def _table(plan: "Plan", prices: "Prices", of_images: bool) -> "Table":
    from rich.table import Table

    from audit.wording import lasting, told_bytes

    table = Table(title=f"plan of {plan.case.name}")
    read = "patches" if of_images else "tokens"
    for heading in ("unit", f"{read} forward", "backward", "steps", "models held", "memory", "time"):
        table.add_column(heading)
    for price in prices.units:
        cost = price.cost
        bound = "" if cost.kind == "exact" else "at most "
        counts = (f"{bound}{cost.fwd_tokens:,}", f"{bound if cost.bwd_tokens else ''}{cost.bwd_tokens:,}")
        held = (f"{cost.steps:,}", str(cost.resident), told_bytes(price.peak_bytes), lasting(*price.seconds.ends))
        table.add_row(price.unit, *counts, *held)
    return table
