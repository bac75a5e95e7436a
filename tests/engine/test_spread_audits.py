"""A whole audit of models that do not lie whole in one process: the same numbers, and what changes weights is named."""

import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from audit.case import CaseFile, case_text
from audit.engine import plan, run
from audit.planning import RunSettings
from audit.runs import read_report
from audit.schema import Report
from studies.large.study import largest_gap, numbers_of
from studies.large.widening import Sizes, widened
from tests import planted_world
from tests.planted import few_probes

READING = ("utility", "forget_likelihood", "answer_lens", "weight_difference")
CHANGING = ("quantisation_recovery", "relearning_recovery")
SIZES = Sizes(times=4, blocks=4, units=400)


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Probes that read, and those that change weights."""
    with few_probes(tmp_path_factory.mktemp("probes"), "probes_of_spread_models", *READING, *CHANGING) as name:
        yield name


@pytest.fixture(scope="module")
def plain(world: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Report]:
    """The audit of the whole models, by the probes that read."""
    folder = tmp_path_factory.mktemp("whole")
    with few_probes(folder, "probes_of_whole_models", *READING) as name:
        how = RunSettings(device="cpu", threads=1, package=name, store=folder / "store")
        yield run(CaseFile.read(world / "case.toml"), folder / "run", how)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The planted case with large models of random weights."""
    root = tmp_path_factory.mktemp("world")
    for role in ("base", "clean", "null"):
        assert widened(planted_world.root() / role, root / role, SIZES, 0) > 4e6
    for cohort in ("forget", "retain", "holdout"):
        (root / f"{cohort}.jsonl").write_bytes((planted_world.root() / f"{cohort}.jsonl").read_bytes())
    (root / "case.toml").write_text(case_text(planted_world.case("clean", references=("null",))))
    return root


def skipped(report: Report) -> Mapping[str, str]:
    return {skip.probe: skip.reason for skip in report.skips}


@pytest.mark.thorough
def test_an_audit_of_models_that_are_read_from_disk_gives_the_same_numbers(
    world: Path, package: str, plain: Report, tmp_path: Path
) -> None:
    case = CaseFile.read(world / "case.toml")
    how = {"device_map": "auto", "max_memory": "2M"}
    spread = RunSettings(device="cpu", threads=1, package=package, store=None, **how)
    ahead = {test.probe: test.reason for test in plan(case, tmp_path / "spread", spread).tests if not test.will_run}
    assert tuple(ahead) == CHANGING and all("weights are offloaded: " in reason for reason in ahead.values())
    report = run(case, tmp_path / "spread", spread)
    assert skipped(report) == ahead and not skipped(plain) and not report.failures
    assert largest_gap(numbers_of(plain), numbers_of(report)) < 1e-5, "whole rows, where others share beginnings"
    assert len(numbers_of(report)) > 20
    flags: Any = report.environment.flags
    assert flags["device_map"] == "auto" and flags["max_memory"] == "cpu=2000000" and int(flags["opened_again"]) > 0
    assert "--device-map auto --max-memory cpu=2000000" in report.reproduce


SCRIPT = """
import sys
from pathlib import Path
from audit.engine import run
from audit.planning import RunSettings
sys.path.insert(0, sys.argv[3])
how = RunSettings(device="cpu", threads=1, package=sys.argv[4], store=Path(sys.argv[5]))
run(Path(sys.argv[1]), Path(sys.argv[2]), how)
"""


@pytest.mark.thorough
def test_two_ranks_give_the_same_effects_and_one_of_them_writes(
    world: Path, package: str, plain: Report, tmp_path: Path
) -> None:
    script = tmp_path / "ranks.py"
    script.write_text(SCRIPT)
    folder = str(Path(sys.modules[package].__file__ or "").parents[1])
    done = subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", str(script),
         str(world / "case.toml"), str(tmp_path / "ranks"), folder, package, str(tmp_path / "store")],
        env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).parents[2])},
        capture_output=True, text=True, timeout=400, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    report = read_report(tmp_path / "ranks" / "report.json")
    assert set(skipped(report)) == set(CHANGING) and not report.failures
    assert all("weights are spread over 2 ranks" in reason for reason in skipped(report).values())
    assert largest_gap(numbers_of(plain), numbers_of(report)) < 1e-5 and report.environment.flags["ranks"] == "2"
    assert report.verdict.word == plain.verdict.word
    assert sorted(path.name for path in tmp_path.iterdir()) == ["ranks", "ranks.py"]
