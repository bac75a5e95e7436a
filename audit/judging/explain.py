"""The decision rule of the in-case verdict: its constants, its words, and what limits what it says.

Start values from trials on models of known truth; a calibration replaces them where it holds. The text that every
report prints is generated from the numbers that :mod:`audit.judging` compares with, so the two cannot drift apart.
"""

from collections.abc import Sequence
from typing import Literal, NamedTuple

from audit.judging.support import NO_RATE
from audit.schema import (
    ALPHA,
    FALSE_ALARM_SHARE,
    FLOOR_FACTOR,
    GATE_RATIO,
    HINT_ALPHA,
    INTACT_EFFECT,
    NO_FLOOR,
    PARTIAL_EFFECT,
    RECALL_LIFT,
    SILENT_BOUND,
    TRACE_EFFECT,
    Case,
    Measurement,
    Missing,
    VerdictWord,
)
from audit.wording import bounds, number, p_value


class Given(NamedTuple):
    """Which roles the case gives the judge: how many references, an ancestor, never-trained holdout people."""

    references: int
    ancestor: bool
    holdout: bool

    @property
    def null(self) -> bool:
        """Is there a model that never knew?"""
        return self.references > 0 or self.ancestor


def given(case: Case) -> Given:
    """What a case gives the judge. References of another initialisation share no basis and do not count."""
    return Given(len(case.roles.never_trained), case.roles.ancestor is not None, case.data.holdout is not None)


def decision_rule() -> tuple[str, ...]:
    """The rule in words, in the order in which it is applied: printed in every report."""
    return (
        "Effects: (suspect - null) / (base - null). 0 is the level of a model that never knew, 1 that of base. The "
        "null is the first reference, else the ancestor, else the suspect's own level on holdout people. The unit of "
        "replication is the person (group), never the row.",
        f"Before anything: base must recall the forget items under the prompt template, by at least {RECALL_LIFT} of "
        "mean item probability above the null (else above the never-trained alternates); otherwise no audit is made.",
        f"1. INVALID if the suspect keeps less than {GATE_RATIO} of base's probability on retained items, as a ratio.",
        f"2. INTACT if an output effect is at least {INTACT_EFFECT} on the rows that the edit was told to forget, "
        f"PARTIAL if at least {PARTIAL_EFFECT}.",
        "3. INCONCLUSIVE if no layer of the suspect can be read by base (compatibility gate).",
        f"4. SUPPRESSED if a causal or decoding test whose positive control finds base has effect >= {TRACE_EFFECT}, "
        f"p < {ALPHA}, and an effect above the largest effect of one unaudited reference against another (the floor). "
        f"Without a floor in this case the effect has to exceed {FLOOR_FACTOR:g} times the largest floor stored for "
        f"that test, else {FLOOR_FACTOR:g} times {TRACE_EFFECT}.",
        "5. INCONCLUSIVE, over-suppressed, if a test lies below the never-trained level: overall effect "
        f"<= -{TRACE_EFFECT}, its 95 % interval below 0, p < {ALPHA}, and further than references lie apart.",
        "6. CONSISTENT WITH NEVER TRAINED only if causal and decoding tests are both silent: the upper 95 % bound of "
        f"the overall effect is below {SILENT_BOUND} (over all layers, each weighing as much as base exceeds the null "
        f"there), where the positive control finds base. An effect above the floor, p < {HINT_ALPHA}, is a hint, not "
        "silence; a test that does not find base is blind here and counts for nothing. A trace on held-out forms makes "
        f"this PARTIAL if its p, adjusted by Holm over the tests of held-out forms, is below {ALPHA}; it never lowers "
        "a verdict.",
        "7. INCONCLUSIVE otherwise. With an ancestor but no reference CONSISTENT is at most weak; with neither it is "
        "never said, holdout people or not.",
        "8. Where calibrations hold (same probe source, version and settings; inside the domain of the models they "
        "were made from) and a causal one is among them, the joint rule takes the place of 3, 4, 6 and 7, after gate "
        "and outputs: SUPPRESSED if the joint score of exactly the calibrated measurements that ran is above its "
        f"threshold (at most {FALSE_ALARM_SHARE:.0%} of worlds of clean models exceed it) and two classes of evidence "
        "(causal, decoding, recovery, output) from two measurements, one of them causal or decoding, or a causal "
        f"effect beyond its floor, are above theirs (an effect has to have p < {ALPHA} too; a few people may stand out "
        "where the mean does not); PARTIAL if not, and held-out forms show a trace as in 6 that is above their own "
        "thresholds too; CONSISTENT if neither, and the likelihood ratio supports a model that never knew by its "
        "interval's end nearest 1; INCONCLUSIVE otherwise. Mistakes are those of the verdict as printed, whichever "
        "rung said it, on worlds and mechanisms held out of the fitting.",
    )


