"""A figure of single items: what the suspect scores on each, against base or a model that never knew."""

from collections.abc import Sequence
from typing import Final

from audit.render.figures import QUIET, Drawing, grid_of, sketch
from audit.render.svg import LOOKS
from audit.render.wording import number

POINTS: Final = 5000
"""More items than this are drawn as a density, not one by one."""
BINS: Final = 20


def scores(suspect: Sequence[float], other: Sequence[float], role: str) -> Drawing:
    """Is the suspect like base, or like a model that never knew, item by item? On the diagonal they score alike."""
    low, high = min(*suspect, *other), max(*suspect, *other)
    figure = sketch(400)
    figure.add_scatter(
        x=[low, high], y=[low, high], mode="lines", line={"color": QUIET, "dash": "dot"}, hoverinfo="skip"
    )
    crowded = len(suspect) > POINTS
    if crowded:
        figure.add_histogram2d(x=list(other), y=list(suspect), nbinsx=40, nbinsy=40, colorscale="Blues", showscale=True)
    else:
        look = LOOKS["suspect"]
        figure.add_scatter(
            x=list(other), y=list(suspect), mode="markers", hovertemplate="%{x:.3g}, suspect %{y:.3g}<extra></extra>",
            marker={"color": look.colour, "size": 7, "opacity": 0.55, "symbol": look.shape},
        )  # fmt: skip
    figure.update_xaxes(title=f"score in {role}")
    figure.update_yaxes(title="score in suspect")
    told = f"Scores of {len(suspect)} items in suspect and {role}"
    rule = (
        f"More than {POINTS} items are drawn as a density."
        if crowded
        else f"Up to {POINTS} items are drawn one by one."
    )
    edges = [low + (high - low) * i / BINS for i in range(BINS + 1)]
    rows = [
        [
            f"{number(a)} to {number(b)}",
            str(_within(suspect, a, b, b == edges[-1])),
            str(_within(other, a, b, b == edges[-1])),
        ]
        for a, b in zip(edges, edges[1:], strict=False)
    ]
    data = grid_of(told, ("Score", "Items, suspect", f"Items, {role}"), rows)
    return Drawing(f"items-{role}", figure, told, f"On the dotted line both score alike. {rule}", data)


def _within(values: Sequence[float], low: float, high: float, closed: bool) -> int:
    return sum(low <= v < high or (closed and v == high) for v in values)
