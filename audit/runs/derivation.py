"""What a report says because something else says it: derived here, once, from the parts of a run; free of torch.

The engine makes its report of these fields, `residua verify` makes them again of the files that a run leaves, and
compares the two documents as they are: a field that is added here is compared without another line.
"""

import shlex
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Final, NamedTuple

from audit.judging import (
    ApplicableCalibrations,
    decide,
    decision_rule,
    given,
    heard,
    judge,
    replicates_of,
    taking_part,
    validation,
)
from audit.runs.journal import Unit
from audit.schema import (
    AttackCoverage,
    Environment,
    Evidence,
    Excerpts,
    Exhibit,
    Failure,
    Measurement,
    Missing,
    Plan,
    PlannedTest,
    RoleAudit,
    Skip,
)

OPEN_QUESTION: Final = "this question stays open; the verdict rests on the tests that ran"
MOST_LIMITS: Final = 5
"""So many limits a report states; whose code ran is the first."""
ATTACKS: Final = (
    ("sampled generation and prompting", "black-box", "generation"),
    ("optimised prompts and prefixes", "weights", "prefix"),
    ("relearning", "fine-tune", "relearning"),
    ("innocent further training", "fine-tune", "relapse"),
    ("quantisation", "weights", "quantisation"),
    ("pruning", "weights", "pruning"),
)
"""Attack family, access, and the word by which a probe declares that it makes the attack."""


class Parts(NamedTuple):
    """What a run leaves for its report: its plan, its units in the order of the plan, the unit of the audit of roles,
    the tests that were left out, what was received and by what it ran, and what judges it.

    ``excerpts``: how the tables of findings are quoted.
    """

    plan: Plan
    units: tuple[Unit, ...]
    roles: Unit
    refused: tuple[Skip, ...]
    failures: tuple[Failure, ...]
    exhibits: tuple[Exhibit, ...]
    environment: Environment
    excerpts: Callable[[tuple[Evidence, ...]], tuple[Excerpts, ...]]


class Judges(NamedTuple):
    """By what the measurements of a run are judged."""

    standing: ApplicableCalibrations
    floors: Mapping[str, float]


def copied(parts: Parts) -> dict[str, object]:
    """The fields of a report that stand in other files word for word, whatever version wrote them."""
    return {
        "plan": parts.plan,
        "roles_audited": parts.roles.roles,
        "timings": tuple(unit.timing for unit in (parts.roles, *parts.units)),
    }


def measured(units: Iterable[Unit]) -> tuple[Measurement, ...]:
    """The measurements of a run, in the order of its report."""
    return tuple(m for unit in units for m in unit.measurements)


def concluded(parts: Parts, judges: Judges) -> dict[str, object]:
    """The fields of a report that this version concludes from the others."""
    plan, standing = parts.plan, judges.standing
    in_case = tuple(judge(m, judges.floors) for m in measured(parts.units))
    evidence, unlimited = decide(in_case, given(taking_part(plan.case, parts.roles.roles)), standing)
    verdict = heard(unlimited, parts.roles.roles)
    attacks = coverage(evidence, {test.probe: test.attack for test in plan.tests if test.attack and test.will_run})
    beside = (*own_code(parts.exhibits), *quantised(parts.exhibits))
    version, _, _ = plan.code_version.partition("+")
    return {
        "tool": {"name": "residua", "version": version, "code": plan.code_version},
        "evidence": evidence,
        "skips": (*parts.refused, *(unit.skip for unit in parts.units if unit.skip is not None)),
        "verdict": verdict,
        "decision_rule": decision_rule(replicates_of(evidence)),
        "coverage": tuple((attack.family, attack.access, attack.state) for attack in attacks),
        "attacks": attacks,
        "limits": (*beside, *verdict.limits, *parts.roles.noticed)[:MOST_LIMITS],
        "reproduce": command(parts.environment),
        "calibrations": standing.uses,
        "validation": validation(in_case, verdict, standing),
        "excerpts": parts.excerpts(evidence),
    }


def left_out(tests: Sequence[PlannedTest], others: Sequence[PlannedTest] = ()) -> tuple[Skip, ...]:
    """The tests that a plan leaves out, and those of ``others``: the same tests planned without the roles that take no
    part."""
    reasons = {test.probe: test.reason for planned in (others, tests) for test in planned if test.reason}
    return tuple(Skip(probe=name, reason=reason, consequence=OPEN_QUESTION) for name, reason in reasons.items())


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


def own_code(exhibits: Sequence[Exhibit]) -> tuple[str, ...]:
    """Which code ran that is not the workbench's own, and for whom: one sentence a name."""
    ran: dict[str, list[str]] = {}
    for exhibit in exhibits:
        if exhibit.code:
            ran.setdefault(exhibit.code, []).append(exhibit.role)
    return tuple(
        f"code of the case's own, {code}, ran as {', '.join(roles)}: it was not checked, and what it computes is what "
        "was audited"
        for code, roles in ran.items()
    )


def quantised(exhibits: Sequence[Exhibit]) -> tuple[str, ...]:
    """Which roles were handed in as codes, and as what they were audited: one sentence a release."""
    return tuple(f"{x.role[:1].upper()}{x.role[1:]} was {x.released}." for x in exhibits if x.released)


def withholding(audit: RoleAudit, naming: Callable[[str], str]) -> RoleAudit:
    """A role's audit with the names of groups, which may be people, under other ones."""
    return audit.model_copy(update={"unknown": tuple(naming(group) for group in audit.unknown)})


def command(environment: Environment) -> str:
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
