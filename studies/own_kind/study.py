"""Do the counted errors of a calibration of the case's own kind hold on fresh models of several architectures?

``python -m studies.own_kind.study --data DIR --work DIR`` makes each kind's case, calibrates it on its own kind, makes
the suspects of :mod:`studies.own_kind.kept_out`, audits each once, and judges each audit three ways: by its own case
alone, by the zoo's calibration outside its domain, and by the calibration of its own kind. What is finished is kept:
a killed study goes on. ``results.json`` and the README's tables hold every kind that is done.
"""

import argparse
import json
import logging
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

import torch

from audit.bench import Bench
from audit.calibration import Bound, InstalledBehaviours, ProbeIdentity, find_own, read_library, stored, zoo_floors
from audit.case import CaseFile
from audit.engine import Run, domain_of, prepare
from audit.judging import ApplicableCalibrations, decide, given, judge, stand
from audit.planning import Dropped, RunSettings, configured, unwatched
from audit.pools import OwnRequest, calibrate_own, own_tests, prepare_own
from audit.probing import behaviour_of, recall
from audit.schema import AuditError, Missing, Report, Source, Verdict
from audit.storage import write_atomic
from studies.own_kind import counts
from studies.own_kind.kept_out import SUSPECTS, KeptOut, Workshop, make, recalled, workshop
from studies.own_kind.kinds_taught import KindCase, made_case, taught_suspect
from studies.pages import with_section
from studies.provenance import stamp

HERE = Path(__file__).parent
RESULTS, README = HERE / "results.json", HERE / "README.md"
WORLDS: Final = 19
SETTINGS: Final = RunSettings(threads=1)
log = logging.getLogger(__name__)


class ThreeVerdicts(NamedTuple):
    """What the three ways say of one suspect."""

    in_case: Verdict
    zoo: Verdict
    own: Verdict


# ---- one kind ---------------------------------------------------------------------------------------------------
def calibrated(kind_case: KindCase, worlds: int) -> dict[str, object]:
    """Calibrate a kind's case on its own kind, unless that is sealed; what it cost, and what was counted."""
    request, file = OwnRequest(worlds=worlds), CaseFile.read_unedited(kind_case.case)
    prepared, since = prepare_own(file, request, SETTINGS), time.process_time()
    renewed = calibrate_own(prepared, request, unwatched, f"residua calibrate --on {kind_case.case.name}")
    record = renewed.fitted.joint.record
    return {
        "worlds": renewed.worlds, "people": prepared.plan.people, "questions": prepared.plan.questions,
        "cpu_s_of_this_call": round(time.process_time() - since, 1), "stages_cpu_s": renewed.stages_cpu_s,
        "planned_seconds_a_world": list(prepared.plan.seconds.ends),
        "joint": {
            "false_alarms": record.false_alarms.model_dump(), "misses": record.misses.model_dump(),
            "exceptions": list(record.exceptions),
            "counted": [counted.model_dump() for counted in record.counted],
        },
        "left_out": list(renewed.fitted.left_out),
    }  # fmt: skip


def suspects(kind_case: KindCase, bench: Bench) -> dict[str, object]:
    """Make every suspect of a kind, audit it and judge it; a row each, and why some could not be made."""
    shop = workshop(kind_case, bench)
    rows, left_out = list[dict[str, object]](), dict[str, str]()
    for suspect in SUSPECTS:
        try:
            path = taught_suspect(kind_case, suspect.name) if suspect.parent == "ancestor" else make(shop, suspect)
        except AuditError as error:
            left_out[suspect.name] = f"{error.what}"
            log.info("%s, %s: left out: %s", kind_case.name, suspect.name, error.what)
            continue
        rows.append(_row(kind_case, suspect, path, shop))
        log.info("%s, %s (%s): %s", kind_case.name, suspect.name, suspect.truth, rows[-1]["words"])
    return {"suspects": rows, "not_made": left_out}


def _row(kind_case: KindCase, suspect: KeptOut, path: Path, shop: Workshop) -> dict[str, object]:
    stored_row = kind_case.folder / "rows" / f"{suspect.name}.json"
    if stored_row.is_file():
        return json.loads(stored_row.read_bytes())
    since = time.process_time()
    judged = judge_three_ways(kind_case, suspect.name, path, shop.bench)
    own, ratio = judged.own, judged.own.ratio
    row: dict[str, object] = {
        "name": suspect.name, "truth": suspect.truth, "fresh": suspect.fresh,
        "recall": round(recalled(shop, shop.model(suspect.name)), 4),
        "words": {way: verdict.word for way, verdict in judged._asdict().items()},
        "own_ratio": None if isinstance(ratio, Missing) else [ratio.value, ratio.ci95.lo, ratio.ci95.hi],
        "own_basis": own.basis, "own_sentence": own.sentence, "cpu_s": round(time.process_time() - since, 1),
    }  # fmt: skip
    stored_row.parent.mkdir(exist_ok=True)
    write_atomic(stored_row, json.dumps(row).encode())
    return row


