"""Are 2, 10 or 20 authors of TOFU enough for an audit?

``python -m studies.tofu_small.study --data DIR`` teaches stories260K what is not under ``--work`` yet, audits six
suspects of forget01, forget05 and forget10 by the engine, and writes results.json and the table of the page. ``DIR``
holds tofu/, text/ and models/stories260K-hf. Where a plan would refuse, the reason is the result.
"""

import argparse
import json
import logging
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from audit.bench import Bench
from audit.engine import Run, prepare
from audit.planning import RunSettings, unwatched
from audit.pools import MemoryStore
from audit.schema import AuditError, Evidence, Interval, Missing, Report
from audit.storage import write_atomic
from audit.zoo import one_thread
from studies.pages import with_section
from studies.provenance import stamp
from studies.tofu_small.models import SPLITS, SUSPECTS, Sizes, Workshop, case_of, write_data

HERE = Path(__file__).parent
RESULTS, README = HERE / "results.json", HERE / "README.md"
START, END = "<!-- verdicts: made by studies.tofu_small.study -->", "<!-- end of verdicts -->"
READ = ("probability", "depth_profile_all", "lens_lift", "shared_direction", "recall_of_others", "retain", "general")
REASONS = 2
"""How many reasons the page gives where nothing is decided; the results hold all."""
log = logging.getLogger(__name__)


def audit(split: str, suspect: str, work: Path, bench: Bench) -> dict[str, Any]:
    """One suspect by all probes: the verdict, or why there is none."""
    since = time.process_time()
    case, out = case_of(split, suspect, work), work / "audits" / f"{split}-{suspect}"
    settings = RunSettings(threads=1, store=work / "store", force_new=True)
    record: dict[str, Any] = {"split": split, "suspect": suspect, "authors": len(SPLITS[split])}
    try:
        prepared = prepare(case, out, settings, bench)
        if cannot := prepared.planner.undecidable:
            return record | {"verdict": "REFUSED", "because": [cannot]}
        report = Run(prepared, settings, unwatched).report()
    except AuditError as refused:
        return record | {"verdict": "REFUSED", "because": [refused.what]}
    return record | _told(report) | {"cpu_s": round(time.process_time() - since, 1)}


def _told(report: Report) -> dict[str, Any]:
    tests = {e.measurement.name: _test(e) for e in report.evidence if e.measurement.name in READ}
    verdict = report.verdict
    skipped = {skip.probe: skip.reason for skip in report.skips}
    return {"verdict": verdict.word, "sentence": verdict.sentence, "because": list(verdict.because),
            "strength": verdict.strength, "tests": tests, "skipped": skipped}  # fmt: skip


def _test(evidence: Evidence) -> dict[str, Any]:
    m = evidence.measurement

    def plain(x: float | Missing) -> float | str:
        return x.missing if isinstance(x, Missing) else round(x, 4)

    bound = [round(m.bound.lo, 4), round(m.bound.hi, 4)] if isinstance(m.bound, Interval) else m.bound.missing
    return {"value": plain(m.value), "p": plain(m.p), "bound": bound, "people": m.units, "status": evidence.status}


# ---- the page ---------------------------------------------------------------------------------------------------
def tables(audits: Sequence[dict[str, Any]]) -> str:
    """The page's table, from the results alone."""
    lines = [START, "| split | authors | suspect | verdict | outputs | reverse patch | answer lens | relearning |"
             " retained, general |", "|---|---|---|---|---|---|---|---|---|"]  # fmt: skip
    for record in audits:
        tests = record.get("tests", {})
        cells = [_cell(tests.get(name)) for name in READ[:3]] + [_cell(tests.get("recall_of_others"))]
        gates = ", ".join(_number(tests.get(name, {}).get("value")) for name in ("retain", "general"))
        row = [record["split"], str(record["authors"]), record["suspect"], record["verdict"], *cells, gates]
        lines.append(f"| {' | '.join(row)} |")
    undecided: dict[str, list[str]] = {}
    for record in audits:
        if record["verdict"] in ("REFUSED", "INCONCLUSIVE"):
            undecided.setdefault("; ".join(record["because"][:REASONS]), []).append(
                f"{record['split']} {record['suspect']}"
            )
    reasons = [f"- {', '.join(who)}: {reason}" for reason, who in undecided.items()]
    return "\n".join([*lines, "", "Where nothing is decided, and why:", "", *(reasons or ["- nowhere"]), END])


def _number(value: object) -> str:
    return f"{value:.2f}" if isinstance(value, float) else "–"


def _cell(test: dict[str, Any] | None) -> str:
    if test is None or not isinstance(test["value"], float):
        return "–"
    return f"{test['value']:.2f}" + (f", p {test['p']:.2g}" if isinstance(test["p"], float) else "")


def study(data: Path, work: Path, sizes: Sizes, splits: Sequence[str]) -> list[dict[str, Any]]:
    """Make the models that are missing, and audit every suspect of these splits."""
    write_data(data, work, sizes)
    audits: list[dict[str, Any]] = []
    with one_thread():
        workshop = Workshop(data, work, sizes)
        workshop.references()
        for split in splits:
            since = time.process_time()
            workshop.of_split(split)
            log.info("%s: models are there, %.0f CPU-s", split, time.process_time() - since)
            bench = Bench(store=MemoryStore(work / "store"))
            for suspect in SUSPECTS:
                audits.append(audit(split, suspect, work, bench))
                log.info("%-9s %-10s %s", split, suspect, audits[-1]["verdict"])
    return audits


def main(words: Sequence[str] | None = None) -> int:
    """Teach, audit, and write the results and the page's table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with tofu/, text/, models/")
    parser.add_argument("--work", type=Path, default=Path("runs/tofu_small"), help="where models and runs are kept")
    parser.add_argument("--splits", nargs="+", choices=list(SPLITS), default=list(SPLITS))
    parser.add_argument("--out", type=Path, default=RESULTS)
    args = parser.parse_args(words)
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    log.setLevel(logging.INFO)
    since = time.process_time()
    audits = study(args.data.resolve(), args.work.resolve(), Sizes(), args.splits)
    results = {
        "stamp": stamp(seed=0).model_dump(mode="json"), "cpu_s": round(time.process_time() - since), "audits": audits,
    }  # fmt: skip
    write_atomic(args.out, (json.dumps(results, indent=1, sort_keys=True) + "\n").encode())
    if args.out == RESULTS:
        README.write_text(with_section(README.read_text(encoding="utf-8"), tables(audits)), encoding="utf-8")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
