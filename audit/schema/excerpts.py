"""What a report quotes of the data: masked by default, and chosen by a rule that it states.

The forget set is the very data to be erased. A masked text shows a keyed hash and its number of words, a masked image
a keyed hash of its pixels, nothing else.
"""

from typing import Annotated, Literal

from pydantic import Field, StringConstraints

from audit.schema.record import Record

PNG = r"^(data:image/png;base64,[A-Za-z0-9+/]+=*)?$"
"""A PNG as an address that holds it; empty for none."""


class Masked(Record):
    """A text that is not shown: ``mark``, the first 12 hex digits of its HMAC-SHA256, and how many words it has."""

    mark: str
    words: int

    def __str__(self) -> str:
        words = "1 word" if self.words == 1 else f"{self.words} words"
        return f"‹masked {self.mark}, {words}›" if self.words else "‹empty›"


class Shown(Record):
    """A text as it is in the data or as a model gave it: only in a derived report that says so, but for the name of a
    class of images."""

    text: str

    def __str__(self) -> str:
        return self.text


class Pictured(Record):
    """An image of the data: ``mark``, the first 12 hex digits of the HMAC-SHA256 of its pixels.

    ``png`` is a small picture of it, only in a derived report that says so, and empty where it is masked.
    """

    mark: str
    png: Annotated[str, StringConstraints(pattern=PNG, max_length=100_000)] = ""

    def __str__(self) -> str:
        return f"‹image {self.mark}›" if self.png else f"‹masked {self.mark}, an image›"


Quote = Masked | Shown | Pictured


class Excerpt(Record):
    """One item of a finding with what every model scores on it (by role), at ``layer`` of the table's axis, if any.

    ``picture`` is what the words of ``prompt`` ask about, where the item has both; an item that is an image alone has
    it as its prompt.
    """

    chosen: Literal["highest", "random"]
    item: Quote
    group: Quote
    prompt: Quote
    target: Quote
    output: Quote
    layer: int | None
    scores: dict[str, float]
    picture: Pictured | None = Field(default=None, exclude_if=lambda picture: picture is None)


class Excerpts(Record):
    """The items quoted of one item table: which findings rest on it, the rule of choice, and of how many items.

    ``axis`` names what the ``layer`` of an item counts, which is not a layer in every table.
    """

    table: str
    findings: tuple[str, ...]
    rule: str
    of: int
    items: tuple[Excerpt, ...]
    axis: str
