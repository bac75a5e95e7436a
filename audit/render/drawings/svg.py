"""Figures as inline SVG: a profile over depth, a forest of effects, a strip between never trained and base.

Drawings hold no text from a report: callers put labels through :func:`audit.wording.untrusted.visible`, and this module
escapes them.
"""

import math
from collections.abc import Sequence
from typing import Final

from audit.render.drawings.drawing import (
    BOTTOM,
    LEFT,
    LOOKS,
    RIGHT,
    WIDTH,
    Scale,
    at,
    drawing,
    line,
    marker,
    text,
    ticks,
)
from audit.render.drawings.scale import placed, position
from audit.render.wording.findings import title
from audit.schema import Curve, Evidence, MeasurementScale, Missing, Outcome
from audit.wording import number, unit, visible

FLAT_LOW, FLAT_HIGH = -0.6, 1.6


BOUNDED: Final[tuple[MeasurementScale, ...]] = ("effect", "ratio", "probability")
"""What is read between 0 and 1: an effect, a share of base, a probability."""


def panels(curves: Sequence[Curve]) -> list[list[Curve]]:
    """Curves that share an axis and a scale make one figure; everything between about 0 and 1 is one scale."""
    by_axis: dict[tuple[str, str], list[Curve]] = {}
    for curve in curves:
        if curve.x:
            shared = "share" if curve.scale in BOUNDED else curve.unit
            by_axis.setdefault((curve.axis, shared), []).append(curve)
    return list(by_axis.values())


def _limits(values: Sequence[float], clipped: bool = True) -> tuple[float, float]:
    """Axis limits that hold 0, 1 and the data; on a clipped scale no wild point may flatten all others."""
    lo, hi = min((0.0, *values)), max((1.0, *values))
    if clipped:
        lo, hi = max(lo, FLAT_LOW), min(hi, FLAT_HIGH)
    room = 0.05 * (hi - lo)
    return lo - room, hi + room


def _frame(curves: Sequence[Curve]) -> tuple[float, float]:
    return _limits([y for c in curves for y in (*c.y, *c.lo, *c.hi)], all(c.scale in BOUNDED for c in curves))


def outside(curves: Sequence[Curve]) -> int:
    """How many points of a profile lie outside what is drawn (they are in the data table)."""
    lo, hi = _frame(curves)
    return sum(1 for c in curves for y in c.y if not lo <= y <= hi)


# ---- depth profile ----------------------------------------------------------------------------------------------
def profile(curves: Sequence[Curve], label: str) -> str:
    """A profile over depth or steps: one line a role, the suspect's interval and null band shaded."""
    xs = sorted({x for c in curves for x in c.x})
    pad = max((xs[-1] - xs[0]) * 0.03, 0.2)
    lo, hi = _frame(curves)
    legend, top = _legend(curves)
    height = top + 270
    sx = Scale(xs[0] - pad, xs[-1] + pad, LEFT, WIDTH - RIGHT)
    sy = Scale(lo, hi, height - BOTTOM, top)
    body = [*_grid(sx, sy, height, xs), *legend]
    body += [_band(c.x, c.null_lo, c.null_hi, sx, sy, LOOKS["reference"].colour) for c in curves]
    lined = [c for c in curves if c.role in ("base", "suspect", "reference", "ancestor")]
    body += [_band(c.x, c.lo, c.hi, sx, sy, LOOKS[c.role].colour) for c in lined]
    order = ("gate", "floor", "ancestor", "reference", "base", "suspect")
    for curve in sorted(curves, key=lambda c: order.index(c.role)):
        body += _curve(curve, sx, sy)
    axis = f"{visible(curves[0].axis, 40)} →"
    words = next((c.unit for c in curves if c.role == "suspect"), curves[0].unit)
    body.append(text(WIDTH - RIGHT, height - 8, axis, "end"))
    body.append(text(LEFT, top - 10, unit(words)))
    return drawing(height, label, body)


