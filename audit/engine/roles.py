"""Who judges a case: its roles are audited before anything is measured on the suspect, once, and kept."""

import logging
import time

from audit.bench import Bench
from audit.case import OpenCase
from audit.judging import remarks
from audit.probing import audit_roles
from audit.runs import ROLES, Unit
from audit.schema import RoleAudit, Timing

log = logging.getLogger(__name__)


def audited(bench: Bench, case: OpenCase, key: str, earlier: Unit | None) -> Unit:
    """The unit of the audit of roles: the one that is kept, else a new one. AuditError (code 3) where a model that is
    said never to have known gives outputs that are no numbers."""
    if earlier is None:
        cpu, wall = time.process_time(), time.perf_counter()
        records = audit_roles(bench, case)
        timing = Timing(unit=ROLES, cpu_s=time.process_time() - cpu, wall_s=time.perf_counter() - wall)
        earlier = Unit(key=key, probe=ROLES, measurements=(), timing=timing, roles=records)
    for remark in remarks(earlier.roles):
        log.warning("%s", remark)
    return earlier


def taking_part(case: OpenCase, roles: tuple[RoleAudit, ...], undisputed: bool = False) -> OpenCase:
    """The case as it is judged: by the roles that take part, on the groups that base knows. ``undisputed``: without
    those that disagree, by which not even base's recall can be told."""
    refused = [audit.role for audit in roles if not audit.takes_part or (undisputed and not audit.settled)]
    return case.without(
        references=[int(role.split()[1]) for role in refused if role.startswith("reference ")],
        ancestor="ancestor" in refused,
        groups=[group for audit in roles for group in audit.unknown],
    )
