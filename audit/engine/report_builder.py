"""The report put together: what was received, measured, judged and left out, named by its own content."""

import shlex
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from audit.case import OpenCase
from audit.checkpoints import float_copy_of
from audit.judging import decision_rule, replicates_of
from audit.planning import published, received
from audit.runs import Imaged, Mask, Screen, choose, key_of, report_id, texts_of
from audit.schema import (
    AttackCoverage,
    CalibrationUse,
    Case,
    Cohort,
    Domain,
    Environment,
    Evidence,
    Exhibit,
    Failure,
    Missing,
    OwnCode,
    Pictured,
    Plan,
    Report,
    RoleAudit,
    Skip,
    Texts,
    Timing,
    Validation,
    Verdict,
)
from audit.version import __version__

COHORTS: tuple[Cohort, ...] = ("forget", "retain", "holdout", "general", "neighbour", "forms")
MOST_LIMITS = 5
"""So many limits a report states; whose code ran is the first."""
ATTACKS = (
    ("sampled generation and prompting", "black-box", "generation"),
    ("optimised prompts and prefixes", "weights", "prefix"),
    ("relearning", "fine-tune", "relearning"),
    ("quantisation", "weights", "quantisation"),
    ("pruning", "weights", "pruning"),
)
"""Attack family, access, and the word by which a probe declares that it makes the attack."""


class Outcomes(NamedTuple):
    """What a finished run leaves for its report. ``attacks``: probe -> the attack that it declares, if it makes one.

    ``noticed``: limits beside those of the verdict.
    """

    evidence: tuple[Evidence, ...]
    skips: tuple[Skip, ...]
    failures: tuple[Failure, ...]
    verdict: Verdict
    timings: tuple[Timing, ...]
    domain: Domain
    calibrations: tuple[CalibrationUse, ...]
    validation: Validation | Missing
    attacks: Mapping[str, str]
    noticed: tuple[str, ...] = ()
    roles_audited: tuple[RoleAudit, ...] = ()


class Circumstances(NamedTuple):
    """Where and how a run was made, outside the plan."""

    exhibits: tuple[Exhibit, ...]
    environment: Environment
    registered: str
    created: str
    demo: bool


def coverage(evidence: Sequence[Evidence], attacks: Mapping[str, str]) -> tuple[AttackCoverage, ...]:
    """Attack family x access level: what was tested, and what was not and so is not spoken about.

    An attack counts by the word that a probe declares (``attacks``), and where it gave a number. One that this table
    does not know is a row of its own: what it needs is for its probe to say.
    """
    controlled = [e.measurement for e in evidence if e.measurement.mode == "controlled"]
    scored = Counter(m.kind for m in controlled)
    counted = Counter(attacks[m.probe] for m in controlled if m.probe in attacks and not isinstance(m.value, Missing))
    known = {attack for _, _, attack in ATTACKS}
    others = [(attack, "as its probe says", attack) for attack in sorted(set(attacks.values()) - known)]
    readings = (
        ("likelihood of the answers", "logits", scored["output"]),
        ("decoding the suspect's own states", "weights", scored["decoding"]),
        ("reading the states by base's later blocks", "weights", scored["causal"]),
    )
    return (
        *(AttackCoverage(family=f, access=access, attack="", measurements=n) for f, access, n in readings),
        *(AttackCoverage(family=f, access=access, attack=attack, measurements=counted[attack])
          for f, access, attack in (*ATTACKS, *others)),
    )  # fmt: skip


def cohorts(case: OpenCase) -> dict[str, dict[str, int]]:
    """How many items and groups of each cohort were received, and how many of them are in the audit part."""
    counts: dict[str, dict[str, int]] = {}
    for cohort in COHORTS:
        forms = [Texts(cohort=cohort, form=form) for form in case.forms_in(cohort)]
        given = [texts for texts in forms if case.has(texts)]
        if given:
            everything = [item for texts in given for item in case.items(texts, "all")]
            audited = [item for texts in given for item in case.items(texts)]
            counts[cohort] = {
                "items": len(everything), "groups": len({item.group for item in everything}),
                "audit_items": len(audited), "audit_groups": len({item.group for item in audited}),
            }  # fmt: skip
            if by_rule := sum(item.alternates_from != "given" for item in everything):
                counts[cohort]["items_with_alternates_by_rule"] = by_rule
    return counts


