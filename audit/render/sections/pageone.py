"""Page one, which stands alone when it is printed: the question and its propositions; the answer and its limits."""

from audit.judging import replicates_of, taking_part
from audit.render.sections.blocks import Block, Bullets, Code, Facts, Heading, Text
from audit.render.sections.glance import audited, known
from audit.render.sections.reference import PROPOSITIONS
from audit.render.wording.detections import holding
from audit.render.wording.findings import GONE, meaning, sentence, spoken
from audit.render.wording.posterior import how_sure, with_prior
from audit.schema import Report
from audit.wording import NAME, units, visible


def question(report: Report) -> tuple[Block, ...]:
    """What was asked, the two propositions that are weighed, others that were considered, and what was known."""
    return (
        Text(
            "What is left, in the suspect checkpoint, of the forget set F that it was asked to forget, and how sure "
            "are we?"
        ),
        Facts((*PROPOSITIONS, ("Conditioning information", _known(report)))),
    )


def _known(report: Report) -> str:
    """What the findings are conditional on."""
    over = replicates_of(report.evidence)
    case = taking_part(report.plan.case, report.roles_audited)
    edited = case.edited if isinstance(case.edited, str) else f"{len(case.edited)} named items"
    extent = {"all": "the whole forget set", "unknown": "an unknown part of the forget set"}.get(edited, edited)
    kin = len(case.roles.never_trained)
    checked = "measured first: section 4" if report.roles_audited else "declared, not verified"
    if kin:
        models = "1 model" if kin == 1 else f"{kin} models"
        null = f"is that of {models} retrained without F from the same ancestor ({checked})"
    elif case.roles.ancestor is not None:
        null = f"is that of the public checkpoint before it was taught F ({checked})"
    else:
        null = "is not known: no such model was given" + (
            f", holdout {over.plural} stand in" if case.data.holdout else ""
        )
    level = f"The never-trained level {null}.{_refused(report)}"
    return f"The suspect was edited on {extent}. Audited: {audited(report)}. {level}"


def _refused(report: Report) -> str:
    """How many declared references were refused."""
    references = [x for x in report.roles_audited if x.role.startswith("reference")]
    refused = [x for x in references if not x.takes_part]
    if not refused:
        return ""
    declared = f"{len(references)} reference{'s' if len(references) > 1 else ''} declared, {len(refused)} refused"
    return f" {declared} (section 4)."


def conclusion(report: Report, prior_odds: float | None = None) -> tuple[Block, ...]:
    """The four answers: is it gone, how sure, what was not tested, how to repeat it; then limits and what would change
    it. With the reader's prior the posterior too, never without."""
    verdict = report.verdict
    rows = [
        ("Is it gone?", f"{GONE[verdict.word]} {verdict.word}: {meaning(report)}{_beside(report)}"),
        *known(report),
        ("How sure?", how_sure(report, brief=True)),
        ("What ran?", _ran(report)),
        ("What was not tested?", sentence(untested(report))),
    ]
    if prior_odds is not None:
        rows.append(("With your prior", with_prior(report, prior_odds)))
    limits = tuple(dict.fromkeys(sentence(x) for x in (*verdict.limits, *report.limits)))[:5]
    blocks: list[Block] = [Facts(tuple(rows)), Heading("How do I repeat it?"), Code(visible(report.reproduce))]
    blocks += [Heading("Limits"), Bullets(limits)]
    if verdict.would_change:
        changes = tuple(sentence(spoken(report, x)) for x in verdict.would_change)
        blocks += [Heading("What would change it"), Bullets(changes)]
    return tuple(blocks)


def _beside(report: Report) -> str:
    """The findings that hold, by name; the lines under the verdict and the findings have their numbers."""
    names = holding(report)
    return f" Beside it: {', '.join(names)}." if names else ""


def _ran(report: Report) -> str:
    """How much of what was planned stands behind the verdict, and over which units it speaks."""
    ran = len({e.measurement.probe for e in report.evidence})
    plan = {t.probe for t in report.plan.tests} | {e.measurement.probe for e in report.evidence}
    over = next((units(e.measurement) for e in report.evidence if e.measurement.units), "no units of replication")
    return (
        f"{ran} of {len(plan)} planned tests gave findings, over {over}. Strength of the verdict: "
        f"{report.verdict.strength}; basis: {report.verdict.basis}. This speaks about the files listed in section 3 "
        "and the attacks tested in section 9 only."
    )


def untested(report: Report) -> str:
    """What no test of this report speaks about: attack families and probes that were not run, in one line."""
    families = [attack.family for attack in report.attacks if not attack.measurements]
    probes = [*(s.probe for s in report.skips), *(f.probe for f in report.failures)]
    names = dict.fromkeys(visible(x, NAME).replace("_", " ") for x in (*families, *probes))
    return ", ".join(names) or "every listed attack family was tested"
