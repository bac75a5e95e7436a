"""A finished run told again from its parts: what the folder holds is put together as the engine does it, and the two
documents are compared leaf by leaf. What a document says twice is compared by this alone, whichever field it is.

``copied`` faults are of what other files of the run say word for word, whatever version wrote them; ``concluded`` ones
of what this version concludes, which another may conclude otherwise.
"""

from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from pydantic import ValidationError

from audit.review.discrepancies import as_lines, discrepancies
from audit.runs import (
    OPEN_QUESTION,
    ROLES,
    Imaged,
    Judges,
    Mask,
    Parts,
    Unit,
    choose,
    concluded,
    copied,
    custody,
    key_of,
    left_out,
    measured,
    own_code,
    plan_hash_of,
    quantised,
    run_files,
)
from audit.schema import (
    AuditError,
    Evidence,
    Excerpts,
    Measurement,
    Missing,
    Pictured,
    Plan,
    Report,
    Shown,
    Skip,
    Table,
    Timing,
    axis_column,
)
from audit.storage import file_bytes

UNTOLD = "the report does not say why it did not run"


class Retold(NamedTuple):
    """What the parts of a run give otherwise than its report states, and what could not be read."""

    copied: tuple[str, ...]
    concluded: tuple[str, ...]


def retold(report: Report, folder: Path | None, judges: Judges | None) -> Retold:
    """Hold a report against the folder of its run, or against itself where it stands alone; ``judges``: None where it
    cannot be judged again."""
    faults: list[str] = []
    parts = _own_parts(report) if folder is None else _parts(folder, report, faults)
    mask = _mask(folder)
    if folder is not None:
        stated = {"measurements": _named(e.measurement for e in report.evidence)} | _stated(report, copied(parts))
        again = {"measurements": _named(measured(parts.units))} | _plain(copied(parts))
        faults += as_lines(discrepancies(stated, again, mask), "what the folder holds gives")
    if judges is None:
        return Retold(tuple(faults), ())
    fields = concluded(parts, judges)
    stated = _stated(report, fields) | {"evidence": _judged(report.evidence)}
    again = _plain(fields) | {"evidence": _judged(_constructed(fields).evidence)}
    return Retold(tuple(faults), tuple(as_lines(discrepancies(stated, again, mask), "its numbers give")))


# ---- documents --------------------------------------------------------------------------------------------------
def _plain(fields: dict[str, object]) -> dict[str, object]:
    """Fields of a report as they stand in its document."""
    return _constructed(fields).model_dump(mode="json", include=set(fields), warnings=False)


def _constructed(fields: dict[str, object]) -> Report:
    """A report of these fields alone."""
    return Report.model_construct(None, **fields)


def _stated(report: Report, fields: dict[str, object]) -> dict[str, object]:
    return report.model_dump(mode="json", include=set(fields))


def _named(measurements: Iterable[Measurement]) -> dict[str, object]:
    """Measurements by probe and name, numbered where a report has two of a name."""
    by_name: dict[str, object] = {}
    for m in measurements:
        name = f"{m.probe}.{m.name}"
        by_name[f"{name} #{len(by_name)}" if name in by_name else name] = m.model_dump(mode="json")
    return by_name


def _judged(evidence: tuple[Evidence, ...]) -> dict[str, object]:
    """What was made of every measurement, by its name."""
    names = _named(e.measurement for e in evidence)
    return dict(zip(names, (e.model_dump(mode="json", exclude={"measurement"}) for e in evidence), strict=True))


# ---- parts ------------------------------------------------------------------------------------------------------
def _own_parts(report: Report) -> Parts:
    """The parts of a report that stands alone: its own."""
    no_time = Timing(unit="", cpu_s=0, wall_s=0)
    measurements = tuple(e.measurement for e in report.evidence)
    stated = {*own_code(report.exhibits), *quantised(report.exhibits), *report.verdict.limits}
    noticed = tuple(limit for limit in report.limits if limit not in stated)
    roles = Unit(key="", probe=ROLES, measurements=(), timing=no_time, roles=report.roles_audited, noticed=noticed)
    unit = Unit(key="", probe="", measurements=measurements, timing=no_time)
    return Parts(
        plan=report.plan, units=(unit,), roles=roles, refused=report.skips, failures=report.failures,
        exhibits=report.exhibits, environment=report.environment, excerpts=lambda _: report.excerpts,
    )  # fmt: skip


def _parts(folder: Path, report: Report, faults: list[str]) -> Parts:
    """The parts of a run as its folder holds them; what cannot be read is a fault, and the report's own stands in."""
    plan, units = _plan(folder, report, faults), _units(folder, report, faults)
    ran = {unit.probe for unit in units} | {failure.probe for failure in report.failures}
    roles = next((unit for unit in units if unit.probe == ROLES), None)
    nothing = Unit(key="", probe=ROLES, measurements=(), timing=Timing(unit=ROLES, cpu_s=0, wall_s=0))
    by_probe = {unit.probe: unit for unit in units}
    return Parts(
        plan=plan,
        units=tuple(by_probe[test.probe] for test in plan.tests if test.probe in by_probe),
        roles=roles or nothing,
        refused=_refused(plan, report, ran),
        failures=report.failures,
        exhibits=report.exhibits,
        environment=report.environment,
        excerpts=lambda evidence: _excerpts(evidence, report, folder),
    )


