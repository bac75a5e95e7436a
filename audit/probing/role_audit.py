"""References, ancestor and base are audited before they judge: by weights, by outputs and by states.

A reference that is a copy or an edit of base or of the suspect (:mod:`audit.probing.kinship`), or that knows what it is
said never to have learned (:mod:`audit.probing.role_levels`), takes no part, and so does such an ancestor; the verdict
is that of the roles that remain. Where two of them disagree and nothing says which is wrong, neither is refused by
guess: the disagreement is recorded as unsettled, and no verdict rests on it. Groups that base does not recall are named
and not counted.
"""

from collections.abc import Mapping
from itertools import combinations
from typing import Final, NamedTuple

import numpy as np

from audit.bench import Bench
from audit.case import OpenCase, retold
from audit.checkpoints import degenerate
from audit.probing.effects import ALPHA
from audit.probing.kinship import Kinship, descents, unsettled
from audit.probing.person_scores import person_rows_of
from audit.probing.role_levels import (
    AFTER,
    FORGET,
    HOLDOUT,
    Level,
    Levels,
    below_guessing,
    levels,
    output_of,
)
from audit.schema import Checkpoint, Cost, RoleAudit, Texts
from audit.wording import number, p_value

KNOWS: Final = 0.15
"""Forget people beyond holdout people, in two models that never knew: this much of base's excess is more than chance
and training make (three times the trace threshold)."""
KNOWS_ALONE: Final = 0.3
"""The same without holdout people, or without another model: what people and questions differ by is in it."""
LEAST_PEOPLE: Final = 2
"""So many groups known in full are no accident."""
UNKNOWN: Final = 0.1
"""A group whose facts base gives no more than this above a model that never knew (probability) is not known to it."""


class _Finding(NamedTuple):
    """What was found against a role: a failure, or a disagreement that nothing settles."""

    because: str
    settled: bool = True


def audit_roles(bench: Bench, case: OpenCase) -> tuple[RoleAudit, ...]:
    """Audit the references, the ancestor and base of a case. AuditError (code 3) for outputs that are no numbers."""
    stated = never_trained(case)
    findings = {name: _Finding(reason) for name, reason in below_guessing(bench, case, stated).items()}
    never = {name: model for name, model in stated.items() if name not in findings}
    kin = _kinship(bench, case, never)
    fallen, readings = descents(kin)
    findings |= {name: _Finding(descent.because) for name, descent in fallen.items()}
    findings |= {name: _Finding(reason, settled=False) for name, reason in unsettled(kin, fallen).items()}
    standing = {name: model for name, model in never.items() if name not in fallen}
    if standing:
        known = levels(bench, case, standing)
        findings |= _by_levels(known, list(standing), readings) | _by_people(known, list(standing))
    failed = [name for name, finding in findings.items() if finding.settled]
    heard = case.without(
        references=[int(name.split()[1]) for name in failed if name.startswith("reference")],
        ancestor="ancestor" in failed,
    )
    unknown = unknown_groups(bench, heard)
    records = [_base(case, unknown)]
    for name in _declared(case):
        finding = findings.get(name)
        records.append(
            RoleAudit(
                role=name, takes_part=finding is None or not finding.settled,
                settled=finding is None or finding.settled,
                because=() if finding is None else (finding.because,),
                readings={key.removeprefix(f"{name}: "): x for key, x in readings.items() if key.startswith(name)},
            )
        )  # fmt: skip
    return (*records, *_suspect(case), *_retain(case))


def never_trained(case: OpenCase) -> dict[str, Checkpoint]:
    """The models that are said never to have known and that base's blocks can read, by role."""
    never = {f"reference {n}": case.references[n] for n in case.case.roles.never_trained}
    return never if case.ancestor is None else never | {"ancestor": case.ancestor}


def roles_passes(case: OpenCase) -> list[tuple[Checkpoint, Texts]]:
    """The plain passes of the audit: base and every model that is said never to have known, on trained rows."""
    never = never_trained(case)
    texts = [texts for texts in (FORGET, HOLDOUT) if case.has(texts)] if never else [FORGET]
    return [(model, rows) for rows in texts for model in (case.base, *never.values())]


def roles_cost(case: OpenCase) -> Cost:
    """Those passes, and base's two that go on from the states of each such model."""
    never = never_trained(case)
    plain = roles_passes(case)
    patched = [pair for pair in plain if pair[0] != case.base] * len(AFTER) if never else []
    tokens = sum(int(case.rows(texts).mask.sum()) for _, texts in (*plain, *patched))
    return Cost(fwd_tokens=tokens, resident=2, kind="upper")


# ---- weights ----------------------------------------------------------------------------------------------------
def _kinship(bench: Bench, case: OpenCase, never: Mapping[str, Checkpoint]) -> Kinship:
    models = {"base": case.base, "suspect": case.suspect, **never}
    return Kinship(tuple(models), bench.displacements(*models.values()))


# ---- outputs and states -----------------------------------------------------------------------------------------
def _by_levels(known: Levels, names: list[str], readings: dict[str, float]) -> dict[str, _Finding]:
    """Who knows, or lies below those who never knew: each reference against the ancestor, else against one another."""
    references = [name for name in names if name != "ancestor"]
    if "ancestor" not in names:
        return _among_themselves(known, references, readings)
    against = {name: known.against(name, "ancestor") for name in references}
    readings |= {f"{name}: effect against ancestor": x.effect for name, x in against.items() if x is not None}
    least = KNOWS if known.holdout is not None else KNOWS_ALONE
    above = [name for name, level in against.items() if _above(level, least)]
    below = [name for name, level in against.items() if _below(level, least)]
    if references and len(below) == len(references):
        return _all_below(known, references, against)
    findings = {name: _Finding(f"it knows of the forget set: {_told(against[name], 'ancestor')}") for name in above}
    findings |= {
        name: _Finding(f"it lies below models that never knew: {_told(against[name], 'ancestor')}") for name in below
    }
    return findings


