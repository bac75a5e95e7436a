"""A chart of lines and points with marks, as inline SVG: for curves that belong to a rule and not to a role."""

from collections.abc import Sequence
from html import escape
from typing import Final, NamedTuple

from audit.render.drawings.drawing import (
    BOTTOM,
    LEFT,
    RIGHT,
    WIDTH,
    Look,
    Scale,
    at,
    drawing,
    line,
    marker,
    text,
    ticks,
)
from audit.wording import number

HEIGHT: Final = 250
TOP: Final = 62


class Series(NamedTuple):
    """Points with a look; ``joined`` by a line, ``marked`` by markers, ``bars`` (x, low, high) around them."""

    look: Look
    points: tuple[tuple[float, float], ...]
    joined: bool = True
    marked: bool = False
    bars: tuple[tuple[float, float, float], ...] = ()


class Axes(NamedTuple):
    """Limits of both axes and what they are; ``y_word`` stands at the upper end of the y axis."""

    x: tuple[float, float]
    y: tuple[float, float]
    x_word: str
    y_word: str


class Mark(NamedTuple):
    """A value of x that matters, and its name; ``strong`` is this case's own."""

    x: float
    word: str
    strong: bool = False


def chart(axes: Axes, series: Sequence[Series], marks: Sequence[Mark], label: str, diagonal: bool = False) -> str:
    """The chart; marks are named above the frame, one line each."""
    top = TOP + 15 * max(len(marks) - 1, 0)
    height = top + HEIGHT
    sx = Scale(*axes.x, LEFT, WIDTH - RIGHT)
    sy = Scale(*axes.y, height - BOTTOM, top)
    body = [*_legend(series), *_axes(axes, sx, sy, height)]
    if diagonal:
        lo, hi = max(axes.x[0], axes.y[0]), min(axes.x[1], axes.y[1])
        body.append(line(sx(lo), sy(lo), sx(hi), sy(hi), 'stroke="currentColor" stroke-opacity="0.4"'))
    for row, mark in enumerate(marks):
        dash = "" if mark.strong else ' stroke-dasharray="2 4"'
        style = f'stroke="currentColor" stroke-width="1.3"{dash}'
        body.append(line(sx(mark.x), top - 6 - 15 * row, sx(mark.x), height - BOTTOM, style))
        left = sx(mark.x) > WIDTH / 2
        body.append(text(sx(mark.x) + (-5 if left else 5), top - 9 - 15 * row, mark.word, "end" if left else "start"))
    for curve in series:
        body += _drawn(curve, sx, sy)
    return drawing(height, label, body)


def _axes(axes: Axes, sx: Scale, sy: Scale, height: float) -> list[str]:
    out: list[str] = []
    faint = 'stroke="currentColor" stroke-opacity="0.14"'
    for y in ticks(*axes.y):
        out += [line(LEFT, sy(y), WIDTH - RIGHT, sy(y), faint), text(LEFT - 8, sy(y) + 4, number(y), "end")]
    for x in ticks(*axes.x):
        out += [line(sx(x), height - BOTTOM, sx(x), height - BOTTOM + 5)]
        out.append(text(sx(x), height - BOTTOM + 20, number(x), "middle"))
    out.append(line(LEFT, height - BOTTOM, WIDTH - RIGHT, height - BOTTOM))
    return [
        *out,
        text(WIDTH - RIGHT, height - 8, f"{axes.x_word} →", "end"),
        text(LEFT, height - 8, f"↑ {axes.y_word}"),
    ]


def _legend(series: Sequence[Series]) -> list[str]:
    out: list[str] = []
    x = float(LEFT)
    for curve in series:
        look = curve.look
        if curve.joined:
            out.append(line(x, 14, x + 26, 14, _pen(look)))
        if curve.marked:
            out.append(marker(look.shape, x + 13, 14, 4, _paint(look)))
        out.append(text(x + 32, 18, look.word))
        x += 46 + 7.2 * len(look.word)
    return out


def _pen(look: Look) -> str:
    dash = f' stroke-dasharray="{look.dash}"' if look.dash else ""
    return f'fill="none" stroke="{escape(look.colour)}" stroke-width="2"{dash}'


def _paint(look: Look) -> str:
    return f'fill="{look.colour}" stroke="{look.colour}" stroke-width="1.5"'


def _drawn(curve: Series, sx: Scale, sy: Scale) -> list[str]:
    out = [
        line(sx(x), sy(lo), sx(x), sy(hi), f'stroke="{curve.look.colour}" stroke-width="2"') for x, lo, hi in curve.bars
    ]
    placed = [(sx(x), sy(y)) for x, y in curve.points]
    if curve.joined and placed:
        path = "M" + "L".join(f"{at(x)} {at(y)}" for x, y in placed)
        out.append(f'<path d="{path}" {_pen(curve.look)}/>')
    if curve.marked:
        out += [marker(curve.look.shape, x, y, 4.5, _paint(curve.look)) for x, y in placed]
    return out
