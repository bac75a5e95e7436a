"""Page one, which stands alone when it is printed: what stands under the verdict, the question, the conclusion."""

from audit.judging import replicates_of, taking_part
from audit.render.sections.blocks import Block, Bullets, Facts, Heading, Text
from audit.render.sections.glance import known, three_lines
from audit.render.sections.reference import PROPOSITIONS
from audit.render.wording.findings import ERASED, sentence, spoken
from audit.render.wording.posterior import how_sure, with_prior
from audit.schema import Report
from audit.wording import NAME, units, visible


# ---- the first screen -------------------------------------------------------------------------------------------
def first_lines(report: Report) -> tuple[tuple[str, str], ...]:
    """What stands under the verdict: how sure, who was audited and is known, against what, what was not tested, and
    whether it may be called erased."""
    sure, who, left_out = three_lines(report, untested(report))
    lines = (sure, who, *known(report), ("Compared with", compared_with(report)), left_out,
             ("May it be called erased?", ERASED[report.verdict.word]))  # fmt: skip
    return tuple((term, sentence(words)) for term, words in lines)


def compared_with(report: Report) -> str:
    """The models that stand for never having known, and whether they were measured before they judged."""
    case = taking_part(report.plan.case, report.roles_audited)
    kin = len(case.roles.never_trained)
    checked = "checked by measurement first" if report.roles_audited else "declared, not checked"
    rest = f"{_refused(report)}{_itself(report)}"
    if kin:
        models = "1 model" if kin == 1 else f"{kin} models"
        return f"{models} retrained without the forget set from the same ancestor ({checked}).{rest}"
    if case.roles.ancestor is not None:
        return f"the public checkpoint before it was taught the forget set ({checked}).{rest}"
    holdout = f": holdout {replicates_of(report.evidence).plural} stand in" if case.data.holdout else ""
    return f"no model that never knew was given{holdout}.{rest}"


def _itself(report: Report) -> str:
    """Whether the audited model is one of those that it is compared with."""
    suspect = {x.fingerprint for x in report.exhibits if x.role == "suspect"}
    same = [x.role for x in report.exhibits if x.role != "suspect" and x.fingerprint in suspect]
    return f" The suspect is {same[0]} itself, a control." if same else ""


def repeated(report: Report) -> str:
    """Of which files a run that repeats this one must be: the suspect by its fingerprint."""
    exhibit = next((x for x in report.exhibits if x.role == "suspect"), None)
    if exhibit is None:
        return ""
    return f"with the case file of this run; the suspect's fingerprint is {visible(exhibit.fingerprint[:12], NAME)}"


# ---- sections ---------------------------------------------------------------------------------------------------
def question(report: Report) -> tuple[Block, ...]:
    """What was asked, the two propositions that are weighed, others that were considered, and what was known."""
    return (
        Text("What is left, in the suspect, of the forget set F that it was asked to forget, and how sure are we?"),
        Facts((*PROPOSITIONS, ("Conditioning information", _known(report)))),
    )


def _known(report: Report) -> str:
    """What the findings are conditional on."""
    case = taking_part(report.plan.case, report.roles_audited)
    edited = case.edited if isinstance(case.edited, str) else f"{len(case.edited)} named items"
    extent = {"all": "the whole forget set", "unknown": "an unknown part of the forget set"}.get(edited, edited)
    return f"The suspect was edited on {extent}. F is the forget set, and base is the model that knew it."


def _refused(report: Report) -> str:
    """How many declared references were refused."""
    references = [x for x in report.roles_audited if x.role.startswith("reference")]
    refused = [x for x in references if not x.takes_part]
    if not refused:
        return ""
    declared = f"{len(references)} reference{'s' if len(references) > 1 else ''} declared, {len(refused)} refused"
    return f" {declared} (see Roles audited)."


def conclusion(report: Report, prior_odds: float | None = None) -> tuple[Block, ...]:
    """How sure in full, and what ran; then limits and what would change it. With the reader's prior the posterior too,
    never without."""
    verdict = report.verdict
    rows = [("How sure?", how_sure(report, brief=True)), ("What ran?", _ran(report))]
    if prior_odds is not None:
        rows.append(("With your prior", with_prior(report, prior_odds)))
    limits = tuple(dict.fromkeys(sentence(x) for x in (*verdict.limits, *report.limits)))[:5]
    blocks: list[Block] = [Facts(tuple(rows)), Heading("Limits"), Bullets(limits)]
    if verdict.would_change:
        changes = tuple(sentence(spoken(report, x)) for x in verdict.would_change)
        blocks += [Heading("What would change it"), Bullets(changes)]
    return tuple(blocks)


def _ran(report: Report) -> str:
    """How much of what was planned stands behind the verdict, and over which units it speaks."""
    ran = len({e.measurement.probe for e in report.evidence})
    plan = {t.probe for t in report.plan.tests} | {e.measurement.probe for e in report.evidence}
    over = next((units(e.measurement) for e in report.evidence if e.measurement.units), "no units of replication")
    return (
        f"{ran} of {len(plan)} planned tests gave findings, over {over}. Strength of the verdict: "
        f"{report.verdict.strength}; basis: {report.verdict.basis}."
    )


def untested(report: Report) -> str:
    """What no test of this report speaks about: attack families and probes that were not run, in one line."""
    families = [attack.family for attack in report.attacks if not attack.measurements]
    probes = [*(s.probe for s in report.skips), *(f.probe for f in report.failures)]
    names = dict.fromkeys(visible(x, NAME).replace("_", " ") for x in (*families, *probes))
    return ", ".join(names) or "every listed attack family was tested"
