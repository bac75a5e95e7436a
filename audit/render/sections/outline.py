"""The sections of a report, in their order: the one place that says what every view shows.

All of them are always there, also those that only say that there is nothing; their ids are addresses and never change.
Page one, the first two, stands alone. The body answers what a reader asks; the appendix holds what stands behind it.
"""

from typing import Final

from audit.render.sections.blocks import Block, Cell, Grid, Section, Text
from audit.render.sections.effects_table import findings
from audit.render.sections.findings import FAMILIES, family
from audit.render.sections.glossary import glossary
from audit.render.sections.pageone import conclusion, question
from audit.render.sections.provenance import environment, items, method, plan, reproduction
from audit.render.sections.published import published
from audit.render.sections.quotes import quotes
from audit.render.sections.reference import crosswalk, references, sign_off
from audit.render.sections.roles import role_readings, roles_audited
from audit.render.sections.validity import calibration, control_table, controls
from audit.schema import Report
from audit.wording import CELL, visible

PAGE_ONE: Final = ("question", "conclusion")
ACCESS: Final = ("black-box", "logits", "weights", "fine-tune")


def report_sections(report: Report, prior_odds: float | None = None) -> tuple[Section, ...]:
    """All sections, in the order of the printed document. ``prior_odds`` are the reader's, for the conclusion."""
    return (
        Section("question", "Question and propositions", question(report)),
        Section("conclusion", "Conclusion", conclusion(report, prior_odds)),
        Section("findings", "Findings", findings(report)),
        Section("controls", "Controls and validation", controls(report)),
        Section("roles", "Roles audited", roles_audited(report)),
        Section("method", "Method and decision rule", method(report)),
        Section("not-run", "Not run and failed", _not_run(report)),
        Section("coverage", "Coverage", _coverage(report)),
        Section("reproduction", "Reproduction", reproduction(report)),
        Section("glossary", "Glossary and verbal scale", glossary(report)),
        Section("sign-off", "Sign-off", sign_off()),
        *_appendix(report),
    )


def _appendix(report: Report) -> tuple[Section, ...]:
    """What stands behind the body, each part under an address of its own."""
    families = ((f"tests-{kind}", question, family(report, kind)) for kind, question in FAMILIES)
    parts: tuple[tuple[str, str, tuple[Block, ...]], ...] = (
        *families,
        ("published", "Published numbers: context, never judged", published(report)),
        ("control-table", "Controls of every judged test, readings of the roles",
         (*control_table(report), *role_readings(report))),
        ("calibration", "The calibration that judged", calibration(report)),
        ("items", "Items received and integrity", items(report)),
        ("plan", "The registered plan, deviations and exclusions", plan(report)),
        ("excerpts", "Evidence excerpts", quotes(report)),
        ("environment", "Environment, seeds and output tables", environment(report)),
        ("standards", "Where the standards find what they ask for", (crosswalk(),)),
        ("references", "References, custody and change history", references(report)),
    )  # fmt: skip
    return tuple(Section(*part, appendix=True) for part in parts)


def _name(text: str) -> Cell:
    return Cell(visible(text, CELL))


def _not_run(report: Report) -> tuple[Block, ...]:
    blocks: list[Block] = []
    if report.skips:
        rows = tuple((_name(s.probe), _name(s.reason), _name(s.consequence)) for s in report.skips)
        blocks.append(Grid("Not run", ("Test", "Reason", "Consequence for the conclusion"), rows))
    if report.failures:
        consequence = "its question stays open"
        rows = tuple((_name(f.probe), _name(f.error), _name(consequence), Cell(visible(f.error_id, CELL), "code"))
                     for f in report.failures)  # fmt: skip
        columns = ("Test", "Error", "Consequence for the conclusion", "Error id, as in the log")
        blocks.append(Grid("Failed", columns, rows))
    return tuple(blocks) or (Text("Every planned test ran, and none failed."),)


def _coverage(report: Report) -> tuple[Block, ...]:
    """Attack family by access level: one row a family; where an access has no cell, that attack does not need it."""
    others = tuple(dict.fromkeys(level for a in report.attacks if (level := _access(a.access)) not in ACCESS))
    levels = (*ACCESS, *others)
    by_family: dict[str, dict[str, str]] = {}
    for attack in report.attacks:
        by_family.setdefault(attack.family, {})[_access(attack.access)] = attack.state
    rows = tuple(
        (_name(attacks), *(_name(by_access.get(level, "–")) for level in levels))
        for attacks, by_access in by_family.items()
    )
    heads = ("Attack family", *(visible(level, CELL).capitalize() for level in levels))
    return (
        Text(
            "An attacker may ask questions (black-box), read probabilities (logits), read states (weights) or train "
            "the model further (fine-tune). An attack that is not listed as tested is not covered by this report."
        ),
        Grid("Attack families by access level", heads, rows),
    )


def _access(text: str) -> str:
    return "fine-tune" if text.startswith("fine-tun") else text