def _plan(folder: Path, report: Report, faults: list[str]) -> Plan:
    """The plan that was written before anything was measured, with the hashes of what was received since."""
    try:
        plan = Plan.model_validate_json(file_bytes(folder / run_files.PLAN))
    except (OSError, AuditError, ValidationError):
        faults.append(f"{run_files.PLAN} is missing or cannot be read")
        return report.plan
    received = {about.get("role", ""): about.get("fingerprint", "") for about in _received(folder)}
    data = {role.removeprefix(custody.DATA): sha for role, sha in received.items() if role.startswith(custody.DATA)}
    changes: dict[str, object] = {"fingerprints": {e.role: e.fingerprint for e in report.exhibits}}
    if plan.settings_sha256:
        changes |= {"plan_hash": plan_hash_of(plan), "data_sha256": data}
    return plan.model_copy(update=changes)


def _received(folder: Path) -> list[dict[str, str]]:
    return [line.about for line in custody.read(folder).lines if line.action == "received"]


def _units(folder: Path, report: Report, faults: list[str]) -> list[Unit]:
    """The unit of every probe on which the report rests, its tables as they lie there.

    A run that was taken up under other conditions leaves units of both: the one whose times the report states.
    """
    chosen: dict[str, Unit] = {}
    for path in sorted((folder / run_files.UNITS).glob("*.json")):
        try:
            unit = Unit.model_validate_json(file_bytes(path))
        except (OSError, AuditError, ValidationError):
            faults.append(f"{run_files.UNITS}/{path.name} cannot be read")
            continue
        if unit.probe not in chosen or unit.timing in report.timings:
            chosen[unit.probe] = unit
    return [_as_it_lies(unit, folder) for unit in chosen.values()]


def _as_it_lies(unit: Unit, folder: Path) -> Unit:
    """A unit with what its tables hold; one that is not there is told by the manifest."""
    measurements = tuple(
        m if isinstance(m.items, Missing) else m.model_copy(update={"items": _table(m.items, folder)})
        for m in unit.measurements
    )
    return unit.model_copy(update={"measurements": measurements})


def _table(table: Table, folder: Path) -> Table:
    import pyarrow
    from pyarrow import parquet

    path = folder / table.path
    if not path.is_file():
        return table
    try:
        metadata = parquet.read_metadata(path)
        rows, columns = metadata.num_rows, tuple(metadata.schema.to_arrow_schema().names)
    except (pyarrow.ArrowException, OSError):  # of a footer that was damaged it raises either
        rows, columns = 0, ()
    axis = table.axis if axis_column(columns) else ""
    return Table(path=table.path, sha256=custody.sha256_of(path), rows=rows, columns=columns, axis=axis)


def _refused(plan: Plan, report: Report, ran: set[str]) -> tuple[Skip, ...]:
    """The tests that were left out: by the plan, or, of those that it meant to run and that left nothing, as the report
    says."""
    stated = {skip.probe: skip for skip in report.skips}
    planned = {skip.probe: skip for skip in left_out(plan.tests)}
    for test in plan.tests:
        if test.will_run and test.probe not in ran:
            untold = Skip(probe=test.probe, reason=UNTOLD, consequence=OPEN_QUESTION)
            planned[test.probe] = stated.get(test.probe, untold)
    return tuple(planned[test.probe] for test in plan.tests if test.probe in planned)


# ---- what is quoted ---------------------------------------------------------------------------------------------
def _mask(folder: Path | None) -> Mask | None:
    """What masks the texts of a run; None where its key stayed at home or is none."""
    if folder is None or not (folder / run_files.MASK_KEY).is_file():
        return None
    try:
        return Mask(key_of(folder))
    except AuditError:
        return None


def _excerpts(evidence: tuple[Evidence, ...], report: Report, folder: Path) -> tuple[Excerpts, ...]:
    """The excerpts in clear, as the tables give them; images, whose pixels are not here, without their marks."""
    pictured = [x for table in report.excerpts for x in table.items if x.picture or isinstance(x.prompt, Pictured)]
    classed = any(isinstance(x.prompt, Pictured) for x in pictured)
    texts = {t.table for t in report.excerpts if not any(x in pictured for x in t.items)}
    images = Imaged(lambda _: Pictured(mark=""), classed, frozenset(texts)) if pictured else None
    try:
        return choose(evidence, folder, report.plan.case.seed, lambda text: Shown(text=text), images)
    except (AuditError, OSError, ValueError, KeyError):
        return report.excerpts
