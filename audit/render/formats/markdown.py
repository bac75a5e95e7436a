"""Report to Markdown, for pull requests and issues: the same sections as the HTML, figures as their data tables.

Whatever came from elsewhere is escaped so that it cannot become markup, a mention, a link or a raw tag.
"""

import re
from collections.abc import Sequence
from typing import Final

from audit.render.formats.html import status
from audit.render.sections.blocks import (
    APPENDIX,
    Block,
    Bullets,
    Cell,
    Code,
    Facts,
    Figure,
    Grid,
    Heading,
    Section,
    Text,
    letter,
)
from audit.render.sections.glance import axis_lines, glance
from audit.render.sections.outline import report_sections
from audit.render.sections.pageone import first_lines
from audit.render.sections.quotes import warning
from audit.render.wording.detections import beside_verdict
from audit.render.wording.findings import VERDICT_SYMBOL, meaning
from audit.schema import Report
from audit.wording import NAME, moment, visible

_ENTITIES: Final = {"&": "&amp;", "<": "&lt;", ">": "&gt;", "@": "&#64;"}
_MARKUP: Final = re.compile(r"([\\`*\[\]{}|~$]|(?<!\w)_|_(?!\w)|(?<!\w)#)")
_LINK: Final = re.compile(r"(?i)(?<=[a-z]):(?=//)|(?<=mailto):|(?<=www)\.")
_STARTS: Final = re.compile(r"^(\s*)([-+=]|\d+(?=[.)]))")


def markdown(report: Report, prior_odds: float | None = None) -> str:
    """The report as one Markdown document, ending with a newline; with the reader's ``prior_odds`` if given."""
    word = report.verdict.word
    lines = [f"# Audit of checkpoint {_plain(visible(report.plan.case.name, NAME))}", ""]
    if not report.masked:
        lines += [f"> **Unmasked.** {warning(report)}", ""]
    if report.demo:
        lines += ["> **Demo data.** These models and people were made up for a demonstration.", ""]
    issued = f"issued {moment(report.created)}, {status(report)}, tool {visible(report.plan.code_version, NAME)}"
    lines += [
        f"Report {_plain(visible(report.report_id, NAME))}, {_plain(issued)}", "",
        f"**{VERDICT_SYMBOL[word]} {word}**: {_plain(meaning(report))}", "",
    ]  # fmt: skip
    lines += [f"> **{term}:** {_plain(words)}\n" for term, words in beside_verdict(report)]
    lines += _block(Facts((*axis_lines(report), *first_lines(report))))
    lines += ["How to repeat it:", "", *_block(Code(visible(report.reproduce)))]
    rows = tuple(
        (Cell(f"{g.question} ({g.test})"), Cell(f"{g.number} {g.value}".strip()), Cell(g.ci95), Cell(g.outcome))
        for g in glance(report)
    )
    if rows:
        caption = "The strongest finding of each kind, by the number that was judged"
        lines += _grid(Grid(caption, ("Question", "Judged number", "95 %", "Outcome"), rows))
    lines += chapters(report_sections(report, prior_odds))
    lines.append(f"*End of report {_plain(visible(report.report_id, NAME))}*")
    return "\n".join(lines) + "\n"


def chapters(parts: Sequence[Section]) -> list[str]:
    """Numbered sections, each under an anchor of its own; those of the appendix last, by letters."""
    lines: list[str] = []
    body = [section for section in parts if not section.appendix]
    for i, section in enumerate(body, 1):
        lines += _chapter(section, f"## {i}. {section.title}")
    behind = [section for section in parts if section.appendix]
    if behind:
        lines += [f"## {APPENDIX}", "", *_contents(behind), ""]
    for i, section in enumerate(behind):
        lines += _chapter(section, f"## {letter(i)}. {section.title}")
    return lines


def _contents(parts: Sequence[Section]) -> list[str]:
    return [f"- [{letter(i)}. {section.title}](#{section.id})" for i, section in enumerate(parts)]


def _chapter(section: Section, head: str) -> list[str]:
    return [f'<a id="{section.id}"></a>', "", head, "", *(line for block in section.blocks for line in _block(block))]


def _plain(text: str) -> str:
    """Text that stays text in Markdown."""
    quoted = "".join(_ENTITIES.get(c, c) for c in text)
    quoted = _MARKUP.sub(r"\\\1", quoted)
    quoted = _LINK.sub(lambda m: f"&#{ord(m.group())};", quoted)
    return _STARTS.sub(r"\1\\\2", quoted) if not quoted[:1].isdigit() else quoted.replace(". ", "\\. ", 1)


def _span(text: str) -> str:
    """A code span that its own text cannot end."""
    return "`" + text.replace("`", "ˋ").replace("|", "¦") + "`" if text else ""


def _block(block: Block) -> list[str]:
    match block:
        case Text():
            return [_plain(block.text), ""]
        case Heading():
            return [f"### {_plain(block.text)}", ""]
        case Bullets():
            return [*(f"- {_plain(item)}" for item in block.items), ""]
        case Facts():
            return [*(f"- **{_plain(term)}**: {_plain(text)}" for term, text in block.rows), ""]
        case Code():
            return [f"{_fence(block.text)}text", block.text, _fence(block.text), ""]
        case Grid():
            return _grid(block)
        case Figure():
            return [_plain(block.caption), "", *_grid(block.data)]


def _fence(text: str) -> str:
    """A fence that the text cannot close: longer than any run of ticks in it."""
    return "`" * max(3, 1 + max(map(len, re.findall(r"`+", text)), default=0))


def _grid(grid: Grid) -> list[str]:
    head = "| " + " | ".join(_plain(c) for c in grid.columns) + " |"
    rule = "|" + "---|" * len(grid.columns)
    rows = ["| " + " | ".join(_cell(c) for c in row) + " |" for row in grid.rows]
    return [f"**{_plain(grid.caption)}**", "", head, rule, *rows, ""]


def _cell(cell: Cell) -> str:
    if cell.tone == "group":
        return f"**{_plain(cell.text)}**"
    return _span(cell.text) if cell.tone == "code" else _plain(cell.text)