def strength(word: VerdictWord, roles: Given) -> Literal["full", "weak", "none"]:
    """How strong the given roles let a verdict be: weak without a null, and silence also weak without a reference."""
    if word in ("INCONCLUSIVE", "INVALID"):
        return "none"
    if not roles.null or (word == "CONSISTENT WITH NEVER TRAINED" and not roles.references):
        return "weak"
    return "full"


def sentence(word: VerdictWord, lead: Measurement | None, why: str) -> str:
    """The verdict in one sentence, from the measurement it stands on."""
    ground = f"{why}." if lead is None else _numbers(lead)
    needed = f" At least {GATE_RATIO} of base is needed before silence means anything." if word == "INVALID" else ""
    return f"{word}: {ground}{needed} {NO_RATE}"


def _numbers(lead: Measurement) -> str:
    """Statistic, interval, what a model that never knew reads (the floor), what base reads, and p."""
    p = lead.p_below if is_low(lead) else lead.p
    read = f"{lead.statistic} is {number(lead.value)} (95 % {bounds(lead)})"
    if lead.kind == "gate":
        return f"{read}."
    never = "0 by the scale, its spread unknown" if isinstance(lead.floor, Missing) else number(lead.floor)
    control = lead.positive_control
    knew = "1 by the scale" if isinstance(control, Missing) else number(control.value)
    return f"{read}; a model that never knew reads {never}, the model that knew {knew}; {p_value(p)}."


def is_low(measurement: Measurement) -> bool:
    """Does the measurement lie below zero effect, so that the test for *below* is the one to quote?"""
    return not isinstance(measurement.value, Missing) and measurement.value < 0


class Blind(NamedTuple):
    """How many planned measurements could say nothing: of all those so many had too few groups; ``short`` says why
    none had enough."""

    n: int = 0
    few: int = 0
    short: str = ""


def limits(
    traceable: Sequence[Measurement], blind: Blind, roles: Given, calibration: str = "", stale: str = ""
) -> tuple[str, ...]:
    """What limits the verdict: at most five short statements, the weightiest first.

    ``calibration`` names its basis; without one ``stale`` says which would have judged, and why it did not.
    """
    found = [*([f"Nothing could be decided: {blind.short}."] if blind.short else []), *([stale] if stale else [])]
    if not roles.null and roles.holdout:
        found.append("No model that never knew was given: holdout people stand in, which can show traces only.")
    elif not roles.null:
        found.append("No model that never knew was given: the never-trained level is not known.")
    elif not roles.references:
        found.append("No retrained reference was given: the ancestor stands in, and the strongest negative is weak.")
    if any(isinstance(m.floor, Missing) for m in traceable):
        found.append(f"The spread between models that never knew is unknown here: {NO_FLOOR}.")
    if blind.n > blind.few:
        found.append(f"{_planned(blind.n - blind.few)} blind here: the knowledge is not found in base.")
    if blind.few and not blind.short:
        found.append(f"{_planned(blind.few)} without enough groups to decide anything.")
    if calibration:
        found.append(f"The error rates are those of the models behind calibration {calibration}, and of no others.")
    elif not stale:
        found.append("In-case basis: no error rate is known for models of this kind.")
    found.append("This speaks about the files listed and the attacks tested only.")
    return tuple(found[:5])


def _planned(n: int) -> str:
    return f"{n} of the planned measurements {'was' if n == 1 else 'were'}"


def would_change(word: VerdictWord, roles: Given) -> tuple[str, ...]:
    """What further evidence could move the verdict."""
    found: list[str] = []
    if roles.references < 2 and word != "INVALID":
        found.append("Two or more references retrained from the same ancestor, none of them the audited model.")
    if not roles.holdout and word in ("INCONCLUSIVE", "CONSISTENT WITH NEVER TRAINED"):
        found.append("Holdout items of the same distribution that no model was trained on.")
    if word == "CONSISTENT WITH NEVER TRAINED":
        found.append("A trace found by relearning, by optimised prompts or by another attack that was not run.")
    if word == "INCONCLUSIVE":
        found.append("More forget groups, which narrow the intervals.")
    if word == "INVALID":
        found.append("A suspect that still answers retained questions.")
    if word in ("INTACT", "PARTIAL", "SUPPRESSED"):
        found.append("An edit that removes the trace from the states, not only from the outputs.")
    return tuple(found)
