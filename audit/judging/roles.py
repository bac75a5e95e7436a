"""Who was heard: the case of the roles that take part, and what a verdict says of those that do not."""

from collections.abc import Sequence
from typing import Final

from audit.schema import Case, Missing, RoleAudit, Verdict

MOST_LIMITS: Final = 5
UNSETTLED: Final = "references disagree, so that no verdict rests on them"
REPLACE: Final = "References retrained from the same ancestor, none of them made from base or from the suspect."


def taking_part(case: Case, audited: Sequence[RoleAudit]) -> Case:
    """The case without the references and the ancestor that took no part."""
    refused = {audit.role for audit in audited if not audit.takes_part}
    if not refused:
        return case
    roles = case.roles
    remaining = roles.model_copy(
        update={
            "references": tuple(x for n, x in enumerate(roles.references) if f"reference {n}" not in refused),
            "ancestor": None if "ancestor" in refused else roles.ancestor,
        }
    )
    return case.model_copy(update={"roles": remaining})


def remarks(audited: Sequence[RoleAudit]) -> tuple[str, ...]:
    """What is to be said of the roles, the weightiest first: who was refused and why, who disagrees, what else."""
    refused = [
        f"{_named(x)} was refused and took no part: {'; '.join(x.because)}." for x in audited if not x.takes_part
    ]
    open_ones = dict.fromkeys("; ".join(x.because) for x in audited if x.takes_part and not x.settled)
    others = [f"{_named(x)}: {'; '.join(x.because)}." for x in audited if x.takes_part and x.settled and x.because]
    return (*refused, *(f"{reason[:1].upper()}{reason[1:]}." for reason in open_ones), *others)


def heard(verdict: Verdict, audited: Sequence[RoleAudit]) -> Verdict:
    """The verdict with what limits it by its roles; INCONCLUSIVE where references disagree and nothing settles it.

    A suspect that is broken is broken by base alone.
    """
    noted = remarks(audited)
    if not noted:
        return verdict
    changes: dict[str, object] = {"limits": (*noted, *verdict.limits)[:MOST_LIMITS]}
    if any(not x.takes_part or not x.settled for x in audited):
        changes["would_change"] = (REPLACE, *verdict.would_change)
    disagreeing = next((x for x in audited if x.takes_part and not x.settled), None)
    if disagreeing is not None and verdict.word != "INVALID":
        reason = "; ".join(disagreeing.because)
        changes |= {
            "word": "INCONCLUSIVE", "sentence": f"INCONCLUSIVE: {UNSETTLED}.", "because": (reason, *verdict.because),
            "strength": "none", "direction": "none", "basis": "in-case", "ratio": Missing(missing=UNSETTLED),
        }  # fmt: skip
    return verdict.model_copy(update=changes)


def _named(audit: RoleAudit) -> str:
    return f"{audit.role[:1].upper()}{audit.role[1:]}"
