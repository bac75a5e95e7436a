"""Fixed words of every report: the propositions weighed, standards, glossary, verbal scale, references, custody."""

from typing import Final

from audit.judging import BANDS, STRONGEST, replicates_of
from audit.render.sections.blocks import Block, Bullets, Cell, Facts, Grid, Heading, Text
from audit.schema import Report
from audit.wording import NAME, moment, visible

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
    (
        "Roles audited",
        "Every model is measured before it judges: whether it knows what it is said never to have learned, "
        "and whether it is a copy of another. One that fails takes no part.",
    ),
    (
        "Effect",
        "(suspect − null) / (base − null): 0 is the level of a model that never knew, 1 is base. The name of the "
        "number where a test has one, and not one for every layer.",
    ),
    ("Largest over layers", "The largest effect of a test's layers: it finds traces, which may lie in one layer only."),
    (
        "Overall effect",
        "The effect over all layers of a test, each weighing as much as base exceeds the null there: it "
        "bounds what may be left, and says whether a suspect lies below. Calibrated thresholds hold for this number.",
    ),
    (
        "Outputs, internals",
        "The two axes of a verdict, as shares of base: what the model says, and what its states hold "
        "or an attack brings back.",
    ),
    (
        "People kept",
        "The share of the audited people who are known, and how much of base is known of those. Names are "
        "given at a false discovery rate: of those named, that share is expected to be there by chance.",
    ),
    ("Null", "The same statistic where the knowledge is absent."),
    (
        "Null band",
        "What the largest over layers reads in 95 % of draws of the null. It gives p; it decides nothing alone.",
    ),
    ("Floor", "The effect of one unaudited reference against another: the spread between models that never knew."),
    ("Calibrated threshold", "The overall effect above which a trace is stated, by models of known truth."),
    (
        "What decides",
        "Of null, floor and threshold the one that a number was held against: the black line of a figure.",
    ),
    ("Positive control", "The same test on base. Where it does not find the knowledge, the test is blind."),
    ("Upper bound", "The largest overall effect that a silent test still allows: the upper end of its 95 % interval."),
    (
        "Detection limit",
        "The smallest planted trace that is found with probability .8: for a test of this case as a "
        "share of base's excess and as people known in full, for a calibration as people kept, counted in worlds.",
    ),
    (
        "Sharp, blunt",
        "A test is sharp where its detection limit in this case is small. One too blunt to be silent neither "
        "blocks a verdict nor counts for it.",
    ),
    ("In-case basis", "Judged by this case's own null and controls. No error rate is known, so none is printed."),
    ("Calibrated basis", "Judged by models of known truth of the same kind; the mistakes of the rule are counted."),
    ("World", "A set of people and facts of its own, made up, with the models that were taught it or never were."),
    ("Zoo", "All worlds together, and their models of known truth: the material of the calibrations."),
    ("Mechanism", "A way in which a model of the zoo was made to forget. Held out: left out when the rule was fitted."),
    ("Fake, dose", "A fake knows everything and keeps quiet. A dose was taught only some of the people, or a part."),
    ("Joint rule", "One score of all calibrated measurements that ran, and its threshold."),
    (
        "Compatibility gate",
        "Base has to read the suspect's states of retained items, layer by layer. A layer at which it "
        "cannot says nothing; without any there is no common basis.",
    ),
    (
        "Held-out phrasing, held-out attribute",
        "Questions that ask the same in other words, or for another fact of the "
        "same people, which an edit was not told to forget.",
    ),
    (
        "Likelihood ratio",
        "The probability of the findings if H1 holds over that if H2 does, by models of known truth. "
        "It says nothing of how probable H1 is: that needs what the reader knew before. None is printed for a suspect "
        "below the never-trained level, nor one for H2 beside a trace.",
    ),
    ("Ceiling", "The largest likelihood ratio that the number of independent worlds supports: N clean ones, N + 1."),
    (
        "False alarm, miss",
        "A model that never knew said to hold a trace; a fake said to hold none. Counted in worlds that the rule was "
        "not fitted on, a world once however many of its models were judged.",
    ),
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

