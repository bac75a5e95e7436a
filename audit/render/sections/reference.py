"""Fixed words of every report: the propositions weighed, standards, references, custody, blanks to sign."""

from typing import Final

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
