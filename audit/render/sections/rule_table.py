"""The decision rule as a table: each verdict, what it needs, and of which evidence, from the numbers that judge.

The registered words of the rule stand in the appendix. A report whose rule reads otherwise shows its own words here.
"""

from typing import Final

from audit.judging import decision_rule, replicates_of
from audit.render.sections.blocks import Block, Bullets, Cell, Facts, Grid, Text
from audit.render.wording.findings import sentence
from audit.schema import (
    ALPHA,
    BLUNT,
    FALSE_ALARM_SHARE,
    FDR,
    GATE_RATIO,
    INTACT_EFFECT,
    PARTIAL_EFFECT,
    POWER,
    RECALL_LIFT,
    SILENT_BOUND,
    TRACE_EFFECT,
    Report,
)

COLUMNS: Final = ("Verdict", "Needs", "Of which evidence")
RULE: Final = (
    ("INVALID", f"The suspect keeps less than {GATE_RATIO} of base's probability.", "Retained items: the utility gate"),
    ("INTACT", f"The lower end of the interval is at least {INTACT_EFFECT}.", "Outputs"),
    ("SUPPRESSED", "A trace. Its lower end is above the upper end of the outputs.", "Internals"),
    (
        "PARTIAL",
        "A trace in the outputs, or one inside that may be no larger than what the outputs say. Or people whom two "
        f"kinds of evidence name, at a false discovery rate of {FDR:.0%}.",
        "Outputs, internals, recovery",
    ),
    (
        "INCONCLUSIVE (over-suppressed)",
        f"No trace. An overall effect is at most −{TRACE_EFFECT}, with p < {ALPHA}. It lies further below than "
        "references lie apart.",
        "Outputs or states",
    ),
    (
        "CONSISTENT WITH NEVER TRAINED",
        "Every sharp test is silent. A trace on held-out forms makes this PARTIAL. It needs a model that never knew, "
        "and is weak with one alone.",
        "At least one sharp test of the outputs and one of the states",
    ),
    ("INCONCLUSIVE", "None of these holds. The reason is given.", "All"),
)
TERMS: Final = (
    (
        "Recall",
        f"Base has to recall the forget items by {RECALL_LIFT} of mean probability above the null. Otherwise there is "
        "no audit.",
    ),
    (
        "Trace",
        f"An effect of at least {TRACE_EFFECT} (outputs: {PARTIAL_EFFECT}) and above the floor. Its interval is above "
        f"0, and p < {ALPHA}.",
    ),
    ("Sharp", f"The test finds {BLUNT} of base, held of everybody, with probability {POWER}. Others do not count."),
    (
        "Silent",
        f"No trace and no hint. The upper bound lies below {SILENT_BOUND}, or below the detection limit if that is "
        "larger.",
    ),
    (
        "Calibrated",
        "Where a calibration holds, the joint rule says whether there is a trace, and the axes give the word. At most "
        f"{FALSE_ALARM_SHARE:.0%} of worlds of clean models exceed its threshold. Two classes of evidence have to "
        "agree, one of them of the states.",
    ),
)


def rule_blocks(report: Report) -> tuple[Block, ...]:
    """The rule as a table, the first row that holds giving the word; an earlier version's rule in its own words."""
    over = replicates_of(report.evidence)
    if report.decision_rule != decision_rule(over):
        return (registered_rule(report),)
    rows = tuple((Cell(word, "tight"), Cell(over.rephrased(needs)), Cell(where)) for word, needs, where in RULE)
    return (
        Text("The first row that holds gives the word. The registered words of the rule are in the appendix."),
        Grid("Decision rule", COLUMNS, rows),
        Facts(tuple((term, over.rephrased(meaning)) for term, meaning in TERMS)),
    )


def registered_rule(report: Report) -> Bullets:
    """The rule in the words that the report carries."""
    return Bullets(tuple(sentence(x) for x in report.decision_rule), plain=True)
