"""Profiles over depth or steps as inline SVG.

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
from audit.schema import Curve, MeasurementScale
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


def limits_of(values: Sequence[float], clipped: bool = True) -> tuple[float, float]:
    """Axis limits that hold 0, 1 and the data; on a clipped scale no wild point may flatten all others."""
    lo, hi = min((0.0, *values)), max((1.0, *values))
    if clipped:
        lo, hi = max(lo, FLAT_LOW), min(hi, FLAT_HIGH)
    room = 0.05 * (hi - lo)
    return lo - room, hi + room


def _frame(curves: Sequence[Curve]) -> tuple[float, float]:
    return limits_of([y for c in curves for y in (*c.y, *c.lo, *c.hi)], all(c.scale in BOUNDED for c in curves))


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
        out.append(marker(look.shape, x + 13, y, 6 if role == "base" else 4, _solid(look.colour)))
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
    """A line with its markers. Base is a wide line with tall strokes, so that it shows where the suspect covers it."""
    look = LOOKS[curve.role]
    points = [(sx(x), sy(y)) for x, y in zip(curve.x, curve.y, strict=True)]
    dash = f' stroke-dasharray="{look.dash}"' if look.dash else ""
    base = curve.role == "base"
    width = {"base": 5, "suspect": 2.5}.get(curve.role, 1.7)
    faint = ' stroke-opacity="0.45"' if base else ""
    path = "M" + "L".join(f"{at(x)} {at(y)}" for x, y in points)
    out = [f'<path d="{path}" fill="none" stroke="{look.colour}" stroke-width="{width}"{dash}{faint}/>']
    return out + [marker(look.shape, x, y, 8 if base else 4, _solid(look.colour)) for x, y in points]


def _solid(colour: str) -> str:
    return f'fill="{colour}" stroke="{colour}" stroke-width="2"'
