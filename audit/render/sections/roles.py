"""Roles audited: was every model measured before it was allowed to judge, and what became of it."""

from audit.render.sections.blocks import Block, Bullets, Cell, Grid, Text
from audit.render.wording.findings import sentence, spoken
from audit.schema import Report, RoleAudit
from audit.wording import CELL, NAME, number, visible

UNRECORDED = (
    "No audit of the roles is recorded in this report. That a reference never knew, and is no copy, is declared by the "
    "case and not verified."
)


def roles_audited(report: Report) -> tuple[Block, ...]:
    """One row a role, who was left out, and the groups of which base shows no knowledge."""
    audits = report.roles_audited
    if not audits:
        return (Text(UNRECORDED),)
    out = [a for a in audits if not a.takes_part]
    words = f"{len(audits)} roles were measured before they judged, by the tests that the suspect is measured by."
    words += f" Left out: {', '.join(visible(a.role, NAME) for a in out)}." if out else " All of them take part."
    rows = tuple(
        (Cell(visible(a.role, NAME), "tight"), Cell("yes" if a.takes_part else "no", "mark"), Cell(_because(report, a)))
        for a in audits
    )
    blocks: list[Block] = [Text(words), Grid("Roles audited", ("Role", "Takes part", "Because"), rows)]
    unknown = [
        f"Base shows no knowledge of {visible(name, NAME)}: nothing about it is counted."
        for a in audits
        for name in a.unknown
    ]
    blocks += [Bullets(tuple(unknown))] if unknown else []
    return tuple(blocks)


def role_readings(report: Report) -> tuple[Block, ...]:
    """The numbers behind the audit of the roles; nothing where none is recorded."""
    readings = tuple(
        (Cell(visible(a.role, NAME), "tight"), Cell(visible(k, CELL).replace("_", " ")), Cell(number(v), "number"))
        for a in report.roles_audited
        for k, v in sorted(a.readings.items())
    )
    return (Grid("Readings of the roles", ("Role", "Reading", "Value"), readings),) if readings else ()


def _because(report: Report, audit: RoleAudit) -> str:
    return " ".join(sentence(spoken(report, x)) for x in audit.because) or "No check failed."
