"""Excerpts of the data as blocks: masked, or in a derived report as they are, with a warning."""

from audit.render.sections.blocks import Block, Cell, Grid, Text
from audit.schema import Excerpt, Excerpts, Masked, Quote, Report, Shown
from audit.wording import CELL, NAME, number, visible

WARNING = (
    "This document shows texts of the data that a person or a law asked to be forgotten. It was derived on request, "
    "for inspection only: do not pass it on with the report that it was derived from."
)
MASKS = (
    "Texts of the data are masked: shown are the first 12 hex digits of a keyed hash (HMAC-SHA256) and the number of "
    "words. Equal texts have equal marks. The key is no part of this report; who holds it can show which text a mark "
    "stands for."
)
ROLES = ("base", "suspect", "reference", "ancestor")


def quotes(report: Report) -> tuple[Block, ...]:
    """Up to ten items of every table, and the rule by which they were chosen."""
    if not report.excerpts:
        return (Text("No items are quoted: no test kept a table of items, or an earlier version made this report."),)
    head = Text(MASKS) if report.masked else Text(WARNING, "lead")
    rules = dict.fromkeys(visible(x.rule, CELL) for x in report.excerpts)
    explanation = f"Chosen from every table of items: {'; or '.join(rules)}. Scores are those of the finding, by model."
    return (head, Text(explanation), *(_table(x) for x in report.excerpts))


def _table(excerpts: Excerpts) -> Grid:
    findings = ", ".join(visible(name, NAME).replace("_", " ").replace(".", ": ", 1) for name in excerpts.findings)
    layers = sorted({x.layer for x in excerpts.items if x.layer is not None})
    where = f" at {visible(excerpts.axis, NAME)} {', '.join(map(str, layers))} of the table" if layers else ""
    roles = [role for role in ROLES if any(role in x.scores for x in excerpts.items)]
    outputs = any(not _empty(x.output) for x in excerpts.items)
    columns = ("Chosen", "Item", "Group", "Prompt", "Target", *(("Output",) if outputs else ()),
               *(f"Score, {role}" for role in roles))  # fmt: skip
    rows = tuple(_row(x, roles, outputs) for x in excerpts.items)
    caption = f"{findings}: {len(excerpts.items)} of {excerpts.of} items{where}"
    return Grid(caption, columns, rows, folded=True)


def _row(x: Excerpt, roles: list[str], outputs: bool) -> tuple[Cell, ...]:
    texts = (x.item, x.group, x.prompt, x.target, *((x.output,) if outputs else ()))
    scores = (Cell(number(x.scores[role]) if role in x.scores else "none", "number") for role in roles)
    return (Cell(x.chosen, "tight"), *(_quoted(text) for text in texts), *scores)


def _empty(quote: Quote) -> bool:
    return quote.words == 0 if isinstance(quote, Masked) else not quote.text


def _quoted(quote: Quote) -> Cell:
    if isinstance(quote, Shown):
        return Cell(visible(quote.text, CELL) or "(empty)")
    words = "1 word" if quote.words == 1 else f"{quote.words} words"
    return Cell(f"{visible(quote.mark, NAME)} ({words})", "code")
