"""Effects on their one scale as inline SVG: a forest of tests, a strip for a cell, and the two axes of a verdict.

Never trained is 0 and base 1, both plain strokes. The suspect is a bar over its 95 % interval with a stroke at its
number: filled where a trace was found, hollow where none was, grey where the test does not decide. The one line that a
test was held against is drawn black and whole; a null or a floor that does not decide is faint.
"""

from collections.abc import Sequence
from typing import Final, NamedTuple

from audit.render.drawings.drawing import LOOKS, WIDTH, Scale, at, drawing, line, text, ticks
from audit.render.drawings.scale import Position, judged_place
from audit.render.drawings.svg import limits_of
from audit.render.wording.findings import title
from audit.render.wording.quantities import blindness, deciding, is_blind, judged_reading
from audit.schema import Evidence, Interval, Missing, Outcome, Share
from audit.wording import NAME, interval, number, visible

SUSPECT: Final = LOOKS["suspect"].colour
GREY: Final = "#808080"
FILL: Final[dict[Outcome, str]] = {
    "trace found": f'fill="{SUSPECT}" fill-opacity="0.55"',
    "no trace found": 'fill="var(--paper, #fff)"',
    "inconclusive": 'fill="#9a9a9a" fill-opacity="0.55"',
    "not run": 'fill="none"',
}
LINE: Final = 'stroke="currentColor" stroke-width="2.2"'
FAINT: Final = 'stroke="currentColor" stroke-opacity="0.45"'


def bar(sx: Scale, y: float, p: Position, paint: str, half: float) -> list[str]:
    """The suspect: a bar over its interval, a stroke at its number; all of it grey where the test does not decide, for
    a narrow interval shows no filling."""
    ink = GREY if paint == FILL["inconclusive"] else SUSPECT
    out: list[str] = []
    if p.lo is not None and p.hi is not None:
        width = max(sx(p.hi) - sx(p.lo), 2)
        out.append(
            f'<rect x="{at(sx(p.lo))}" y="{at(y - half)}" width="{at(width)}" height="{at(2 * half)}" {paint} '
            f'stroke="{ink}" stroke-width="1.6"/>'
        )
    style = f'stroke="{ink}" stroke-width="3"'
    return [*out, line(sx(p.value), y - half - 2.5, sx(p.value), y + half + 2.5, style)]


# ---- forest -----------------------------------------------------------------------------------------------------
def forest(rows: Sequence[Evidence], label: str, zero: str = "never trained") -> str:
    """Effects between ``zero`` (0) and base (1), one row a test: the judged number, and the line that decides it."""
    shown = [(e, p) for e in rows if not isinstance(p := judged_place(e), Missing)]
    left, right, step, top = 376, 210, 36, 44
    height = top + step * len(shown) + 34
    lo, hi = limits_of([v for _, p in shown for v in (p.value, p.lo, p.hi) if v is not None])
    sx = Scale(lo, hi, left, WIDTH - right)
    body: list[str] = []
    for x in ticks(lo, hi):
        style = f'stroke="currentColor" stroke-opacity="{"0.6" if x in (0.0, 1.0) else "0.14"}"'
        body += [line(sx(x), top - 12, sx(x), height - 30, style), text(sx(x), height - 12, number(x), "middle")]
    body += [text(sx(0.0), 16, zero, "middle"), text(sx(1.0), 16, "base", "middle")]
    for i, (e, p) in enumerate(shown):
        body += _row(e, p, sx, top + step * i + step / 2 - 6, left, WIDTH - right)
    return drawing(height, label, body)


