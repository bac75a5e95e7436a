"""The decision rule in words, and which roles a case gives the judge.

The text that every report prints is generated from the numbers that :mod:`audit.judging` compares with, so the two
cannot drift apart. Start values come from trials on models of known truth; a calibration replaces them where it holds.
"""

from typing import NamedTuple

from audit.schema import (
    ALPHA,
    BLUNT,
    FALSE_ALARM_SHARE,
    FDR,
    FLOOR_FACTOR,
    GATE_RATIO,
    HINT_ALPHA,
    INTACT_EFFECT,
    PARTIAL_EFFECT,
    POWER,
    RECALL_LIFT,
    SILENT_BOUND,
    TRACE_EFFECT,
    Case,
)
from audit.wording import PERSON, Replicate


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


def decision_rule(over: Replicate = PERSON) -> tuple[str, ...]:
    """The rule in words, in the order in which it is applied: printed in every report, of the units of its audit."""
    return tuple(map(over.rephrased, _rule()))


def _rule() -> tuple[str, ...]:
    return (
        "Effect: (suspect - null) / (base - null); 0 is a model that never knew, 1 is base. Null: the first reference, "
        "else the ancestor, else the suspect's own level on holdout people. Unit of replication: the person (group).",
        f"Before anything: base recalls the forget items by at least {RECALL_LIFT} of mean item probability above the "
        "null (else above never-trained alternates); otherwise no audit is made.",
        "Axes: outputs, and inside (causal and decoding tests, and what relearning or rounding brings back beyond the "
        "outputs), each the test with the highest lower 95 % bound, its interval widened to all tests that compete "
        "(Bonferroni). Only tests whose positive control finds base count.",
        f"Trace: effect at least {TRACE_EFFECT} (outputs: {PARTIAL_EFFECT}), p < {ALPHA} (inside: by Holm over all "
        "tests of the inside), interval above 0 (outputs: above the floor), and effect above the floor, which is the "
        "effect of one unaudited reference against another; without it "
        f"{FLOOR_FACTOR:g} times the largest floor stored for the test (at most half way from it to base), else "
        f"{FLOOR_FACTOR:g} times {TRACE_EFFECT}.",
        "The word is the first of these that holds:",
        f"1. INVALID: the suspect keeps less than {GATE_RATIO} of base's probability on retained items. (INCONCLUSIVE "
        "where no gate was measured.)",
        f"2. INTACT: the outputs' lower bound is at least {INTACT_EFFECT}.",
        "3. SUPPRESSED: a trace inside, and its lower bound is above the outputs' upper bound: it hides more than it "
        "says.",
        "4. PARTIAL: a trace in the outputs, or one inside that is not beyond doubt above the outputs; or people whom "
        "two kinds of evidence (outputs, states, what a lesson brings back) name, each with a false discovery rate of "
        f"{FDR:.0%} against people whom nobody knew.",
        "5. INCONCLUSIVE, over-suppressed: no trace, and a test of outputs or states below the never-trained level: "
        f"overall effect at most -{TRACE_EFFECT}, p < {ALPHA}, its interval further below than references lie apart "
        f"(here or, if more, in the floors stored; without a second reference {FLOOR_FACTOR:g} times the stored one, "
        "and between once and that often the test is open).",
        f"6. CONSISTENT WITH NEVER TRAINED: every sharp test is silent, among them one of the outputs and one of the "
        f"states. Sharp: finds {BLUNT} of base, held of everybody, with probability {POWER} (its detection limit); "
        "others are blunt, and neither block nor count. Silent: no trace, no hint (effect above the floor with "
        f"p < {HINT_ALPHA}, by Holm over all sharp tests), and an upper bound of the overall effect below the larger "
        f"of {SILENT_BOUND} and the detection limit. Where no power is known causal and decoding tests both have to "
        f"be silent by {SILENT_BOUND}. A trace on held-out forms, p < {ALPHA} by Holm over these, makes this PARTIAL.",
        "7. INCONCLUSIVE: otherwise, with the reason. With an ancestor or one reference alone CONSISTENT is weak, as "
        "where a test that counts is open above 0; with neither it is never said.",
        "8. Calibrated (probes as they were calibrated, inside the domain, a causal one among them): whether there is "
        "a trace is the joint rule's, and the axes give the word. The joint score has to exceed its threshold (at most "
        f"{FALSE_ALARM_SHARE:.0%} of worlds of clean models do), with evidence of two classes (causal, decoding, "
        "recovery, output) from two measurements, one of them causal or decoding, or of a causal effect beyond its "
        f"floor (p < {ALPHA}; or a few people stand out). A trace in the outputs, one that an attack brings back, and "
        "one inside a suspect below the never-trained level stand by this case. Without any: PARTIAL where held-out "
        "forms show one above their thresholds too; CONSISTENT where the likelihood ratio supports a model that never "
        "knew and no test of this case finds a trace; else INCONCLUSIVE. No ratio is given for never trained of a "
        "suspect below that level. Mistakes are those of the verdict as printed, on worlds and mechanisms held out.",
    )
