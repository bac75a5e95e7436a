"""A figure of single items: what the suspect scores on each, against base or a model that never knew."""

from collections.abc import Sequence
from typing import Final

import numpy as np

from audit.render.drawings.drawing import LOOKS
from audit.render.figures.report_figures import QUIET, Drawing, grid_of, sketch
from audit.wording import number

POINTS: Final = 5000
"""More items than this are drawn as a density, not one by one."""
BINS: Final = 20


def scores(suspect: Sequence[float], other: Sequence[float], role: str) -> Drawing:
    """Is the suspect like base, or like a model that never knew, item by item? On the diagonal they score alike."""
    low, high = min(*suspect, *other), max(*suspect, *other)
    figure = sketch(400)
    line = {"color": QUIET, "dash": "dot"}
    crowded = len(suspect) > POINTS
    if crowded:
        counts, edges, _ = np.histogram2d(suspect, other, bins=2 * BINS, range=[[low, high]] * 2)
        middles = (edges[1:] + edges[:-1]) / 2
        figure.add_heatmap(x=middles, y=middles, z=np.where(counts > 0, counts, np.nan), colorscale="Blues")
    figure.add_scatter(x=[low, high], y=[low, high], mode="lines", line=line, hoverinfo="skip")
    if not crowded:
        look = LOOKS["suspect"]
        figure.add_scatter(
            x=list(other), y=list(suspect), mode="markers", hovertemplate="%{x:.3g}, suspect %{y:.3g}<extra></extra>",
            marker={"color": look.colour, "size": 7, "opacity": 0.55, "symbol": look.shape},
        )  # fmt: skip
    figure.update_xaxes(title=f"score in {role}")
    figure.update_yaxes(title="score in suspect")
    alt = f"Scores of {len(suspect)} items in suspect and {role}"
    rule = (
        f"More than {POINTS} items are drawn as a density."
        if crowded
        else f"Up to {POINTS} items are drawn one by one."
    )
    bins = np.linspace(low, high, BINS + 1)
    both = [np.histogram(values, bins=bins)[0] for values in (suspect, other)]
    rows = [
        [f"{number(float(a))} to {number(float(b))}", str(n), str(m)]
        for a, b, n, m in zip(bins, bins[1:], *both, strict=False)
    ]
    data = grid_of(alt, ("Score", "Items, suspect", f"Items, {role}"), rows)
    return Drawing(f"items-{role}", figure, alt, f"On the dotted line both score alike. {rule}", data)
