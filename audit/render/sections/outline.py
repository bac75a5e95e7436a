"""The sections of a report, in their order: the one place that says what every view shows.

All of them are always there, also those that only say that there is nothing; their ids are addresses and never change.
Page one, the first two, answers four questions: gone or not, how sure, what was not tested, how to repeat it.
"""

from typing import Final

from audit.render.sections.blocks import Block, Cell, Grid, Heading, Section, Text
from audit.render.sections.findings import findings
from audit.render.sections.pageone import conclusion, question
from audit.render.sections.provenance import items, method, reproduction
from audit.render.sections.published import published
from audit.render.sections.quotes import quotes
from audit.render.sections.reference import closing, crosswalk
from audit.render.sections.roles import roles_audited
from audit.render.sections.validity import controls
from audit.schema import Report
from audit.wording import CELL, visible

PAGE_ONE: Final = ("question", "conclusion")
ACCESS: Final = ("black-box", "logits", "weights", "fine-tune")


def report_sections(report: Report, prior_odds: float | None = None) -> tuple[Section, ...]:
    """All sections, in the order of the printed document. ``prior_odds`` are the reader's, for the conclusion."""
    return (
        Section("question", "Question and propositions", question(report)),
        Section("conclusion", "Conclusion", conclusion(report, prior_odds)),
        Section("items", "Items received and integrity", items(report)),
        Section("roles", "Roles audited", roles_audited(report)),
        Section("method", "Method and decision rule", method(report)),
        Section("findings", "Findings", (*findings(report), *published(report))),
        Section("controls", "Controls and validation", controls(report)),
        Section("not-run", "Not run and failed", _not_run(report)),
        Section("coverage", "Coverage", _coverage(report)),
        Section("excerpts", "Evidence excerpts", quotes(report)),
        Section("reproduction", "Reproduction", reproduction(report)),
        Section("glossary", "Glossary, verbal scale, references, custody", closing(report)),
    )


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
        (_name(family), *(_name(by_access.get(level, "–")) for level in levels))
        for family, by_access in by_family.items()
    )
    heads = ("Attack family", *(visible(level, CELL).capitalize() for level in levels))
    return (
        Text(
            "What an attacker needs runs from asking questions (black-box) over reading probabilities (logits) and "
            "states (weights) to training the model further (fine-tune). An attack that is not listed as tested is not "
            "covered by this report."
        ),
        Grid("Attack families by access level", heads, rows),
        Heading("Where the standards find what they ask for"),
        crosswalk(),
    )


def _access(text: str) -> str:
    return "fine-tune" if text.startswith("fine-tun") else text
