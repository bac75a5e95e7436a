"""The study's one figure: every metric's AUROC as published, on our models that learned it, and on fakes.

The file chooses its ink by the reader's light or dark page; each kind of number has a marker of its own, so that
nothing depends on colour.
"""

from collections.abc import Sequence
from html import escape
from typing import Final, NamedTuple

from audit.render import Scale, at, marker
from studies.faithfulness.metrics import METRICS
from studies.faithfulness.tables import ResultParts, Row, parts_of

WIDTH, LEFT, RIGHT, STEP, TOP = 860, 300, 40, 34, 92
TICKS = (0.0, 0.25, 0.5, 0.75, 1.0)


class Kind(NamedTuple):
    """One kind of number: colour, marker, its place above or below the row's middle, and its words."""

    colour: str
    shape: str
    shift: float
    words: str


KINDS: Final = {
    "figure": Kind("#808080", "diamond", -9.0, "published"),
    "published": Kind("#009E73", "circle", 0.0, "ours: learned it, against never trained on it"),
    "fakes": Kind("#D55E00", "square", 9.0, "ours: hidden by a fake, against never trained on it"),
}
STYLE = (
    "<style>svg{color:#1f2328;font-family:system-ui,sans-serif}"
    "@media(prefers-color-scheme:dark){svg{color:#e6edf3}}</style>"
)


def _marker(shape: str, x: float, y: float, r: float, paint: str) -> str:
    """A marker of this figure: a circle or a diamond, or one of the report's."""
    if shape == "circle":
        return f'<circle cx="{at(x)}" cy="{at(y)}" r="{at(r)}" {paint}/>'
    if shape == "diamond":
        corners = ((0, -1.3), (1.3, 0), (0, 1.3), (-1.3, 0))
        points = " ".join(f"{at(x + r * dx)},{at(y + r * dy)}" for dx, dy in corners)
        return f'<polygon points="{points}" {paint}/>'
    return marker(shape, x, y, r, paint)


def _text(x: float, y: float, words: str, anchor: str = "start", size: int = 13) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" font-size="{size}">{escape(words)}</text>'


def _line(x1: float, y1: float, x2: float, y2: float, style: str) -> str:
    return f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" {style}/>'


def _legend() -> list[str]:
    """What each marker is, one line each."""
    out: list[str] = []
    for n, kind in enumerate(KINDS.values()):
        y = 18.0 + 20 * n
        paint = f'fill="{kind.colour}" stroke="{kind.colour}"'
        out += [_marker(kind.shape, LEFT + 6, y - 4, 4.5, paint), _text(LEFT + 20, y, kind.words)]
    return out


def _grid(sx: Scale, bottom: float) -> list[str]:
    """Lines at round numbers; chance is dashed."""
    out: list[str] = []
    for x in TICKS:
        dash = ' stroke-dasharray="4 4" stroke-opacity="0.6"' if x == 0.5 else ' stroke-opacity="0.16"'
        out.append(_line(sx(x), TOP - 14, sx(x), bottom, f'stroke="currentColor"{dash}'))
        out.append(_text(sx(x), bottom + 18, f"{x:g}", "middle", 12))
    return [*out, _text(sx(0.5), bottom + 36, "AUROC (.5: blind; below it: the wrong way round)", "middle", 12)]


def _row(parts: ResultParts, key: str, y: float, sx: Scale) -> list[str]:
    """Our two numbers of one metric with their intervals."""
    out: list[str] = []
    for name in ("published", "fakes"):
        row, kind = parts.contrasts.get(name, {}).get(key), KINDS[name]
        if row is None:
            continue
        at = y + kind.shift
        lo, hi, auc = (float(str(row[end])) for end in ("lo", "hi", "auc"))
        out.append(_line(sx(lo), at, sx(hi), at, f'stroke="{kind.colour}" stroke-width="2.5"'))
        out.append(_marker(kind.shape, sx(auc), at, 4.5, f'fill="{kind.colour}" stroke="{kind.colour}"'))
    return out


def figure(results: Row) -> str:
    """The figure as a file of its own; equal results give equal bytes."""
    parts, rows = parts_of(results), list(METRICS)
    bottom = TOP + STEP * len(rows)
    sx = Scale(0.0, 1.0, LEFT, WIDTH - RIGHT)
    body = [STYLE, *_legend(), *_grid(sx, bottom)]
    for n, metric in enumerate(rows):
        y = TOP + STEP * n + STEP / 2
        if n % 2:
            body.append(f'<rect x="0" y="{y - STEP / 2:.1f}" width="{WIDTH}" height="{STEP}" fill-opacity="0.05"/>')
        body.append(_text(LEFT - 14, y + 4, metric.words, "end"))
        if metric.published:
            kind = KINDS["figure"]
            paint = f'fill="{kind.colour}" stroke="{kind.colour}"'
            body.append(_marker(kind.shape, sx(metric.published.faithful), y + kind.shift, 4.5, paint))
        body += _row(parts, metric.key, y, sx)
    return _svg(bottom + 50, "AUROC of every metric: as published, on models that learned it, on fakes", body)


def _svg(height: float, label: str, body: Sequence[str]) -> str:
    size = f'viewBox="0 0 {WIDTH} {height:.0f}" width="{WIDTH}" height="{height:.0f}"'
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" {size} role="img" aria-label="{escape(label)}" fill="currentColor">'
    )
    return f"{head}{''.join(body)}</svg>\n"
