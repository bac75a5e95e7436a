"""Excerpts of the data as blocks: masked, or in a derived report as they are, with a warning."""

from audit.render.sections.blocks import Block, Cell, Grid, Text
from audit.schema import Excerpt, Excerpts, Masked, Pictured, Quote, Report, Shown
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
IMAGE_WARNING = WARNING.replace("texts of the data", "images of the data")
BOTH_WARNING = WARNING.replace("texts of the data", "texts and images of the data")
IMAGE_MASKS = (
    "Images of the data and their ids are masked: shown are the first 12 hex digits of a keyed hash (HMAC-SHA256) of "
    "the pixels, or of the id. Equal images have equal marks. The key is no part of this report; who holds it can show "
    "which image a mark stands for. The names of classes are not masked."
)
BOTH_MASKS = (
    MASKS.replace("Texts of the data are masked", "Texts and images of the data are masked")
    .replace(
        "the number of words. Equal texts have equal marks.",
        "the number of words; of an image the hash of its pixels alone. Equal texts and equal images have equal marks.",
    )
    .replace("which text a mark", "which text or image a mark")
)
NOT_FOUND = (
    "Its images are not shown: the data files that this report states were found neither beside the run folder nor "
    "where the command was given. Derive the report again where case.toml lies."
)
ROLES = ("base", "suspect", "reference", "ancestor")


def quotes(report: Report) -> tuple[Block, ...]:
    """Up to ten items of every table, and the rule by which they were chosen."""
    if not report.excerpts:
        return (Text("No items are quoted: no test kept a table of items, or an earlier version made this report."),)
    classed, beside = _images(report)
    masks = IMAGE_MASKS if classed else BOTH_MASKS if beside else MASKS
    head = Text(masks) if report.masked else Text(warning(report), "lead")
    lost = (Text(NOT_FOUND),) if not report.masked and any(not image.png for image in (*classed, *beside)) else ()
    rules = dict.fromkeys(visible(x.rule, CELL) for x in report.excerpts)
    explanation = f"Chosen from every table of items: {'; or '.join(rules)}. Scores are those of the finding, by model."
    return (head, *lost, Text(explanation), *(_table(x) for x in report.excerpts))


def warning(report: Report) -> str:
    """What a document says that shows texts or images of the data in clear."""
    classed, beside = _images(report)
    return IMAGE_WARNING if classed else BOTH_WARNING if beside else WARNING


def _images(report: Report) -> tuple[list[Pictured], list[Pictured]]:
    """The quoted images: of items that are images alone, and of those that ask about one in words."""
    items = [x for table in report.excerpts for x in table.items]
    classed = [x.prompt for x in items if isinstance(x.prompt, Pictured)]
    return classed, [x.picture for x in items if x.picture is not None]


def _table(excerpts: Excerpts) -> Grid:
    findings = ", ".join(visible(name, NAME).replace("_", " ").replace(".", ": ", 1) for name in excerpts.findings)
    layers = sorted({x.layer for x in excerpts.items if x.layer is not None})
    where = f" at {visible(excerpts.axis, NAME)} {', '.join(map(str, layers))} of the table" if layers else ""
    roles = [role for role in ROLES if any(role in x.scores for x in excerpts.items)]
    outputs = any(not _empty(x.output) for x in excerpts.items)
    classed = any(isinstance(x.prompt, Pictured) for x in excerpts.items)
    beside = any(x.picture is not None for x in excerpts.items)
    headings = ("Image", "Class") if classed else (*(("Image",) if beside else ()), "Prompt", "Target")
    columns = ("Chosen", "Item", "Group", *headings, *(("Output",) if outputs else ()),
               *(f"Score, {role}" for role in roles))  # fmt: skip
    rows = tuple(_row(x, roles, outputs, beside) for x in excerpts.items)
    caption = f"{findings}: {len(excerpts.items)} of {excerpts.of} items{where}"
    return Grid(caption, columns, rows, folded=True)


def _row(x: Excerpt, roles: list[str], outputs: bool, beside: bool) -> tuple[Cell, ...]:
    texts = (x.prompt, x.target, *((x.output,) if outputs else ()))
    image = (Cell("none") if x.picture is None else _quoted(x.picture),) if beside else ()
    scores = (Cell(number(x.scores[role]) if role in x.scores else "none", "number") for role in roles)
    names = (_quoted(x.item), _quoted(x.group))
    return (Cell(x.chosen, "tight"), *names, *image, *(_quoted(text) for text in texts), *scores)


def _empty(quote: Quote) -> bool:
    return quote.words == 0 if isinstance(quote, Masked) else isinstance(quote, Shown) and not quote.text


def _quoted(quote: Quote) -> Cell:
    if isinstance(quote, Shown):
        return Cell(visible(quote.text, CELL) or "(empty)")
    if isinstance(quote, Pictured):
        mark = visible(quote.mark, NAME)
        return Cell(f"image {mark}".strip(), "code", quote.png) if quote.png else Cell(mark or "not found", "code")
    words = "1 word" if quote.words == 1 else f"{quote.words} words"
    return Cell(f"{visible(quote.mark, NAME)} ({words})", "code")
