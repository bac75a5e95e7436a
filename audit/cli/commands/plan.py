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
    from audit.planning import Price, Prices, RunSettings
    from audit.schema import Plan

ORDER = 30
OUTPUTS = (
    run_files.PLAN, run_files.REPORT, run_files.PAGE, run_files.MARKDOWN, run_files.JUNIT, run_files.MANIFEST,
    run_files.CUSTODY, run_files.EVENTS, f"{run_files.UNITS}/", f"{run_files.TABLES}/",
)  # fmt: skip
SOURCES = {
    "recorded": "recorded on this machine",
    "benchmark": "from a short benchmark of base",
}


def add_arguments(parser: ArgumentParser) -> None:
    """Which case, how, and within which limits."""
    flags.add_case(parser)
    flags.add_settings(parser)
    flags.add_limits(parser)


def act(args: Namespace) -> Answer:
    """What would be done, what it costs, and what will not run and why. Writes nothing."""
    from audit.case import CaseFile

    case_file = CaseFile.read(Path(args.case))
    out, settings = flags.out_folder(args, case_file.case.name), flags.settings(args)
    with flags.progress(args) as progress:
        progress.say(f"opening {args.case}")
        return shown(case_file, out, settings)


def shown(case_file: "CaseFile", out: Path, settings: "RunSettings") -> Answer:
    """The plan of a case with its prices; nothing is written."""
    from audit.engine import prepare

    prepared = prepare(case_file, out, settings)
    priced = _priced(prepared.planner.plan, prepared.pricer.prices(prepared.planner), out)
    notes = prepared.case.template_notes
    lines = (f"prompt template: {note}" for note in notes)
    return priced._replace(
        document={**priced.document, "template_notes": list[JsonValue](notes)}, shown=(*priced.shown, *lines)
    )


def _priced(plan: "Plan", prices: "Prices", out: Path) -> Answer:
    """The plan: inputs, tests with their prices, what will not run and why, totals, and what would be written."""
    from audit.schema import ExitCode
    from audit.wording import lasting, told_bytes

    running = [test for test in plan.tests if test.will_run]
    total = f"{lasting(*prices.seconds.ends)}, {_source(prices)}; memory about {told_bytes(prices.peak_bytes)} at most"
    lines = [f"input {role}: {fingerprint[:12]}" for role, fingerprint in plan.fingerprints.items()]
    lines += [f"input {cohort}: {sha256[:12]}" for cohort, sha256 in plan.data_sha256.items()]
    lines += [f"will not run: {test.probe}: {test.reason}" for test in plan.tests if not test.will_run]
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
            "fwd_tokens": sum(price.cost.fwd_tokens for price in prices.units),
            "bwd_tokens": sum(price.cost.bwd_tokens for price in prices.units),
            "units": [_unit(price) for price in prices.units],
        },
    }  # fmt: skip
    return Answer(document, (_table(plan, prices), *lines), ExitCode.OK if running else ExitCode.UNDECIDED)


def _source(prices: "Prices") -> str:
    return " and ".join(
        words for source, words in SOURCES.items() if source in {price.source for price in prices.units}
    )


def _unit(price: "Price") -> dict[str, JsonValue]:
    return {
        "unit": price.unit, **price.cost.model_dump(mode="json"), "peak_bytes": price.peak_bytes,
        "seconds": list[JsonValue](price.seconds.ends), "source": price.source,
    }  # fmt: skip


def _table(plan: "Plan", prices: "Prices") -> "Table":
    from rich.table import Table

    from audit.wording import lasting, told_bytes

    table = Table(title=f"plan of {plan.case.name}")
    for heading in ("unit", "tokens forward", "backward", "steps", "models held", "memory", "time"):
        table.add_column(heading)
    for price in prices.units:
        cost = price.cost
        bound = "" if cost.kind == "exact" else "at most "
        counts = (f"{bound}{cost.fwd_tokens:,}", f"{bound if cost.bwd_tokens else ''}{cost.bwd_tokens:,}")
        held = (f"{cost.steps:,}", str(cost.resident), told_bytes(price.peak_bytes), lasting(*price.seconds.ends))
        table.add_row(price.unit, *counts, *held)
    return table