def judge_three_ways(kind_case: KindCase, name: str, path: Path, bench: Bench) -> ThreeVerdicts:
    """One audit by the tests that decoy worlds are scored by, judged three ways."""
    read = CaseFile.read_unedited(kind_case.case)
    roles = read.case.roles.model_copy(update={"suspect": Source(path=str(path.resolve()))})
    case = CaseFile(read.case.model_copy(update={"roles": roles}), read.root)
    settings = RunSettings(threads=1, calibrations=kind_case.folder / "none")
    prepared = prepare(case, kind_case.folder / "audits" / name, settings, bench)
    others = {n: Dropped("study", "decoy worlds are not scored by it") for n in configured({}, settings.package)}
    absent = {n: dropped for n, dropped in others.items() if n not in own_tests([])}
    prepared = prepared._replace(planner=prepared.planner.without(absent))
    domain = domain_of(prepared.case, recall(bench, prepared.case))
    report: Report = Run(prepared, settings, unwatched).report()
    if report.failures:
        raise AuditError(f"{kind_case.name}, {name}: {report.failures[0].error}", "read run.log in its audit's folder")
    ran = {p.name: ProbeIdentity(p.probe.version, p.probe.model_dump(mode="json")) for p in prepared.planner.running}
    evidence = tuple(judge(e.measurement, zoo_floors()) for e in report.evidence)
    who, moved = given(case.case), InstalledBehaviours(settings.package, behaviour_of).moved
    shelf = read_library(stored())
    outside = {probe: shelf.calibrations[probe] for probe in ran if probe in shelf.calibrations}
    base = prepared.case.base.model_copy(update={"vocabulary": None})
    calibration = find_own(read.root, Bound.of(base.key, case.case.template))
    if calibration is None or calibration.refused:
        raise AuditError(f"{kind_case.name} has no calibration of its own kind", "calibrate first")
    own = stand(calibration.path, ran, domain, moved)
    in_case = stand(kind_case.folder / "none", ran, domain, moved)
    ways = (in_case, ApplicableCalibrations(shelf, outside, ()), own)
    return ThreeVerdicts(*(decide(evidence, who, way)[1] for way in ways))


def study(name: str, data: Path, work: Path, worlds: int) -> dict[str, object]:
    """One kind from nothing to its rows."""
    started, spent = time.monotonic(), time.process_time()
    kind_case = made_case(name, data, work / name)
    calibration = calibrated(kind_case, worlds)
    log.info("%s: calibrated on %s worlds: %s", name, calibration["worlds"], calibration["stages_cpu_s"])
    suspect_rows = suspects(kind_case, Bench())
    return {
        "stamp": stamp(seed=0).model_dump(mode="json"), "calibration": calibration, **suspect_rows,
        "cpu_s_of_this_call": round(time.process_time() - spent, 1),
        "wall_s_of_this_call": round(time.monotonic() - started, 1),
    }  # fmt: skip


def main(words: Sequence[str] | None = None) -> int:
    """Study the kinds asked for, and write the results and the README's tables of all that are done."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with tofu/, text/, models/")
    parser.add_argument("--work", type=Path, default=Path("runs/own_kind"), help="where models and audits are kept")
    parser.add_argument("--kinds", nargs="*", default=["neox", "qwen3", "gemma2", "stories"])
    parser.add_argument("--worlds", type=int, default=WORLDS, help="decoy worlds a kind")
    parser.add_argument("--out", type=Path, default=RESULTS)
    args = parser.parse_args(words)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    logging.getLogger("audit").setLevel(logging.WARNING)
    torch.set_num_threads(1)
    for name in args.kinds:
        row = study(name, args.data, args.work, args.worlds)
        results: dict[str, Any] = json.loads(args.out.read_bytes()) if args.out.is_file() else {"kinds": {}}
        results["kinds"][name] = row
        results["counts"] = counts.of_all(results["kinds"])
        results["coverage"] = counts.coverage()
        write_atomic(args.out, (json.dumps(results, indent=1, sort_keys=True) + "\n").encode())
    page = with_section(README.read_text(encoding="utf-8"), counts.markdown(json.loads(args.out.read_bytes())))
    if args.out == RESULTS:
        README.write_text(page, encoding="utf-8")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
