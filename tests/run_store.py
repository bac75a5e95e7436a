"""Folders of finished runs as the engine leaves them, made from the hand-made reports: tables, document, manifest."""

import hashlib
from collections.abc import Iterable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from audit.runs import custody, manifest, report_id
from audit.schema import Evidence, Missing, Report, Table
from tests import golden
from tests.golden import HOSTILE, Variant

OWN = ("plan.json", "units/", "tables/")
TOOL = "test"
ROLES = ("base", "suspect", "reference")


def items(count: int, text: str = "", layers: Iterable[int] = (-1,)) -> pa.Table:
    """An item table: three roles an item, scores that differ by role, and ``text`` in every text."""
    rows = [
        {
            "item": f"item-{i}{text}", "group": f"group-{i % 8}", "role": role,
            "prompt": f"Where was number {i} born? {text}", "axis_value": layer,
            "target": f"In the town of Dunmare number {i} {text}", "score": (i % 17) / 17 + (role == "base"),
            "output": f"They say in the town of Dunmare number {i} {text}" if role == "base" else "elsewhere",
        }
        for layer in layers for i in range(count) for role in ROLES
    ]  # fmt: skip
    return pa.Table.from_pylist(rows)


def with_tables(report: Report, folder: Path, table: pa.Table) -> Report:
    """The report with the item table written beside it, under the name that each finding gives it."""
    evidence: list[Evidence] = []
    for e in report.evidence:
        m = e.measurement
        if not isinstance(m.items, Missing):
            path = folder / "tables" / f"{m.probe}.parquet"
            path.parent.mkdir(parents=True, exist_ok=True)
            pq.write_table(table, path)
            sha = hashlib.sha256(path.read_bytes()).hexdigest()
            rows = Table(
                path=f"tables/{m.probe}.parquet",
                sha256=sha,
                rows=table.num_rows,
                columns=tuple(table.column_names),
                axis="layer",
            )
            e = e.model_copy(update={"measurement": m.model_copy(update={"items": rows})})
        evidence.append(e)
    return report.model_copy(update={"evidence": tuple(evidence)})


def issue(report: Report, folder: Path, table: pa.Table | None = None) -> Report:
    """Write a finished run: its tables, its document under its own id, and the manifest last."""
    folder.mkdir(parents=True, exist_ok=True)
    whole = with_tables(report, folder, items(24, layers=(0, 1, 2, 3)) if table is None else table)
    named = whole.model_copy(update={"report_id": report_id(whole)})
    (folder / "report.json").write_text(named.model_dump_json(indent=1) + "\n", encoding="utf-8")
    (folder / "plan.json").write_text(named.plan.model_dump_json(indent=1) + "\n", encoding="utf-8")
    sign(named, folder)
    return named


def sign(report: Report, folder: Path) -> None:
    """Write the manifest and the custody log of a finished run anew, as the engine leaves them."""
    manifest.write(folder)
    (folder / custody.NAME).unlink(missing_ok=True)
    names = [name for name in manifest.compared(folder).digests if name.startswith(OWN)]
    key = ["mask.key"] if (folder / "mask.key").is_file() else []
    custody.receive(folder, [custody.Arrival(e.role, e.fingerprint, e.path) for e in report.exhibits], TOOL)
    custody.keep(folder, {name: custody.sha256_of(folder / name) for name in (*names, *key)}, TOOL)
    custody.issue(folder, report.report_id, folder / manifest.NAME, TOOL)


def fill(root: Path, variants: Iterable[Variant]) -> None:
    """One finished run a variant, below ``root/world``; the hostile one has hostile items too."""
    for variant in variants:
        table = items(24, HOSTILE, (0, 1, 2, 3)) if variant == "hostile" else None
        issue(golden.report(variant), root / "world" / variant, table)
