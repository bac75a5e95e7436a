"""What a section of a report is made of: text, lists, facts, tables and figures, free of any output syntax.

:mod:`audit.render.sections` builds them from a report; HTML and Markdown only lay them out. So no view can lose a
section that another one has.
"""

from dataclasses import dataclass
from string import ascii_uppercase
from typing import ClassVar, Final, NamedTuple

APPENDIX: Final = "Appendix"
"""The heading of what stands behind the body of a report."""


@dataclass(frozen=True)
class Text:
    """A paragraph; ``tone`` is ``lead`` for the sentence that matters."""

    text: str
    tone: str = ""
    kind: ClassVar[str] = "text"


@dataclass(frozen=True)
class Heading:
    """A heading inside a section."""

    text: str
    kind: ClassVar[str] = "heading"


@dataclass(frozen=True)
class Bullets:
    """A list of short statements; ``plain`` where they bring their own numbers."""

    items: tuple[str, ...]
    plain: bool = False
    kind: ClassVar[str] = "bullets"


@dataclass(frozen=True)
class Facts:
    """Pairs of a term and what it is."""

    rows: tuple[tuple[str, str], ...]
    kind: ClassVar[str] = "facts"


@dataclass(frozen=True)
class Code:
    """Something to type, kept as it is."""

    text: str
    kind: ClassVar[str] = "code"


class Cell(NamedTuple):
    """One cell of a table; ``tone`` names its look: ``code``, ``number``, ``tight``, ``wide``, ``mark`` (an outcome)
    or ``group`` (the first cell of a row that heads those under it). ``picture``: the address of a PNG that holds it,
    of which ``text`` tells those who do not see it."""

    text: str
    tone: str = ""
    picture: str = ""


@dataclass(frozen=True)
class Grid:
    """A table: a caption, column titles, rows; the first cell of a row is its header. ``folded``: opened on demand."""

    caption: str
    columns: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    folded: bool = False
    kind: ClassVar[str] = "grid"


@dataclass(frozen=True)
class Figure:
    """A drawing, what it shows in words, and the numbers behind it. ``folded``: opened on demand.

    ``key`` names the figure of :mod:`audit.render.figures` that shows the same, where there is one.
    """

    svg: str
    label: str
    caption: str
    data: Grid
    folded: bool = False
    key: str = ""
    kind: ClassVar[str] = "figure"


Block = Text | Heading | Bullets | Facts | Code | Grid | Figure


class Section(NamedTuple):
    """A numbered part of a report. ``id`` is its address and stays the same in every view; an ``appendix`` is behind
    the body of the document, closed until it is asked for."""

    id: str
    title: str
    blocks: tuple[Block, ...]
    appendix: bool = False


def letter(place: int) -> str:
    """The letter of a part of the appendix by its place: A, B, C."""
    return ascii_uppercase[place]