CROSSWALK: Final = (
    ("ISO/IEC 17025:2017, 7.8.2.1 a, d", "Title, unique identification, clear end", "Header; last line"),
    ("7.8.2.1 b, c, e", "Laboratory, place, customer", "Not known to a tool: to be filled in at the sign-off"),
    ("7.8.2.1 f", "Method", "Method and decision rule; registered plan (appendix)"),
    ("7.8.2.1 g, h", "Items: identity, condition, receipt", "Items received (appendix); Roles audited"),
    ("7.8.2.1 i, j", "Dates of performance and issue", "Method (registered); header (issued)"),
    ("7.8.2.1 k", "Sampling", "Items received (appendix); Method (split of the data)"),
    ("7.8.2.1 l", "Results relate only to the items tested", "Conclusion"),
    ("7.8.2.1 m; 7.8.3.1 c", "Results with units; measurement uncertainty", "Findings; each family (appendix)"),
    ("7.8.2.1 n", "Deviations and exclusions", "Not run and failed; registered plan (appendix), last part"),
    ("7.8.2.1 o", "Who authorises", "Sign-off: blank, for a human"),
    ("7.8.6", "Decision rule and its risks of false acceptance and rejection", "Method; Controls and validation"),
    ("7.8.7", "Opinions and interpretations", "Conclusion, on the verbal scale of the glossary"),
    ("7.8.8", "Amendments", "Change history (appendix)"),
    (
        "ISO 21043-4, -5:2025; ENFSI 2015",
        "Pair of propositions, likelihood ratio, conditioning",
        "Question; Conclusion; Controls and validation",
    ),
)
REFERENCES: Final = (
    "ISO/IEC 17025:2017, General requirements for the competence of testing and calibration laboratories, 7.8.",
    "ISO 21043-4:2025 and 21043-5:2025, Forensic sciences: interpretation; reporting.",
    "ENFSI guideline for evaluative reporting in forensic science (2015). The scale here is modelled on it.",
    "Martire et al. (2014), Forensic Science International 240:61: numbers convey strength best; words alone mislead.",
    "Lund and Iyer (2017), J. Res. NIST 122:27: a ratio needs a statement of its uncertainty.",
    "Vergeer et al. (2016), Science & Justice 56:482: ratios from small data have to be bounded.",
    "Brümmer and du Preez (2006), Computer Speech & Language 20:230: the cost of likelihood ratios, Cllr.",
    "Holm (1979), Scand. J. Statist. 6:65; Benjamini and Hochberg (1995), J. R. Statist. Soc. B 57:289: many tests.",
    "Clopper and Pearson (1934), Biometrika 26:404: exact bounds of counted rates.",
)
CUSTODY: Final = (
    (
        "Custody",
        "custody.jsonl beside this report is a chain: every line carries its own hash and that of the line before. "
        "`residua verify RUN` recomputes it, every hash, the schema, and the verdict from the numbers.",
    ),
    ("Against accident", "`sha256sum -c manifest.sha256` in the run folder, with no tool of ours."),
    (
        "Against forgery",
        "Who can change the files can write the manifest anew. Compare the report id with a copy that was printed or "
        "sent elsewhere, or keep a detached signature of manifest.sha256.",
    ),
)
BLANK: Final = "_" * 36


def crosswalk() -> Grid:
    """Where this report answers what a standard asks of one."""
    rows = tuple((Cell(clause, "tight"), Cell(demand), Cell(where)) for clause, demand, where in CROSSWALK)
    return Grid("From standards to sections (which claims no conformity)", ("Clause", "Asks for", "Section"), rows)


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


def references(report: Report) -> tuple[Block, ...]:
    """References, custody and change history."""
    issued = f"{visible(report.report_id, NAME)}, issued {moment(report.created)}, {report.status}"
    history = [("This document", issued)]
    if report.parent:
        history.append(("Derived from", visible(report.parent, NAME)))
    return (
        Bullets(REFERENCES),
        Heading("Custody"),
        Facts(CUSTODY),
        Heading("Change history"),
        Facts(tuple(history)),
    )


def sign_off() -> tuple[Block, ...]:
    """Blanks for the people who answer for the report."""
    return (
        Facts(tuple((who, BLANK) for who in ("Examined by", "Reviewed by", "Organisation and place", "Date"))),
        Text("The tool never signs. These lines are for the people who answer for this report."),
    )
