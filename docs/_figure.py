"""The figure of the README: both axes of one finished audit, drawn as page one of its report draws them.

    python docs/_figure.py runs/demo-s0/head_edit docs/head_edit.svg

A picture in a page inherits no colour, so that the drawing gets ink and paper of its own.
"""

import re
import sys
from pathlib import Path

from audit.render import VERDICT_SYMBOL, axes_drawing
from audit.runs import read_issued

INK, PAPER, ROOM = "#1b1f24", "#ffffff", 36


def figure(run: Path) -> str:
    """The drawing as a file of its own, with the checkpoint's name and verdict above it."""
    report = read_issued(run).report
    drawing = axes_drawing(report)
    width, height = map(float, re.findall(r'viewBox="0 0 ([\d.]+) ([\d.]+)"', drawing)[0])
    label = re.sub("[<>&]", "", re.findall(r'aria-label="([^"]*)"', drawing)[0])
    inner = drawing[drawing.index(">") + 1 : drawing.rindex("</svg>")].replace("currentColor", INK)
    title = f"{report.plan.case.name}: {VERDICT_SYMBOL[report.verdict.word]} {report.verdict.word}"
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width + 40:g} {height + ROOM + 12:g}" role="img" '
        f'aria-label="{title}. {label}" font-family="system-ui, sans-serif" font-size="13" fill="{INK}">\n'
        f'<rect width="100%" height="100%" rx="6" fill="{PAPER}"/>\n'
        f'<text x="{(width + 40) / 2:g}" y="24" text-anchor="middle" font-size="15" font-weight="600">{title}</text>\n'
        f'<g transform="translate(20 {ROOM})">{inner}</g>\n</svg>\n'
    )


if __name__ == "__main__":
    Path(sys.argv[2]).write_text(figure(Path(sys.argv[1])), encoding="utf-8")
