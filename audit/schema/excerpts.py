"""What a report quotes of the data: masked by default, and chosen by a rule that it states.

The forget set is the very data to be erased. A masked text shows a keyed hash and its number of words, nothing else.
"""

from typing import Literal

from audit.schema.record import Record


class Masked(Record):
    """A text that is not shown: ``mark``, the first 12 hex digits of its HMAC-SHA256, and how many words it has."""

    mark: str
    words: int

    def __str__(self) -> str:
        words = "1 word" if self.words == 1 else f"{self.words} words"
        return f"‹masked {self.mark}, {words}›" if self.words else "‹empty›"


class Shown(Record):
    """A text as it is in the data or as a model gave it: only in a derived report that says so."""

    text: str

    def __str__(self) -> str:
        return self.text


Quote = Masked | Shown


class Excerpt(Record):
    """One item of a finding with what every model scores on it (by role), at ``layer`` of the table's axis, if any."""

    chosen: Literal["highest", "random"]
    item: Quote
    group: Quote
    prompt: Quote
    target: Quote
    output: Quote
    layer: int | None
    scores: dict[str, float]


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
