"""A plan with its prices, as the command line shows it."""

from pathlib import Path

from rich.table import Table

from audit.answer import Answer, JsonValue
from audit.planning import Price, Prices
from audit.schema import ExitCode, Plan
from audit.wording import lasting, told_bytes

OUTPUTS = (
    "plan.json", "report.json", "report.html", "report.md", "junit.xml", "manifest.sha256", "custody.jsonl",
    "events.jsonl", "units/", "tables/",
)  # fmt: skip
SOURCES = {
    "recorded": "recorded on this machine",
    "benchmark": "from a short benchmark of base",
}


def priced(plan: Plan, prices: Prices, out: Path) -> Answer:
    """The plan: inputs, tests with their prices, what will not run and why, totals, and what would be written."""
    running = [test for test in plan.tests if test.will_run]
    whole = f"{lasting(*prices.seconds)}, {_source(prices)}; memory about {told_bytes(prices.peak_bytes)} at most"
    lines = [f"input {role}: {fingerprint[:12]}" for role, fingerprint in plan.fingerprints.items()]
    lines += [f"input {cohort}: {sha256[:12]}" for cohort, sha256 in plan.data_sha256.items()]
    lines += [f"will not run: {test.probe}: {test.reason}" for test in plan.tests if not test.will_run]
    lines += [
        f"from an empty store: {whole}",
        f"plan {plan.plan_hash[:12]}, to be written to {out}: {', '.join(OUTPUTS)}",
    ]
    lo, hi = prices.seconds
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


def _source(prices: Prices) -> str:
    return " and ".join(
        words for source, words in SOURCES.items() if source in {price.source for price in prices.units}
    )


def _unit(price: Price) -> dict[str, JsonValue]:
    return {
        "unit": price.unit, **price.cost.model_dump(mode="json"), "peak_bytes": price.peak_bytes,
        "seconds": list[JsonValue](price.seconds), "source": price.source,
    }  # fmt: skip


def _table(plan: Plan, prices: Prices) -> Table:
    table = Table(title=f"plan of {plan.case.name}")
    for heading in ("unit", "tokens forward", "backward", "steps", "models held", "memory", "time"):
        table.add_column(heading)
    for price in prices.units:
        cost = price.cost
        most = "" if cost.kind == "exact" else "at most "
        counts = (f"{most}{cost.fwd_tokens:,}", f"{most if cost.bwd_tokens else ''}{cost.bwd_tokens:,}")
        held = (f"{cost.steps:,}", str(cost.resident), told_bytes(price.peak_bytes), lasting(*price.seconds))
        table.add_row(price.unit, *counts, *held)
    return table