def _row(e: Evidence, p: Position, sx: Scale, y: float, left: float, end: float) -> list[str]:
    out: list[str] = []
    if p.null_lo is not None and p.null_hi is not None:
        width = max(sx(p.null_hi) - sx(p.null_lo), 1)
        out.append(
            f'<rect x="{at(sx(p.null_lo))}" y="{at(y - 11)}" width="{at(width)}" height="22" '
            f'fill="{LOOKS["reference"].colour}" fill-opacity="0.2"/>'
        )
    decides = deciding(e)
    if p.floor is not None and p.floor != decides.at:
        out.append(line(sx(p.floor), y - 11, sx(p.floor), y + 11, f'{FAINT} stroke-dasharray="3 2"'))
    out += bar(sx, y, p, FILL[e.outcome], 5)
    if decides.at is not None:
        out.append(line(sx(decides.at), y - 12, sx(decides.at), y + 12, LINE))
    reading = judged_reading(e)
    out += [text(left - 14, y + 1, short_name(title(e.measurement), 58), "end")]
    out += [text(left - 14, y + 14, reading.name, "end", 10)]
    if is_blind(e):
        return [*out, text(end + 20, y + 4, short_name(blindness(e.measurement), 30))]
    return [*out, text(end + 64, y + 4, number(reading.value), "end"), text(end + 78, y + 4, _ends(reading.ci95))]


def _ends(ci95: Interval | Missing) -> str:
    return "" if isinstance(ci95, Missing) else interval(ci95)


def short_name(words: str, n: int) -> str:
    """At most so many characters."""
    return words if len(words) <= n else words[: n - 1] + "…"


# ---- strip ------------------------------------------------------------------------------------------------------
def strip(e: Evidence) -> str:
    """The same as one row of the forest, small enough for a table cell; empty where there is no position."""
    p = judged_place(e)
    if isinstance(p, Missing) or is_blind(e):
        return ""
    sx = Scale(-0.15, 1.15, 6, 254)
    body = [line(sx(0), 13, sx(1), 13, FAINT), *(line(sx(x), 3, sx(x), 23, FAINT) for x in (0.0, 1.0))]
    body += bar(sx, 13, p, FILL[e.outcome], 5)
    decides = deciding(e).at
    if decides is not None:
        body.append(line(sx(decides), 2, sx(decides), 24, LINE))
    reading = judged_reading(e)
    label = f"{reading.name} {reading.shown} between never trained, 0, and base, 1"
    return drawing(26, label, body, 260)


# ---- two axes ---------------------------------------------------------------------------------------------------
class Axis(NamedTuple):
    """One axis of a verdict under its name: a share of base, or why there is none."""

    name: str
    share: Share | Missing


def two_axes(axes: Sequence[Axis], label: str) -> str:
    """What the model says and what it holds, as bars on one scale from never trained to base."""
    step, top, width = 66, 24, 480
    height = top + step * len(axes) + 2
    ends = [v for a in axes if isinstance(a.share, Share) for v in (a.share.value, a.share.ci95.lo, a.share.ci95.hi)]
    lo, hi = limits_of(ends)
    sx = Scale(min(lo, -0.14), max(hi, 1.14), 4, width - 4)
    body = [line(sx(x), top - 6, sx(x), height - 4, FAINT) for x in (0.0, 1.0)]
    body += [text(sx(0.0), 13, "never trained", "middle", 13), text(sx(1.0), 13, "base", "middle", 13)]
    for i, axis in enumerate(axes):
        y = top + step * i + 34
        body.append(text((sx(0.0) + sx(1.0)) / 2, y - 16, _axis_words(axis), "middle", 14))
        if isinstance(axis.share, Share):
            body.append(text((sx(0.0) + sx(1.0)) / 2, y + 22, measurement_words(axis.share), "middle", 12))
        body.append(line(sx(0.0), y, sx(1.0), y, 'stroke="currentColor" stroke-opacity="0.25"'))
        if isinstance(axis.share, Share):
            ci95 = axis.share.ci95
            paint = FILL["trace found"] if ci95.lo > 0 else FILL["no trace found"]
            body += bar(sx, y, Position(axis.share.value, ci95.lo, ci95.hi, None, None, None), paint, 7)
    return drawing(height, label, body, width)


def measurement_words(share: Share) -> str:
    """The measurement that a share was read from, in words."""
    return visible(share.measurement, NAME).replace(".", ": ", 1).replace("_", " ")


def _axis_words(axis: Axis) -> str:
    if isinstance(axis.share, Missing):
        return f"{axis.name}: {visible(axis.share.missing, NAME).partition(':')[0]}"
    return f"{axis.name} {number(axis.share.value)} (95 % {interval(axis.share.ci95)})"