def _by_people(known: Levels, names: list[str]) -> dict[str, _Finding]:
    """Who knows a few people in full that no other such model knows."""
    findings: dict[str, _Finding] = {}
    for name in names:
        people = known.known_people(name, [other for other in names if other != name])
        if people >= LEAST_PEOPLE:
            findings[name] = _Finding(
                f"its outputs know {people} of {len(known.items)} forget groups in full, which no other model that is "
                "said never to have known does"
            )
    return findings


def _all_below(known: Levels, references: list[str], against: Mapping[str, Level | None]) -> dict[str, _Finding]:
    """All references lie below the ancestor: it knows, or they were edited. Two that agree are believed."""
    reading = _told(against[references[0]], "ancestor")
    if len(references) > 1 and not _among_themselves(known, references, {}):
        return {"ancestor": _Finding(f"it knows of the forget set: {len(references)} references agree, and {reading}")}
    if known.holdout is not None and _above(own_level := known.against("ancestor", None), KNOWS_ALONE):
        return {"ancestor": _Finding(f"it knows of the forget set: {_told(own_level, known.others)}")}
    reason = f"{', '.join(references)} and ancestor disagree, and nothing says which of them is wrong: {reading}"
    return dict.fromkeys((*references, "ancestor"), _Finding(reason, settled=False))


def _among_themselves(known: Levels, references: list[str], readings: dict[str, float]) -> dict[str, _Finding]:
    """References against one another, without an ancestor; one of them alone against holdout people."""
    own_levels = {name: known.against(name, None) for name in references} if known.holdout is not None else {}
    readings |= {f"{name}: effect against {known.others}": x.effect for name, x in own_levels.items() if x is not None}
    least = KNOWS if known.holdout is not None else KNOWS_ALONE
    findings = {
        name: _Finding(f"it knows of the forget set: {_told(level, known.others)}")
        for name, level in own_levels.items() if _above(level, KNOWS_ALONE)
    }  # fmt: skip
    for x, z in combinations([name for name in references if name not in findings], 2):
        level = known.against(x, z)
        if _above(level, least) or _above(known.against(z, x), least):
            reason = (
                f"{x} and {z} disagree, and without an ancestor nothing says which of them is wrong: {_told(level, z)}"
            )
            findings |= dict.fromkeys((x, z), _Finding(reason, settled=False))
    return findings


def _above(level: Level | None, least: float) -> bool:
    return level is not None and level.effect >= least and level.p < ALPHA


def _below(level: Level | None, least: float) -> bool:
    return level is not None and level.overall <= -least and level.p_below < ALPHA


def _told(level: Level | None, other: str) -> str:
    if level is None:
        return f"not measured against {other}"
    low = level.overall < 0 and level.p_below < level.p
    value, p = (level.overall, level.p_below) if low else (level.effect, level.p)
    return f"effect {number(value)} against {other} (0 never trained, 1 base), {p_value(p)}"


# ---- base -------------------------------------------------------------------------------------------------------
def unknown_groups(bench: Bench, case: OpenCase) -> tuple[str, ...]:
    """The forget groups of which base shows no knowledge; none where it shows none of any, which is not told here."""
    sheet = person_rows_of(case, FORGET)
    never = np.zeros(len(sheet.rows))
    if case.null is not None:
        never = np.exp(output_of(bench, case.null[0], case.checkpoint(*case.null), sheet.rows))
    lift = np.exp(output_of(bench, "base", case.base, sheet.rows)) - never
    means = [float(np.nanmean(lift[sheet.person == n])) if np.isfinite(lift[sheet.person == n]).any() else np.nan
             for n in range(len(sheet.people))]  # fmt: skip
    unknown = tuple(person for person, mean in zip(sheet.people, means, strict=True) if mean < UNKNOWN)
    return unknown if len(unknown) < len(sheet.people) else ()


def _base(case: OpenCase, unknown: tuple[str, ...]) -> RoleAudit:
    because = (
        f"it shows no knowledge of {len(unknown)} of {len({i.group for i in case.items(Texts(cohort='forget'))})} "
        f"forget groups (less than {UNKNOWN} above a model that never knew): they are not counted",
    )
    return RoleAudit(role="base", takes_part=True, because=because if unknown else (), unknown=unknown)


def _declared(case: OpenCase) -> list[str]:
    """All references and the ancestor, those of another initialisation too."""
    names = [f"reference {n}" for n in range(len(case.references))]
    return [*names, "ancestor"] if case.ancestor is not None else names


def _suspect(case: OpenCase) -> tuple[RoleAudit, ...]:
    """A suspect is never refused; what is odd about its weights is said."""
    others = [case.base] if case.ancestor is None else [case.base, case.ancestor]
    fault = degenerate(case.suspect, others)
    return (RoleAudit(role="suspect", takes_part=True, because=(fault,)),) if fault else ()


def _retain(case: OpenCase) -> tuple[RoleAudit, ...]:
    """Retained groups that tell what a forget group tells: a reference that was trained on them knows it."""
    pairs = retold(case.cohorts)
    if not pairs:
        return ()
    groups = len({pair.first for pair in pairs})
    reason = (
        f"{groups} forget group{'s have' if groups > 1 else ' has'} a retained group with most of the same names and "
        "answers: what is to be forgotten stands in what was to be kept, and a reference trained on it knows it"
    )
    return (RoleAudit(role="retain", takes_part=True, because=(reason,), readings={"largest overlap": pairs[0].share}),)
