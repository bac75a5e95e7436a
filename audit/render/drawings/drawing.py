"""What every drawing is made of: the looks of the roles, marks, text and scales, as plain SVG.

Each role keeps its colour in every view, and has a marker shape and a dash of its own, so that nothing depends on
colour. Shapes of roles are strokes and squares: triangles, circles and diamonds mean outcomes, and nothing else. Text
and axes take the colour of the page (``currentColor``), so that one drawing serves light, dark and print.
"""

import math
from collections.abc import Sequence
from html import escape
from typing import Final, NamedTuple


class Look(NamedTuple):
    """Colour, marker shape and dash of a role, and its word in the legend."""

    colour: str
    shape: str
    dash: str
    word: str


LOOKS: Final[dict[str, Look]] = {
    "base": Look("#D55E00", "bar", "", "base (knew it)"),
    "suspect": Look("#0072B2", "square", "", "suspect"),
    "reference": Look("#009E73", "plus", "7 4", "reference (never trained)"),
    "ancestor": Look("#009E73", "dash", "2 3", "ancestor"),
    "floor": Look("#808080", "dash", "2 4", "floor (reference against reference)"),
    "gate": Look("#808080", "cross", "9 3 2 3", "gate (retained items)"),
}
WIDTH: Final = 940
LEFT, RIGHT, BOTTOM = 62, 24, 46


def at(x: float) -> str:
    """A coordinate: at most one decimal, no negative zero, the same on every machine."""
    text = f"{x:.1f}".rstrip("0").rstrip(".")
    return "0" if text == "-0" else text


def text(x: float, y: float, words: str, anchor: str = "start", size: int = 12) -> str:
    """Words at a place."""
    return f'<text x="{at(x)}" y="{at(y)}" text-anchor="{anchor}" font-size="{size}">{escape(words)}</text>'


def line(x1: float, y1: float, x2: float, y2: float, style: str = 'stroke="currentColor"') -> str:
    """A straight line."""
    return f'<line x1="{at(x1)}" y1="{at(y1)}" x2="{at(x2)}" y2="{at(y2)}" {style}/>'


def marker(shape: str, x: float, y: float, r: float, paint: str) -> str:
    """One marker of the given shape, centred at x, y."""
    if shape == "square":
        return f'<rect x="{at(x - r)}" y="{at(y - r)}" width="{at(2 * r)}" height="{at(2 * r)}" {paint}/>'
    strokes = {
        "bar": ((0, -1.4, 0, 1.4),), "dash": ((-1.4, 0, 1.4, 0),), "plus": ((0, -1.2, 0, 1.2), (-1.2, 0, 1.2, 0)),
        "cross": ((-1, -1, 1, 1), (-1, 1, 1, -1)),
    }  # fmt: skip
    lines = (f"M{at(x + r * a)} {at(y + r * b)}L{at(x + r * c)} {at(y + r * d)}" for a, b, c, d in strokes[shape])
    return f'<path d="{"".join(lines)}" {paint}/>'


def drawing(height: float, label: str, body: Sequence[str], width: int = WIDTH) -> str:
    """A whole drawing with its alternative text."""
    head = f'<svg viewBox="0 0 {width} {at(height)}" width="{width}" height="{at(height)}" role="img"'
    return f'{head} aria-label="{escape(label)}" fill="currentColor" stroke-width="1">{"".join(body)}</svg>'


class Scale(NamedTuple):
    """A linear map from data to pixels, clipped to its ends."""

    lo: float
    hi: float
    start: float
    end: float

    def __call__(self, value: float) -> float:
        inside = min(max(value, min(self.lo, self.hi)), max(self.lo, self.hi))
        return self.start + (inside - self.lo) / (self.hi - self.lo) * (self.end - self.start)


def ticks(lo: float, hi: float) -> tuple[float, ...]:
    """Between four and eight round numbers within [lo, hi]."""
    raw = (hi - lo) / 5
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(m * power for m in (1, 2, 2.5, 5, 10) if m * power >= raw * 0.999)
    first = math.ceil(lo / step - 1e-9)
    return tuple(round(i * step, 10) for i in range(first, math.floor(hi / step + 1e-9) + 1))
