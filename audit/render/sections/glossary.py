"""The glossary: every term that the body of a report uses, and the verbal scale of likelihood ratios."""

from typing import Final

from audit.judging import BANDS, STRONGEST, replicates_of
from audit.render.sections.blocks import Block, Cell, Facts, Grid, Heading, Text
from audit.schema import Report

GLOSSARY: Final = (
    ("Suspect", "The checkpoint under audit: it is said to have forgotten."),
    ("Forget set, F", "What the suspect was asked to forget. Retained items are those that it should keep."),
    ("Base", "The checkpoint that knew F; the positive control."),
    ("Reference", "A model trained the same way from the same ancestor, without F. No model is its own reference."),
    ("Ancestor", "The public checkpoint before it was taught F."),
    ("Holdout people", "People whom no model was taught."),
    (
        "Roles audited",
        "Every model is measured before it judges. Does it know what it is said never to have learned? Is it a "
        "copy of another? One that fails takes no part.",
    ),
    ("States, layer", "The numbers inside a model as it reads, one set for each of its layers."),
    ("Effect", "(suspect − null) / (base − null): 0 is the level of a model that never knew, 1 is base."),
    ("Never trained, never-trained level", "What a model reads that never learned F: effect 0."),
    ("Largest over layers", "The largest effect of a test's layers: it finds traces, which may lie in one layer only."),
    (
        "Overall effect",
        "The effect over all layers of a test. It bounds what may be left, and says whether a suspect lies below."
        " Calibrated thresholds hold for this number.",
    ),
    (
        "Outputs, internals",
        "The two axes of a verdict, as shares of base: what the model says, and what its states hold or an attack"
        " brings back.",
    ),
    ("People kept", "The share of the audited people who are known, and how much of base is known of those."),
    ("False discovery rate", "Of those named, the share that is expected to be there by chance."),
    ("Null", "The same statistic where the knowledge is absent."),
    (
        "Null band",
        "What the largest over layers reads in 95 % of draws of the null. It gives p; it decides nothing alone.",
    ),
    (
        "p",
        "How often the null gives a number so large. Adjusted: raised for the number of tests, by Holm where they"
        " were planned, else by BH (Benjamini and Hochberg).",
    ),
    ("Floor", "The effect of one unaudited reference against another: the spread between models that never knew."),
    ("Calibrated threshold", "The overall effect above which a trace is stated, by models of known truth."),
    (
        "What decides",
        "Of null, floor and threshold the one that a number was held against: the black line of a figure.",
    ),
    ("Trace", "A sign of F that is beyond what decides. A hint is one that is not beyond doubt."),
    ("Positive control", "The same test on base. Where it does not find the knowledge, the test is blind."),
    ("Upper bound", "The largest overall effect that a silent test still allows: the upper end of its 95 % interval."),
    (
        "Detection limit",
        "The smallest planted trace that is found with probability .8 (its power). For a test: a share of base's "
        "excess, or people known in full. For a calibration: people kept, counted in worlds.",
    ),
    (
        "Sharp, blunt",
        "A test is sharp where its detection limit in this case is small. One too blunt to be silent neither "
        "blocks a verdict nor counts for it.",
    ),
    (
        "Strength",
        "How much stands behind a word: full, weak or none. Weak where there is one model alone that never knew.",
    ),
    ("In-case basis", "Judged by this case's own null and controls. No error rate is known, so none is printed."),
    ("Calibrated basis", "Judged by models of known truth of the same kind; the mistakes of the rule are counted."),
    ("World", "A set of people and facts of its own, made up, with the models that were taught it or never were."),
    ("Zoo", "All worlds together, and their models of known truth: the material of the calibrations."),
    (
        "Decoy, own kind",
        "Decoys are invented people. A case's own base is taught them and made to forget them, so that mistakes are"
        " counted on models of its own kind.",
    ),
    ("Held out", "Not used when a rule was fitted. Mistakes are counted in worlds that were held out."),
    ("Mechanism", "A way in which a model of the zoo was made to forget."),
    ("Fake, dose", "A fake knows everything and keeps quiet. A dose was taught only some of the people, or a part."),
    ("Joint rule, score", "One score of all calibrated measurements that ran, and its threshold."),
    (
        "Class of evidence",
        "Outputs, causal (states read by base), decoding (states read out) or recovery (what an attack brings back).",
    ),
    ("Utility gate", "Is the suspect still a usable model? It has to keep half of what base knows of retained items."),
    (
        "Compatibility gate, common basis",
        "Base has to read the suspect's states of retained items, layer by layer. A layer at which it cannot says"
        " nothing; without any there is no common basis.",
    ),
    (
        "Held-out phrasing, attribute or form",
        "Questions that ask the same in other words, or for another fact of the same people. The edit was not "
        "told to forget them.",
    ),
    ("Rule of yes or no", "A finding beside the verdict that holds or does not, with error rates of its own."),
    (
        "Access",
        "What an attacker needs: questions (black-box), probabilities (logits), states (weights) or more training"
        " (fine-tune).",
    ),
    (
        "Likelihood ratio",
        "The probability of the findings if H1 holds over that if H2 does, by models of known truth. It says "
        "nothing of how probable H1 is: that needs what the reader knew before. None is printed for a suspect "
        "below the never-trained level, nor one for H2 beside a trace.",
    ),
    ("Ceiling", "The largest likelihood ratio that the number of independent worlds supports: N clean ones, N + 1."),
    ("Cllr", "The cost of likelihood ratios: how far they mislead on average, in bits."),
    (
        "False alarm, miss",
        "A model that never knew said to hold a trace; a fake said to hold none. A world counts once, however "
        "many of its models were judged.",
    ),
    ("Over-suppressed", "Below the level of a model that never knew: the edit left a mark of its own."),
    ("Plan hash, fingerprint", "A number that changes with any change of the plan, or of a file."),
    ("Context, as published", "Listed and never judged; as published: by the formula of a paper."),
    ("▲ trace found", "The judged number is above what decides."),
    (
        "▼ below never trained",
        "The overall effect is below 0 by more than models that never knew differ: over-suppressed.",
    ),
    ("● no trace found", "The test finds base, and its upper bound leaves no room for a trace here."),
    ("◆ inconclusive", "The test cannot decide, or is blind here."),
    ("– not run", "The test was not made; the reason is given."),
    ("■ INTACT", "The outputs still hold at least half of the knowledge."),
    ("◧ PARTIAL", "The outputs hold part of it and the internals no more, or held-out forms show a trace."),
    ("▣ SUPPRESSED", "The internals hold more than the outputs say."),
    (
        "□ CONSISTENT WITH NEVER TRAINED",
        "The tests that are sharp enough here are silent. That does not prove erasure.",
    ),
    ("◇ INCONCLUSIVE", "The evidence does not decide, and the report says why."),
    ("✕ INVALID", "The suspect fails the utility gate: a broken model is silent about everything."),
)


def verbal_scale() -> Grid:
    """The bands of this report, printed because published scales differ."""
    rows: list[tuple[Cell, ...]] = []
    lower = 1.0
    for upper, words in BANDS:
        rows.append((Cell(f"{_plain(lower)} to {_plain(upper)}", "number"), Cell(words)))
        lower = upper
    rows.append((Cell(f"from {_plain(lower)}", "number"), Cell(STRONGEST)))
    return Grid("The verbal scale of this report", ("Likelihood ratio, or its inverse", "Words"), tuple(rows))


def _plain(value: float) -> str:
    return f"{value:,.0f}".replace(",", " ")


def glossary(report: Report) -> tuple[Block, ...]:
    """Every term of the body in words, and the verbal scale."""
    over = replicates_of(report.evidence)
    return (
        Facts(tuple((over.rephrased(term), over.rephrased(meaning)) for term, meaning in GLOSSARY)),
        Heading("Verbal scale"),
        verbal_scale(),
        Text(
            "The band is that of the interval's end nearest 1, never of the estimate, and never beyond the ceiling. "
            "Words below 1 are for the other proposition."
        ),
    )
