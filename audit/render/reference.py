"""Fixed words of every report: the propositions weighed, and the glossary."""

from typing import Final

PROPOSITIONS: Final = (
    ("H1", "The suspect still carries information from F beyond what a model never trained on F carries."),
    ("H2", "The suspect behaves as a model trained the same way, without F."),
    (
        "Also considered",
        "Leakage through paraphrases, generalisation from related data, and contamination of the evaluation items.",
    ),
)

GLOSSARY: Final = (
    ("Suspect", "The checkpoint under audit: it is said to have forgotten."),
    ("Base", "The checkpoint that knew F; the positive control."),
    ("Reference", "A model trained the same way from the same ancestor, without F. No model is its own reference."),
    ("Ancestor", "The public checkpoint before it was taught F."),
    ("Effect", "(suspect − null) / (base − null): 0 is the level of a model that never knew, 1 is base."),
    ("Null", "The same statistic where the knowledge is absent."),
    ("Floor", "The effect of one unaudited reference against another: the spread between models that never knew."),
    ("Positive control", "The same test on base. Where it does not find the knowledge, the test is blind."),
    ("Detection limit", "The largest trace that a silent test still allows, by its 95 % interval."),
    ("In-case basis", "Judged by this case's own null and controls. No error rate is known, so none is printed."),
    ("Calibrated basis", "Judged by models of known truth of the same kind; the mistakes of the rule are counted."),
    (
        "Likelihood ratio",
        "The probability of the findings if H1 holds over that if H2 does, by models of known truth. "
        "It says nothing of how probable H1 is: that needs what the reader knew before.",
    ),
    ("Ceiling", "The largest likelihood ratio that the number of independent worlds supports: N clean ones, N + 1."),
    (
        "False alarm, miss",
        "A clean model said to hold a trace; a model that knows everything said to hold none. "
        "Counted in worlds that the rule was not fitted on.",
    ),
    ("▲ trace found", "The effect is above its null and above the floor."),
    ("● no trace found", "The test found base, and is silent here down to its detection limit."),
    ("◆ inconclusive", "The test cannot decide, or is blind here."),
    ("– not run", "The test was not made; the reason is given."),
    ("INTACT", "The outputs still hold at least half of the knowledge."),
    ("PARTIAL", "The outputs hold part of it, or held-out forms show a trace."),
    ("SUPPRESSED", "The outputs keep quiet; the states still hold it."),
    ("CONSISTENT WITH NEVER TRAINED", "Causal and decoding tests are silent where both find base. It is not erasure."),
    ("INCONCLUSIVE", "The evidence does not decide, and the report says why."),
    ("INVALID", "The suspect fails the utility gate: a broken model is silent about everything."),
)
