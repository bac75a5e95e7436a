"""A folder of finished runs of any size, with numbers that mean nothing: what the dashboard is timed on.

Every run has its own report, plan and manifest. The item tables of a test are written once and hard-linked into every
run: opening one costs the same, and the store fits on a disk.
"""

import hashlib
import os
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from audit.runs import manifest, report_id
from audit.schema import (
    EFFECT_UNIT,
    AttackCoverage,
    Case,
    Control,
    Cost,
    Count,
    Curve,
    DataFiles,
    Environment,
    Evidence,
    Exhibit,
    Interval,
    LikelihoodRatio,
    Measurement,
    Missing,
    Null,
    Outcome,
    Plan,
    PlannedTest,
    Rate,
    Report,
    Roles,
    Source,
    Status,
    Table,
    Timing,
    Verdict,
)

ROLES: Final = ("base", "suspect", "reference")
KINDS: Final = ("output", "causal", "decoding", "recovery")
OUTCOMES: Final[tuple[Outcome, ...]] = ("trace found", "no trace found", "inconclusive")
STATUSES: Final[tuple[Status, ...]] = ("trace", "silent", "undecided")


class Extent(NamedTuple):
    """How large a store is."""

    checkpoints: int
    tests: int
    items: int
    layers: int = 12


FULL_EXTENT: Final = Extent(50, 20, 10_000)


def make(root: Path, extent: Extent, seed: int) -> Path:
    """Write the store below ``root/store``; returns the root."""
    rng = np.random.default_rng(seed)
    shared = root / "tables"
    tables = [_table(shared / f"test_{i}.parquet", extent.items, rng) for i in range(extent.tests)]
    for place in range(extent.checkpoints):
        folder = root / "runs" / "store" / f"checkpoint-{place:02d}"
        (folder / "tables").mkdir(parents=True)
        for table in tables:
            os.link(root / table.path, folder / table.path)
        report = _report(f"checkpoint-{place:02d}", tables, extent, rng)
        (folder / "report.json").write_text(report.model_dump_json(indent=1) + "\n", encoding="utf-8")
        (folder / "plan.json").write_text(report.plan.model_dump_json(indent=1) + "\n", encoding="utf-8")
        manifest.write(folder)
    return root / "runs"


def _table(path: Path, items: int, rng: np.random.Generator) -> Table:
    path.parent.mkdir(parents=True, exist_ok=True)
    names = [f"item-{i}" for i in range(items)]
    count = items * len(ROLES)
    columns = {
        "item": names * len(ROLES), "group": [f"group-{i % 500}" for i in range(items)] * len(ROLES),
        "role": [role for role in ROLES for _ in range(items)],
        "prompt": [f"What is said of {name} in the register of the town?" for name in names] * len(ROLES),
        "target": [f"That {name} was born there" for name in names] * len(ROLES),
        "output": ["nothing of the kind is known"] * count, "score": rng.random(count),
        "axis_value": np.full(count, -1),
    }  # fmt: skip
    pq.write_table(pa.table(columns), path)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    return Table(path=f"tables/{path.name}", sha256=digest, rows=count, columns=tuple(columns), axis="")


def _report(name: str, tables: list[Table], extent: Extent, rng: np.random.Generator) -> Report:
    evidence = tuple(_evidence(i, table, extent, rng) for i, table in enumerate(tables))
    hashes = {
        role: hashlib.sha256(f"{role} {name if role == 'suspect' else ''}".encode()).hexdigest() for role in ROLES
    }
    report = Report(
        report_id="", created="2026-01-01T00:00:00+00:00", tool={"name": "residua"}, demo=True,
        plan=_plan(name, hashes, extent),
        exhibits=tuple(Exhibit(role=role, path=role, family="gpt2", fingerprint=sha, size_bytes=10**9, files={},
                               verified_after=True) for role, sha in hashes.items()),
        environment=Environment(python="3", platform="none", packages={}, device="cpu", dtype="float32",
                                backend="native", threads=1, flags={}),
        cohorts={"forget": {"items": extent.items}}, evidence=evidence, skips=(), failures=(),
        verdict=Verdict(word="INCONCLUSIVE", sentence="Numbers drawn at random.", because=("they were drawn",),
                        strength="none", direction="none", basis="in-case", limits=("They mean nothing.",),
                        would_change=("An audit.",)),
        decision_rule=("None.",), coverage=(("none", "weights", "not tested"),),
        attacks=(AttackCoverage(family="none", access="weights", attack="", measurements=0),),
        limits=(), reproduce="residua run",
        timings=tuple(Timing(unit=f"test_{i}", cpu_s=1.0, wall_s=1.0) for i in range(extent.tests)),
    )  # fmt: skip
    return report.model_copy(update={"report_id": report_id(report)})


def _plan(name: str, hashes: dict[str, str], extent: Extent) -> Plan:
    roles = Roles(base=Source(path="base"), suspect=Source(path=name), references=(Source(path="reference"),))
    tests = tuple(
        PlannedTest(probe=f"test_{i}", question="Is it so?", will_run=True, reason="", cost=Cost(fwd_tokens=1000))
        for i in range(extent.tests)
    )
    case = Case(name=name, roles=roles, data=DataFiles(forget="f.jsonl", retain="r.jsonl"))
    return Plan(case=case, fingerprints=hashes, data_sha256={"forget": "0" * 64}, tests=tests, code_version="0",
                plan_hash="0" * 64)  # fmt: skip


def _evidence(index: int, table: Table, extent: Extent, rng: np.random.Generator) -> Evidence:
    value = float(rng.random())
    odds = float(10 ** rng.uniform(-1.5, 1.5))
    ratio = LikelihoodRatio(
        value=odds, ci95=Interval(lo=odds / 2, hi=odds * 2), floor=0.01, ceiling=100, words="weak support",
        false_alarms=Rate(k=0, n=50, upper95=0.06), misses=Rate(k=1, n=50, upper95=0.1),
        limit=Missing(missing="drawn at random"), calibration="none",
    )  # fmt: skip
    quantiles = tuple(sorted(float(x) for x in rng.normal(0, 0.1, 101)))
    measured = Measurement(
        probe=f"test_{index}", name="effect", kind=KINDS[index % len(KINDS)], statistic="drawn at random", value=value,
        unit=EFFECT_UNIT, scale="effect", ci95=Interval(lo=value - 0.1, hi=value + 0.1),
        n=Count(scored=extent.items), unit_of_replication="person", units=500, seed=0, p=0.01, p_below=0.99,
        null=Null(kind="drawn", quantiles=quantiles, n=999),
        positive_control=Control(value=1.0, ci95=Interval(lo=0.9, hi=1.1), found=True), floor=0.02,
        curves=tuple(_curve(role, extent.layers, rng) for role in ROLES), items=table,
    )  # fmt: skip
    return Evidence(measurement=measured, outcome=OUTCOMES[index % len(OUTCOMES)],
                    status=STATUSES[index % len(OUTCOMES)], direction="none",
                    because="it was drawn at random", basis="calibrated", ratio=ratio)  # fmt: skip


def _curve(role: str, layers: int, rng: np.random.Generator) -> Curve:
    y = [float(v) for v in rng.random(layers)]
    return Curve.model_validate({
        "axis": "layer", "unit": "effect", "scale": "effect", "role": role, "x": [float(i) for i in range(layers)],
        "y": y, "lo": [v - 0.05 for v in y], "hi": [v + 0.05 for v in y],
    })  # fmt: skip