def _grid(sx: Scale, sy: Scale, height: float, xs: Sequence[float]) -> list[str]:
    out: list[str] = []
    for y in ticks(sy.lo, sy.hi):
        strong = y in (0.0, 1.0)
        style = f'stroke="currentColor" stroke-opacity="{"0.55" if strong else "0.14"}"'
        out += [line(LEFT, sy(y), WIDTH - RIGHT, sy(y), style), text(LEFT - 8, sy(y) + 4, number(y), "end")]
    every = max(1, math.ceil(len(xs) / 16))
    for x in xs[::every]:
        out.append(text(sx(x), height - BOTTOM + 20, f"{x:g}", "middle"))
    return out


def _legend(curves: Sequence[Curve]) -> tuple[list[str], float]:
    """The legend, and where the frame below it begins."""
    out: list[str] = []
    x, y = float(LEFT), 14.0
    for role in dict.fromkeys(c.role for c in curves):
        look = LOOKS[role]
        width = 46 + 7.2 * len(look.word)
        if x + width > WIDTH - RIGHT:
            x, y = float(LEFT), y + 20
        dash = f' stroke-dasharray="{look.dash}"' if look.dash else ""
        out.append(line(x, y, x + 26, y, f'stroke="{look.colour}" stroke-width="2"{dash}'))
        ring = role == "base"
        paint = f'fill="{"none" if ring else look.colour}" stroke="{look.colour}" stroke-width="{2 if ring else 1}"'
        out.append(marker(look.shape, x + 13, y, 6 if ring else 4, paint))
        out.append(text(x + 32, y + 4, look.word))
        x += width
    return out, y + 50


def _band(x: Sequence[float], lo: Sequence[float], hi: Sequence[float], sx: Scale, sy: Scale, colour: str) -> str:
    if not lo or not hi:
        return ""
    upper = [f"{at(sx(a))},{at(sy(b))}" for a, b in zip(x, hi, strict=False)]
    back = [f"{at(sx(a))},{at(sy(b))}" for a, b in zip(reversed(x), reversed(lo), strict=False)]
    return f'<polygon points="{" ".join(upper + back)}" fill="{colour}" fill-opacity="0.16"/>'


def _curve(curve: Curve, sx: Scale, sy: Scale) -> list[str]:
    """A line with its markers. Base is a wide line with open rings, so that it shows where the suspect covers it."""
    look = LOOKS[curve.role]
    points = [(sx(x), sy(y)) for x, y in zip(curve.x, curve.y, strict=True)]
    dash = f' stroke-dasharray="{look.dash}"' if look.dash else ""
    base = curve.role == "base"
    width = {"base": 5, "suspect": 2.5}.get(curve.role, 1.7)
    faint = ' stroke-opacity="0.45"' if base else ""
    path = "M" + "L".join(f"{at(x)} {at(y)}" for x, y in points)
    out = [f'<path d="{path}" fill="none" stroke="{look.colour}" stroke-width="{width}"{dash}{faint}/>']
    paint = f'fill="{"none" if base else look.colour}" stroke="{look.colour}" stroke-width="{2 if base else 1.5}"'
    return out + [marker(look.shape, x, y, 8 if base else 4, paint) for x, y in points]


# ---- forest -----------------------------------------------------------------------------------------------------
FILL: Final[dict[Outcome, str]] = {
    "trace found": f'fill="{LOOKS["suspect"].colour}"',
    "no trace found": 'fill="var(--paper, #fff)"',
    "inconclusive": 'fill="#9a9a9a"',
    "not run": 'fill="none"',
}


