"""A whole run folder as the engine leaves it, without a model: golden measurements as units with their tables, and the
report that the engine's own derivation makes of them."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from audit.calibration import zoo_floors
from audit.judging import restand
from audit.runs import (
    ROLES,
    Judges,
    Mask,
    Parts,
    Unit,
    choose,
    code_version,
    concluded,
    copied,
    custody,
    documents,
    key_of,
    left_out,
    manifest,
    plan_hash_of,
    report_id,
    withholding,
)
from audit.schema import Report, RoleAudit, Skip, Timing
from tests import golden, run_store

Document = dict[str, Any]
EVENTS = "".join(json.dumps({"at": "2026-01-02T03:04:05Z", "event": e, "detail": ""}) + "\n" for e in ("a", "b", "c"))
UNMEASURED = Skip(probe="answer_attention", reason="needs a layer; to change it: none", consequence="it stays open")
WORLD = {"forget": golden.sha("forget"), "retain": golden.sha("retain")}


def make(folder: Path) -> Report:
    """Write the run; the report that it was issued with."""
    (folder / "units").mkdir(parents=True)
    (folder / "mask.key").write_text("0" * 64)
    (folder / "events.jsonl").write_text(EVENTS)
    draft = _draft(folder)
    clear, units = draft.plan, _units(draft)
    for unit in units:
        (folder / "units" / f"{unit.key}.json").write_text(unit.model_dump_json(indent=1) + "\n")
    (folder / "plan.json").write_text(clear.model_dump_json(indent=1) + "\n")
    fields = _fields(draft, units, folder)
    unnamed = Report.model_validate({**draft.model_dump(), **fields})
    report = unnamed.model_copy(update={"report_id": report_id(unnamed)})
    write(folder, report.model_dump(mode="json"))
    return report


def _draft(folder: Path) -> Report:
    """The golden report with tables beside it, and a plan of its own hash."""
    draft = run_store.with_tables(golden.report("suppressed"), folder, run_store.items(24, layers=(0, 1, 2, 3)))
    case = draft.plan.case.model_copy(update={"edited": ("item-1", "item-2")})
    test = draft.plan.tests[0].model_copy(update={"probe": UNMEASURED.probe})
    plan = draft.plan.model_copy(
        update={
            "case": case, "code_version": code_version(), "settings_sha256": golden.sha("settings"),
            "data_sha256": WORLD, "tests": (*draft.plan.tests, test),
        }
    )  # fmt: skip
    return draft.model_copy(update={"plan": plan.model_copy(update={"plan_hash": plan_hash_of(plan)})})


def _units(draft: Report) -> tuple[Unit, ...]:
    """The audit of roles, a unit a probe, and one that could not be measured."""
    by_probe: dict[str, list[Any]] = {}
    for e in draft.evidence:
        by_probe.setdefault(e.measurement.probe, []).append(e.measurement)
    roles = (*draft.roles_audited[:-1], RoleAudit(role="base", takes_part=True, because=("ok",), unknown=("Ada L",)))
    audited = Unit(key="0" * 32, probe=ROLES, measurements=(), timing=_timing(ROLES), roles=roles, noticed=("noted",))
    measured = [
        Unit(key=golden.sha(probe)[:32], probe=probe, measurements=tuple(ms), timing=_timing(probe))
        for probe, ms in by_probe.items()
    ]
    skipped = Unit(
        key="1" * 32, probe=UNMEASURED.probe, measurements=(), skip=UNMEASURED, timing=_timing(UNMEASURED.probe)
    )
    return audited, *measured, skipped


def _timing(unit: str) -> Timing:
    return Timing(unit=unit, cpu_s=1.25, wall_s=0.5)


def _fields(draft: Report, units: tuple[Unit, ...], folder: Path) -> Document:
    """What the engine's derivation makes of the units, masked as the engine masks."""
    mask, by_probe = Mask(key_of(folder)), {unit.probe: unit for unit in units}
    roles = by_probe[ROLES].model_copy(
        update={"roles": tuple(withholding(r, lambda group: str(mask(group))) for r in by_probe[ROLES].roles)}
    )
    edited = tuple(str(mask(item)) for item in draft.plan.case.edited)
    plan = draft.plan.model_copy(update={"case": draft.plan.case.model_copy(update={"edited": edited})})
    parts = Parts(
        plan=plan, units=tuple(by_probe[t.probe] for t in plan.tests if t.probe in by_probe), roles=roles,
        refused=left_out(plan.tests), failures=(), exhibits=draft.exhibits, environment=draft.environment,
        excerpts=lambda evidence: choose(evidence, folder, plan.case.seed, mask),
    )  # fmt: skip
    return copied(parts) | concluded(parts, judges(folder))


def judges(folder: Path) -> Judges:
    """Who judges a case without calibrations."""
    standing = restand(folder / "none", ())
    assert standing is not None
    return Judges(standing, zoo_floors())


# ---- hashes made anew -------------------------------------------------------------------------------------------
def write(folder: Path, document: Document) -> None:
    """Write a document under the id that its content gives it, with its pages, and sign the folder: every hash is that
    of what lies there now, but for what was received, which nobody who changes a folder has."""
    unnamed = Report.model_validate(document)
    report = unnamed.model_copy(update={"report_id": report_id(unnamed)})
    for name, content in documents(report).items():
        (folder / name).write_bytes(content)
    sign(folder, report)


def sign(folder: Path, report: Report) -> None:
    """Manifest and custody log anew."""
    manifest.write(folder)
    (folder / custody.NAME).unlink(missing_ok=True)
    received = [custody.Arrival(e.role, e.fingerprint, e.path) for e in golden.exhibits()]
    received += [custody.Arrival(f"{custody.DATA}{name}", sha, "") for name, sha in WORLD.items()]
    custody.receive(folder, received, "test")
    names = ("mask.key", *(n for n in manifest.compared(folder).digests if n.startswith(run_store.OWN)))
    custody.keep(folder, {name: custody.sha256_of(folder / name) for name in names}, "test")
    custody.issue(folder, report.report_id, folder / manifest.NAME, "test")


def read(folder: Path) -> Document:
    """The report of a folder as a document."""
    return json.loads((folder / "report.json").read_text())


def edit(path: Path, change: Callable[[Document], None]) -> None:
    """Change a JSON file in place."""
    document = json.loads(path.read_text())
    change(document)
    path.write_text(json.dumps(document, indent=1) + "\n")


def tables(document: Document) -> list[Document]:
    """Every statement of an item table in a document or a unit."""
    measurements = (
        [e["measurement"] for e in document["evidence"]] if "evidence" in document else document["measurements"]
    )
    return [m["items"] for m in measurements if "missing" not in m["items"]]