def own_code(case: OpenCase) -> tuple[str, ...]:
    """Which code ran that is not the workbench's own, and for whom: one sentence a name."""
    ran: dict[OwnCode, list[str]] = {}
    for role, checkpoint in received(case):
        if checkpoint.code is not None:
            ran.setdefault(checkpoint.code, []).append(role)
    return tuple(
        f"code of the case's own, {code.name} (sha256 {code.sha256[:16]}), ran as {', '.join(roles)}: it was not "
        "checked, and what it computes is what was audited"
        for code, roles in ran.items()
    )


def quantised(case: OpenCase) -> tuple[str, ...]:
    """Which roles were handed in as codes, and as what they were audited: one sentence a release."""
    copies = ((role, float_copy_of(checkpoint)) for role, checkpoint in received(case))
    return tuple(f"{role[:1].upper()}{role[1:]} was {copy.summary}." for role, copy in copies if copy is not None)


def assemble(case: OpenCase, plan: Plan, outcomes: Outcomes, circumstances: Circumstances) -> Report:
    """The report of a finished run. What it quotes of the data is masked with the key of the run folder."""
    mask, images, classed = Mask(key_of(case.out)), case.pictures, case.modality == "image"

    def pictured(item: str) -> Pictured | None:
        return mask.image(images[item]) if item in images else None

    every = (item for items in case.cohorts.values() for item in items)
    screen = Screen(mask, texts_of(every, of_images=classed))
    attacks = coverage(outcomes.evidence, outcomes.attacks)
    unnamed = Report(
        report_id="",
        created=circumstances.created,
        registered=circumstances.registered,
        tool={"name": "residua", "version": __version__, "code": plan.code_version},
        demo=circumstances.demo,
        plan=plan.model_copy(update={"case": _quoting(plan.case, mask)}),
        exhibits=circumstances.exhibits,
        environment=circumstances.environment,
        cohorts=cohorts(case),
        evidence=outcomes.evidence,
        skips=tuple(skip.model_copy(update={"reason": screen(skip.reason)}) for skip in outcomes.skips),
        failures=tuple(failure.model_copy(update={"error": _withheld(failure, mask)}) for failure in outcomes.failures),
        verdict=outcomes.verdict,
        decision_rule=decision_rule(replicates_of(outcomes.evidence)),
        coverage=tuple((attack.family, attack.access, attack.state) for attack in attacks),
        attacks=attacks,
        limits=(*own_code(case), *quantised(case), *outcomes.verdict.limits, *outcomes.noticed)[:MOST_LIMITS],
        roles_audited=tuple(_withholding(audit, mask) for audit in outcomes.roles_audited),
        reproduce=_command(circumstances.environment),
        timings=outcomes.timings,
        domain=outcomes.domain,
        calibrations=outcomes.calibrations,
        excerpts=choose(outcomes.evidence, case.out, plan.case.seed, mask, Imaged(pictured, classed)),
        validation=outcomes.validation,
        published=published(case),
    )
    return unnamed.model_copy(update={"report_id": report_id(unnamed)})


def _quoting(case: Case, mask: Mask) -> Case:
    """The case without the ids of its items, which may be names."""
    if isinstance(case.edited, str):
        return case
    return case.model_copy(update={"edited": tuple(str(mask(item)) for item in case.edited)})


def _withholding(audit: RoleAudit, mask: Mask) -> RoleAudit:
    """A role's audit without the names of groups, which may be people."""
    return audit.model_copy(update={"unknown": tuple(str(mask(group)) for group in audit.unknown)})


def _withheld(failure: Failure, mask: Mask) -> str:
    """What kind of error it was: the message of an error that nobody foresaw may quote anything, also in pieces."""
    kind, _, message = failure.error.partition(": ")
    return f"{kind}: {mask(message)}, in full in run.log"


def _command(environment: Environment) -> str:
    """The command that makes these numbers again, run where case.toml lies."""
    ranks = environment.flags.get("ranks")
    launch = [] if ranks is None else ["torchrun", "--nproc-per-node", ranks, "-m", "audit.cli"]
    words = [*(launch or ["residua"]), "run", "case.toml", "-o", "run"]
    for flag, value in (
        ("--backend", environment.backend), ("--device", environment.device), ("--dtype", environment.dtype),
        ("--attention", environment.flags.get("attention", "default")), ("--threads", str(environment.threads)),
    ):  # fmt: skip
        words += [flag, value]
    for flag, name in (
        ("--max-time", "max_time"), ("--max-mem", "max_mem"), ("--device-map", "device_map"),
        ("--max-memory", "max_memory"),
    ):  # fmt: skip
        words += [flag, environment.flags[name]] if name in environment.flags else []
    return shlex.join(words)
