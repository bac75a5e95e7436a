"""Does the demo's table come out right on other worlds than the first?

``python -m studies.zoo.study`` makes the demo's zoo for five seeds, audits every suspect of each with the demo's own
code, and writes results.json here: verdicts, every measurement behind them, and what each model recalls.
"""

import argparse
import json
import logging
import resource
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from audit.cli import Audited, Progress, World, demonstrate
from audit.planning import RunSettings
from audit.schema import Evidence, Missing
from audit.storage import cache_root, write_atomic
from audit.zoo import build
from studies.provenance import stamp
from studies.zoo.recall import Recall, recall

log = logging.getLogger(__name__)

EXPECTED = {
    "base": ("INTACT",),
    "reference_0": ("CONSISTENT WITH NEVER TRAINED",),
    "last_layer": ("SUPPRESSED",),
    "head_edit": ("SUPPRESSED",),
    "refusal": ("SUPPRESSED", "PARTIAL"),
    "destroyed": ("INVALID",),
    "other_init": ("CONSISTENT WITH NEVER TRAINED", "INCONCLUSIVE"),
}
"""What is known of a suspect by how it was made. Of the other suspects nothing is known: whatever the evidence says."""


class Judged(NamedTuple):
    """One suspect of one world: the verdict, whether it is what is known (None: nothing is), and the findings."""

    verdict: str
    as_known: bool | None
    because: list[str]
    evidence: list[dict[str, object]]
    skips: list[str]
    failures: list[str]


class Seed(NamedTuple):
    """One world. Training takes no CPU-seconds where the models were cached."""

    seed: int
    training_cpu_s: float
    audits_cpu_s: float
    audits: dict[str, Judged]
    recall: dict[str, Recall]


def finding(evidence: Evidence) -> dict[str, object]:
    """One piece of evidence in a line."""
    m = evidence.measurement
    numbers = {"value": m.value, "p": m.p, "p_below": m.p_below, "floor": m.floor}
    shown = {key: number.missing if isinstance(number, Missing) else number for key, number in numbers.items()}
    ci95 = None if isinstance(m.ci95, Missing) else [m.ci95.lo, m.ci95.hi]
    overall = None if isinstance(m.overall, Missing) else m.overall.model_dump(mode="json")
    judgement = {"outcome": evidence.outcome, "direction": evidence.direction}
    return {"name": f"{m.probe}.{m.name}", "kind": m.kind, **shown, "ci95": ci95, "overall": overall, **judgement}


def judged(audit: Audited) -> Judged:
    """What came out of one audit."""
    report, known = audit.report, EXPECTED.get(audit.name)
    return Judged(
        verdict=report.verdict.word,
        as_known=None if known is None else report.verdict.word in known,
        because=list(report.verdict.because),
        evidence=[finding(evidence) for evidence in report.evidence],
        skips=[f"{skip.probe}: {skip.reason}" for skip in report.skips],
        failures=[f"{failure.probe}: {failure.error}" for failure in report.failures],
    )


def cpu_s() -> float:
    """CPU-seconds of this process and its finished children."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(u.ru_utime + u.ru_stime for u in used)


def one_seed(seed: int, out: Path, workers: int) -> Seed:
    """Make one world, audit all of it, and say what came out."""
    started = cpu_s()
    built = build("demo", seed, workers=workers)
    trained = cpu_s()
    known = recall(built)
    recalled = cpu_s()
    settings = RunSettings(threads=1, demo=True)
    with Progress(quiet=True) as progress:
        audits = demonstrate(World("demo", seed, cache_root(), workers), out, settings, progress)
    suspects = {audit.name: judged(audit) for audit in audits}
    for name, suspect in suspects.items():
        log.info(
            "seed %d %-13s %s%s", seed, name, suspect.verdict, "  <- not as known" if suspect.as_known is False else ""
        )
    return Seed(seed, trained - started, cpu_s() - recalled, suspects, known)


def floors(seeds: Sequence[Seed]) -> dict[str, float]:
    """The largest floor of every test that may find a trace, over all worlds: for cases that can measure none."""
    by_test: dict[str, list[float]] = {}
    for evidence in (e for seed in seeds for audit in seed.audits.values() for e in audit.evidence):
        if evidence["kind"] in ("causal", "decoding") and isinstance(evidence["floor"], float):
            by_test.setdefault(str(evidence["name"]), []).append(evidence["floor"])
    return {name: round(max(values), 4) for name, values in sorted(by_test.items())}


def plain(part: object) -> object:
    """Named tuples as JSON objects, numbers to four decimals."""
    if isinstance(part, Seed | Judged | Recall):
        part = part._asdict()
    if isinstance(part, dict):
        return {str(key): plain(value) for key, value in part.items()}
    if isinstance(part, list):
        return [plain(value) for value in part]
    return round(part, 4) if isinstance(part, float) else part


def main() -> None:
    """Audit every seed's world and write results.json."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    parser.add_argument("--work", type=Path, default=Path("runs/zoo"), help="where the audits are kept")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results.json")
    parser.add_argument(
        "--floors", type=Path, help="also write the largest floors here (probes/calibrations/causal_lm/floors.json)"
    )
    args = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    logging.getLogger("audit").setLevel(logging.WARNING)
    started = time.monotonic()
    seeds = [one_seed(seed, args.work, args.workers) for seed in args.seeds]
    wrong = [f"{s.seed}/{name}" for s in seeds for name, suspect in s.audits.items() if suspect.as_known is False]
    results = {
        "stamp": stamp(seed=args.seeds[0]).model_dump(mode="json"), "wall_s": round(time.monotonic() - started),
        "known_suspects_come_out_right": not wrong, "wrong": wrong, "seeds": plain(seeds),
    }  # fmt: skip
    write_atomic(args.out, (json.dumps(results, indent=1, sort_keys=True) + "\n").encode())
    if args.floors is not None:
        measured = {"worlds": len(seeds), "floors": floors(seeds)}
        write_atomic(args.floors, (json.dumps(measured, indent=1, sort_keys=True) + "\n").encode())


if __name__ == "__main__":
    main()