def forest(rows: Sequence[Evidence], label: str, zero: str = "never trained") -> str:
    """Effects between ``zero`` (0) and base (1): interval, null band, floor tick, base mark; one row a test."""
    shown = [(e, p) for e in rows if not isinstance(p := placed(e.measurement), Missing)]
    left, right, step, top = 376, 210, 30, 44
    height = top + step * len(shown) + 34
    ends = [v for _, p in shown for v in (p.value, p.lo, p.hi) if v is not None]
    lo, hi = _limits(ends)
    sx = Scale(lo, hi, left, WIDTH - right)
    bottom = height - 30
    body: list[str] = []
    for x in ticks(lo, hi):
        style = f'stroke="currentColor" stroke-opacity="{"0.55" if x in (0.0, 1.0) else "0.14"}"'
        body += [line(sx(x), top - 12, sx(x), bottom, style), text(sx(x), height - 12, number(x), "middle")]
    body += [text(sx(0.0), 14, zero, "middle"), text(sx(1.0), 14, "base", "middle")]
    base = LOOKS["base"]
    body.append(marker(base.shape, sx(1.0), 24, 4, f'fill="{base.colour}"'))
    reference = LOOKS["reference"]
    body.append(marker(reference.shape, sx(0.0), 24, 4, f'fill="{reference.colour}"'))
    for i, (e, p) in enumerate(shown):
        y = top + step * i + step / 2 - 4
        if p.null_lo is not None and p.null_hi is not None:
            width = max(sx(p.null_hi) - sx(p.null_lo), 1)
            body.append(
                f'<rect x="{at(sx(p.null_lo))}" y="{at(y - 9)}" width="{at(width)}" height="18" '
                f'fill="{reference.colour}" fill-opacity="0.2"/>'
            )
        if p.floor is not None:
            body.append(line(sx(p.floor), y - 9, sx(p.floor), y + 9, 'stroke="#808080" stroke-dasharray="3 2"'))
        if p.lo is not None and p.hi is not None:
            style = f'stroke="{LOOKS["suspect"].colour}" stroke-width="2"'
            body.append(line(sx(p.lo), y, sx(p.hi), y, style))
        paint = f'{FILL[e.outcome]} stroke="{LOOKS["suspect"].colour}" stroke-width="1.8"'
        body.append(marker("square", sx(p.value), y, 4.5, paint))
        body.append(text(left - 14, y + 4, _short(title(e.measurement), 58), "end"))
        body.append(text(WIDTH - right + 64, y + 4, number(p.value), "end"))
        body.append(text(WIDTH - right + 78, y + 4, _ends(p.lo, p.hi)))
    return drawing(height, label, body)


def _ends(lo: float | None, hi: float | None) -> str:
    if lo is None or hi is None:
        return ""
    joint = "–" if lo >= 0 else " to "
    return f"{number(lo)}{joint}{number(hi)}"


def _short(words: str, n: int) -> str:
    return words if len(words) <= n else words[: n - 1] + "…"


# ---- strip ------------------------------------------------------------------------------------------------------
def strip(e: Evidence) -> str:
    """The same as one row of the forest, small enough for a table cell; empty where there is no position."""
    p = position(e.measurement)
    if isinstance(p, Missing):
        return ""
    sx = Scale(-0.15, 1.15, 6, 254)
    reference, base, suspect = LOOKS["reference"], LOOKS["base"], LOOKS["suspect"]
    body = [line(sx(0), 11, sx(1), 11, 'stroke="currentColor" stroke-opacity="0.35"')]
    body += [line(sx(x), 4, sx(x), 18, 'stroke="currentColor" stroke-opacity="0.35"') for x in (0.0, 1.0)]
    body.append(marker(reference.shape, sx(0), 25, 3.6, f'fill="{reference.colour}"'))
    body.append(marker(base.shape, sx(1), 25, 3.6, f'fill="{base.colour}"'))
    if p.lo is not None and p.hi is not None:
        body.append(line(sx(p.lo), 11, sx(p.hi), 11, f'stroke="{suspect.colour}" stroke-width="2.5"'))
    body.append(marker("square", sx(p.value), 11, 5, f'{FILL[e.outcome]} stroke="{suspect.colour}" stroke-width="2"'))
    label = f"{number(p.value)} ({_ends(p.lo, p.hi) or 'no interval'}) between never trained, 0, and base, 1"
    return drawing(30, label, body, 260)
