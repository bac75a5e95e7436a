"""The report put together: what was received, measured, judged and left out, named by its own content."""

from typing import NamedTuple

from audit.case import OpenCase
from audit.planning import published
from audit.runs import (
    Imaged,
    Judges,
    Mask,
    Parts,
    Screen,
    Unit,
    choose,
    concluded,
    copied,
    key_of,
    report_id,
    texts_of,
    withholding,
)
from audit.schema import (
    Case,
    Cohort,
    Domain,
    Environment,
    Exhibit,
    Failure,
    Pictured,
    Plan,
    Report,
    Skip,
    Texts,
)

COHORTS: tuple[Cohort, ...] = ("forget", "retain", "holdout", "general", "neighbour", "forms")


class Outcomes(NamedTuple):
    """What was planned and what came of it: the units in the order of the plan, that of the audit of roles, the tests
    that were left out, and what broke."""

    plan: Plan
    units: tuple[Unit, ...]
    roles: Unit
    refused: tuple[Skip, ...]
    failures: tuple[Failure, ...]
    domain: Domain


class Circumstances(NamedTuple):
    """Where and how a run was made, outside the plan."""

    exhibits: tuple[Exhibit, ...]
    environment: Environment
    registered: str
    created: str
    demo: bool


def cohorts(case: OpenCase) -> dict[str, dict[str, int]]:
    """How many items and groups of each cohort were received, and how many of them are in the audit part."""
    counts: dict[str, dict[str, int]] = {}
    for cohort in COHORTS:
        forms = [Texts(cohort=cohort, form=form) for form in case.forms_in(cohort)]
        given = [texts for texts in forms if case.has(texts)]
        if given:
            everything = [item for texts in given for item in case.items(texts, "all")]
            audited = [item for texts in given for item in case.items(texts)]
            counts[cohort] = {
                "items": len(everything), "groups": len({item.group for item in everything}),
                "audit_items": len(audited), "audit_groups": len({item.group for item in audited}),
            }  # fmt: skip
            if by_rule := sum(item.alternates_from != "given" for item in everything):
                counts[cohort]["items_with_alternates_by_rule"] = by_rule
    return counts


def assemble(case: OpenCase, outcomes: Outcomes, judges: Judges, circumstances: Circumstances) -> Report:
    """The report of a finished run. What it quotes of the data is masked with the key of the run folder."""
    mask, images, classed = Mask(key_of(case.out)), case.pictures, case.modality == "image"

    def pictured(item: str) -> Pictured | None:
        return mask.image(images[item]) if item in images else None

    every = (item for items in case.cohorts.values() for item in items)
    screen, plan = Screen(mask, texts_of(every, of_images=classed)), outcomes.plan
    roles = tuple(withholding(audit, lambda group: str(mask(group))) for audit in outcomes.roles.roles)
    parts = Parts(
        plan=plan.model_copy(update={"case": _quoting(plan.case, mask)}),
        units=tuple(_screened(unit, screen) for unit in outcomes.units),
        roles=outcomes.roles.model_copy(update={"roles": roles}),
        refused=tuple(skip.model_copy(update={"reason": screen(skip.reason)}) for skip in outcomes.refused),
        failures=tuple(failure.model_copy(update={"error": _withheld(failure, mask)}) for failure in outcomes.failures),
        exhibits=circumstances.exhibits,
        environment=circumstances.environment,
        excerpts=lambda evidence: choose(evidence, case.out, plan.case.seed, mask, Imaged(pictured, classed)),
    )
    fields: dict[str, object] = {
        **circumstances._asdict(),
        "report_id": "",
        "cohorts": cohorts(case),
        "failures": parts.failures,
        "domain": outcomes.domain,
        "published": published(case.case, case.root),
        **copied(parts),
        **concluded(parts, judges),
    }
    unnamed = Report.model_validate(fields)
    return unnamed.model_copy(update={"report_id": report_id(unnamed)})


def _screened(unit: Unit, screen: Screen) -> Unit:
    """A unit that says why it was not measured without what it quotes."""
    if unit.skip is None:
        return unit
    return unit.model_copy(update={"skip": unit.skip.model_copy(update={"reason": screen(unit.skip.reason)})})


def _quoting(case: Case, mask: Mask) -> Case:
    """The case without the ids of its items, which may be names."""
    if isinstance(case.edited, str):
        return case
    return case.model_copy(update={"edited": tuple(str(mask(item)) for item in case.edited)})


def _withheld(failure: Failure, mask: Mask) -> str:
    """What kind of error it was: the message of an error that nobody foresaw may quote anything, also in pieces."""
    kind, _, message = failure.error.partition(": ")
    return f"{kind}: {mask(message)}, in full in run.log"
