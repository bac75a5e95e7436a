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

from audit.demonstration import Audited, World, demonstrate
from audit.engine import How
from audit.findings import Evidence, Missing
from audit.render.progress import Progress
from audit.store import write_atomic
from studies.provenance import stamp
from studies.zoo.build import build, cache_root
from studies.zoo.recall import recall

log = logging.getLogger(__name__)

EXPECTED = {
    "base": ("INTACT",),
    "reference_0": ("CONSISTENT WITH NEVER TRAINED",),
    "last_layer": ("SUPPRESSED",),
    "head_edit": ("SUPPRESSED",),
    "refusal": ("SUPPRESSED", "PARTIAL"),
    "destroyed": ("INVALID",),
    "other_init": ("INCONCLUSIVE",),
}
"""What is known of a suspect by how it was made. Of the other suspects nothing is known: whatever the evidence says."""


def finding(evidence: Evidence) -> dict[str, object]:
    """One piece of evidence in a line."""
    m = evidence.measurement
    numbers = {"value": m.value, "p": m.p, "p_below": m.p_below, "floor": m.floor}
    kept = {key: found if isinstance(found, Missing) else round(found, 4) for key, found in numbers.items()}
    shown = {key: found.missing if isinstance(found, Missing) else found for key, found in kept.items()}
    ci95 = None if isinstance(m.ci95, Missing) else [round(m.ci95.lo, 4), round(m.ci95.hi, 4)]
    return {"name": f"{m.probe}.{m.name}", "kind": m.kind, **shown, "ci95": ci95, "outcome": evidence.outcome}


def verdicts(audits: Sequence[Audited]) -> dict[str, dict[str, object]]:
    """Of every suspect: the verdict, whether it is what is known, and the findings behind it."""
    found: dict[str, dict[str, object]] = {}
    for name, _out, report in audits:
        known = EXPECTED.get(name)
        found[name] = {
            "verdict": report.verdict.word,
            "as_known": None if known is None else report.verdict.word in known,
            "because": list(report.verdict.because),
            "evidence": [finding(evidence) for evidence in report.evidence],
            "skips": [f"{skip.probe}: {skip.reason}" for skip in report.skips],
            "failures": [f"{failure.probe}: {failure.error}" for failure in report.failures],
        }
    return found


def cpu_s() -> float:
    """CPU-seconds of this process and its finished children."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(u.ru_utime + u.ru_stime for u in used)


def one_seed(seed: int, out: Path, workers: int) -> dict[str, object]:
    """Make one world, audit all of it, and say what came out."""
    started = cpu_s()
    built = build("demo", seed, workers=workers)
    trained = cpu_s()
    known = {name: found._asdict() for name, found in recall(built).items()}
    recalled = cpu_s()
    how = How(threads=1, demo=True)
    with Progress(quiet=True) as progress:
        audits = demonstrate(World("demo", seed, cache_root(), workers), out, how, progress)
    found = verdicts(audits)
    for name, row in found.items():
        log.info("seed %d %-13s %s%s", seed, name, row["verdict"], "" if row["as_known"] is not False else "  <- WRONG")
    spent = {"training_cpu_s": round(trained - started, 1), "audits_cpu_s": round(cpu_s() - recalled, 1)}
    return {"seed": seed, **spent, "audits": found, "recall": _rounded(known)}


def _rounded(table: object) -> object:
    if isinstance(table, dict):
        return {str(key): _rounded(value) for key, value in table.items()}
    return round(table, 3) if isinstance(table, float) else table


def main() -> None:
    """Audit every seed's world and write results.json."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    parser.add_argument("--work", type=Path, default=Path("runs/zoo"), help="where the audits are kept")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results.json")
    args = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    logging.getLogger("audit").setLevel(logging.WARNING)
    started = time.monotonic()
    seeds = [one_seed(seed, args.work, args.workers) for seed in args.seeds]
    wrong = [
        f"{row['seed']}/{name}" for row in seeds for name, audit in row["audits"].items() if audit["as_known"] is False
    ]
    results = {
        "stamp": stamp(seed=args.seeds[0]).model_dump(mode="json"), "wall_s": round(time.monotonic() - started),
        "known_suspects_come_out_right": not wrong, "wrong": wrong, "seeds": seeds,
    }  # fmt: skip
    write_atomic(args.out, (json.dumps(results, indent=1, sort_keys=True) + "\n").encode())


if __name__ == "__main__":
    main()
