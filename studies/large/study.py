"""``python -m studies.large.study``: an audit of models that are larger than the memory they are given.

A small world of known truth is trained, each of its models put inside a large random one (:mod:`.widening`), and the
same case audited in two processes, one that holds the models whole and one that is given less memory than one of them
needs. Peak anonymous memory (RssAnon) is read from /proc while each runs.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from math import isfinite
from pathlib import Path
from typing import Any, Final

from audit.case import CaseFile, case_text
from audit.runs import read_report
from audit.schema import Report
from studies import provenance
from studies.large.widening import Sizes, widened

HERE: Final = Path(__file__).parent
RESULTS: Final = HERE / "results.json"
SIZES: Final = Sizes(times=16, blocks=24, units=8200)
GIVEN: Final = "600M"
LIMIT_BYTES: Final = 1_200_000_000
READING: Final = ("utility", "forget_likelihood", "answer_lens", "weight_difference")
CHANGING: Final = ("quantisation_recovery", "relearning_recovery")
"""What would round or train weights: asked of the models that are read from disk alone, where it must be skipped."""
PEOPLE: Final = 4
WITHIN: Final = 1e-5
"""How far two numbers of one audit may lie apart."""


# ---- compared ---------------------------------------------------------------------------------------------------
def numbers_of(report: Report) -> Mapping[str, float]:
    """Every number that the measurements of a report hold, by probe, measurement and place in it."""
    numbers: dict[str, float] = {}
    for evidence in report.evidence:
        measured = evidence.measurement
        _gather(measured.model_dump(mode="json"), f"{measured.probe} {measured.name}", numbers)
    return numbers


def _gather(value: object, where: str, numbers: dict[str, float]) -> None:
    if isinstance(value, bool) or value is None:
        return
    if isinstance(value, int | float):
        numbers[where] = float(value)
    elif isinstance(value, dict):
        for name, inner in value.items():
            _gather(inner, f"{where} {name}", numbers)
    elif isinstance(value, list):
        for n, inner in enumerate(value):
            _gather(inner, f"{where} {n}", numbers)


def largest_gap(first: Mapping[str, float], other: Mapping[str, float]) -> float:
    """The largest difference of the numbers that the second holds. KeyError where the first lacks one of them."""
    gaps = [abs(first[name] - value) for name, value in other.items() if isfinite(value) or first[name] != value]
    return max(gaps, default=0.0)


# ---- measured ---------------------------------------------------------------------------------------------------
class Watched:
    """Peak memory of a process, sampled from /proc every 20 ms while it runs."""

    def __init__(self, pid: int) -> None:
        self.pid, self.anonymous, self.mapped = pid, 0, 0
        self._thread = threading.Thread(target=self._sample, daemon=True)
        self._thread.start()

    def _sample(self) -> None:
        while True:
            try:
                lines = Path(f"/proc/{self.pid}/status").read_text().splitlines()
            except OSError:
                return
            sizes = {line.split(":")[0]: int(line.split()[1]) * 1024 for line in lines if line.startswith("Rss")}
            if not sizes:
                return
            self.anonymous = max(self.anonymous, sizes["RssAnon"])
            self.mapped = max(self.mapped, sizes["RssFile"])
            time.sleep(0.02)


def flags_of(*memory: str) -> list[str]:
    """What the command line is told to give a model so much memory; nothing where it may lie whole."""
    return ["--device-map", "auto", "--max-memory", *memory] if memory else []


def audited(case: Path, out: Path, package: Path, *memory: str) -> dict[str, Any]:
    """Run one audit in a process of its own; how long it took, and how much memory."""
    root = HERE.parents[1]
    words = [sys.executable, "-m", "studies.large.audited", str(case), str(out), package.name, *memory]
    paths = os.pathsep.join([str(root), str(package.parent)])
    before, started = os.times(), time.perf_counter()
    process = subprocess.Popen(words, cwd=root, env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": paths})
    watched = Watched(process.pid)
    if process.wait():
        raise SystemExit(f"{' '.join(words)} ended in {process.returncode}")
    after = os.times()
    cpu = after.children_user + after.children_system - before.children_user - before.children_system
    return {
        "flags": flags_of(*memory), "peak_anonymous_bytes": watched.anonymous, "peak_mapped_bytes": watched.mapped,
        "cpu_s": round(cpu, 1), "wall_s": round(time.perf_counter() - started, 1),
    }  # fmt: skip


# ---- made -------------------------------------------------------------------------------------------------------
def large_case(root: Path, sizes: Sizes, seed: int) -> tuple[Path, int]:
    """The case of the tiny world's refusing suspect with a few people, its models large; where it is, and the bytes of
    one model."""
    from audit.zoo import build

    built = build("tiny", seed)
    small = CaseFile.read(built.cases["refusal"])
    case, size = small.case, 0
    roles: dict[str, Any] = {"references": (), "ancestor": None}
    for role in ("base", "suspect"):
        source = getattr(case.roles, role)
        size = widened((small.root / source.path).resolve(), root / role, sizes, seed)
        roles[role] = source.model_copy(update={"path": role, "fingerprint": None})
    data: dict[str, Any] = {}
    for cohort in ("forget", "retain", "holdout"):
        lines = few_items((small.root / str(getattr(case.data, cohort))).read_text().splitlines())
        (root / f"{cohort}.jsonl").write_text("\n".join(lines) + "\n")
        data[cohort] = f"{cohort}.jsonl"
    update = {"name": "large", "roles": case.roles.model_copy(update=roles)}
    update["data"] = type(case.data).model_validate(data)
    path = root / "case.toml"
    path.write_text(case_text(case.model_copy(update=update)))
    return path, size


def few_items(lines: Sequence[str]) -> list[str]:
    """One item, as it was trained, of the first people, with one wrong answer of each kind."""
    first: dict[str, str] = {}
    for item in map(json.loads, lines):
        if item.get("form", "trained") == "trained" and item["group"] not in first and len(first) < PEOPLE:
            for name in ("perturbed_answers", "alternates", "alternate_keys"):
                item[name] = item[name][:1]
            first[item["group"]] = json.dumps(item)
    return list(first.values())


def probes_in(folder: Path, name: str, probes: Sequence[str]) -> Path:
    """A package of some of the probes."""
    package = folder / name
    package.mkdir()
    (package / "__init__.py").write_text('"""Some of the probes."""\n')
    for probe in probes:
        (package / f"{probe}.py").write_text((HERE.parents[1] / "probes" / f"{probe}.py").read_text())
    return package


def measured(folder: Path, sizes: Sizes, given: str, seed: int) -> dict[str, Any]:
    """Both audits, and what they say side by side."""
    (folder / "models").mkdir()
    case, size = large_case(folder / "models", sizes, seed)
    reading = probes_in(folder, "probes_that_read", READING)
    every = probes_in(folder, "probes_of_large_models", (*READING, *CHANGING))
    spread = audited(case, folder / "spread", every, given)
    unspread = audited(case, folder / "whole", reading)
    plain, report = (read_report(folder / name / "report.json") for name in ("whole", "spread"))
    numbers = numbers_of(report)
    return {
        "model_bytes": size, "given": given, "sizes": sizes._asdict(), "whole": unspread, "offloaded": spread,
        "numbers": len(numbers), "largest_difference": largest_gap(numbers_of(plain), numbers),
        "verdicts": [plain.verdict.word, report.verdict.word],
        "effects": {name: value for name, value in numbers.items() if name.endswith(" value")},
        "skipped": {skip.probe: skip.reason for skip in report.skips}, "failures": len(report.failures),
        "opened_again": int(report.environment.flags.get("opened_again", "0")),
    }  # fmt: skip


def check(results: Mapping[str, Any]) -> None:
    """AssertionError where the claim does not hold."""
    assert results["model_bytes"] > LIMIT_BYTES > results["offloaded"]["peak_anonymous_bytes"]
    assert results["largest_difference"] <= WITHIN and not results["failures"]


def main() -> None:
    """Measure, write results.json, and fail where the claim does not hold."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="large-") as temp:
        results = measured(Path(temp), SIZES, GIVEN, args.seed)
    stamp = provenance.stamp(args.seed)
    RESULTS.write_text(json.dumps({**stamp.model_dump(mode="json"), **results}, indent=1) + "\n")
    check(results)


if __name__ == "__main__":
    main()
