"""Figures of what models of known truth say of a test: its ROC, its Tippett curves, and whether its ratios hold.

The numbers come from a stored calibration, so these functions take plain sequences: scores of clean models and of
models that know, quantiles of held-out log10 ratios, and bands of ratios that were said and counted.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

from audit.render.drawings.drawing import LOOKS
from audit.render.figures.report_figures import QUIET, Drawing, grid_of, pen, sketch
from audit.schema import Missing, Number
from audit.wording import number


class Rates(NamedTuple):
    """Of a threshold: how many clean models of how many lie above it, and how many knowing ones do not."""

    alarms: int
    clean: int
    missed: int
    knowing: int


def rates(clean: Sequence[float], knowing: Sequence[float], threshold: float) -> Rates:
    """False alarms and misses at a threshold: a trace is a score above it."""
    return Rates(sum(x > threshold for x in clean), len(clean), sum(x <= threshold for x in knowing), len(knowing))


def roc(clean: Sequence[float], knowing: Sequence[float], threshold: float, name: str = "threshold") -> Drawing:
    """How often is a trace found, for how many false alarms? Log-log, since only few false alarms are affordable.

    ``name`` is what the threshold is called.
    """
    cuts = sorted({*clean, *knowing}, reverse=True)
    by_cut = [rates(clean, knowing, cut) for cut in (*cuts, -math.inf)]
    floor_x, floor_y = 0.5 / len(clean), 0.5 / len(knowing)
    x = [max(r.alarms / r.clean, floor_x) for r in by_cut]
    y = [max(1 - r.missed / r.knowing, floor_y) for r in by_cut]
    figure = sketch(360, showlegend=True)
    figure.add_scatter(x=[floor_x, 1], y=[floor_x, 1], mode="lines", name="no better than chance",
                       line={"color": QUIET, "dash": "dot"}, hoverinfo="skip")  # fmt: skip
    figure.add_scatter(x=x, y=y, mode="lines", line=pen("suspect", 2.5) | {"shape": "hv"}, name="found, by threshold",
                       hovertemplate="false alarms %{x:.3g}, found %{y:.3g}<extra></extra>")  # fmt: skip
    chosen = rates(clean, knowing, threshold)
    figure.add_scatter(
        x=[max(chosen.alarms / chosen.clean, floor_x)], y=[max(1 - chosen.missed / chosen.knowing, floor_y)],
        mode="markers", marker={"size": 13, "symbol": "cross", "color": LOOKS["base"].colour}, name=name,
    )  # fmt: skip
    figure.update_xaxes(
        type="log", title="false alarms (share of clean models, log)", range=[math.log10(floor_x), 0.03], dtick=1
    )
    figure.update_yaxes(type="log", title="found (share of knowing models, log)", dtick=1)
    rows = [[f"FPR ≤ {share:g}", _true_positives_at(by_cut, share)] for share in (0.01, 0.001)]
    rows.append([f"at the {name}", f"found {chosen.knowing - chosen.missed} of {chosen.knowing}, "
                                     f"false alarms {chosen.alarms} of {chosen.clean}"])  # fmt: skip
    alt = f"ROC on {len(clean)} clean and {len(knowing)} knowing models"
    caption = "Both axes are logarithmic; a rate of 0 is drawn at half a model."
    return Drawing("roc", figure, alt, caption, grid_of(alt, ("At", "True positives"), rows))


def _true_positives_at(by_cut: Sequence[Rates], share: float) -> str:
    """The best true positive rate at no more than a share of false alarms, and whether so few models can show it."""
    allowed = [r for r in by_cut if r.alarms <= share * r.clean]
    best = max(allowed, key=lambda r: r.knowing - r.missed)
    bound = "" if share * best.clean >= 1 else f"; {best.clean} clean models cannot show a rate this low"
    return f"{best.knowing - best.missed} of {best.knowing} (false alarms {best.alarms} of {best.clean}{bound})"


def tippett(clean: Sequence[float], knowing: Sequence[float]) -> Drawing:
    """How misleading can a ratio be? The share of ratios at or above each value, under either truth."""
    figure = sketch(340, showlegend=True)
    share = [1 - i / (len(clean) - 1) for i in range(len(clean))]
    for role, values, words in (("reference", clean, "never trained"), ("base", knowing, "knows")):
        figure.add_scatter(x=list(values), y=share, mode="lines", line=pen(role, 2.5), name=words,
                           hovertemplate="log₁₀ LR ≥ %{x:.2f}: %{y:.0%}<extra>" + words + "</extra>")  # fmt: skip
    figure.add_vline(x=0, line={"dash": "dot", "color": QUIET})
    figure.update_xaxes(title="log₁₀ likelihood ratio")
    figure.update_yaxes(title="share at or above", range=[-0.03, 1.03])
    rows = [[f"{s:.0%}", number(clean[i]), number(knowing[i])] for i, s in enumerate(share) if i % 10 == 0]
    alt = "Tippett plot of held-out likelihood ratios"
    caption = "Right of 0, the never-trained curve is misleading evidence; left of it, the knowing one."
    columns = ("Share at or above", "Never trained: log₁₀ LR", "Knows: log₁₀ LR")
    return Drawing("tippett", figure, alt, caption, grid_of(alt, columns, rows))


def reliability(bands: Sequence[tuple[float, Number, int, int]]) -> Drawing:
    """Are the ratios worth what they say? Said against counted, in bands, with how many models stand behind each."""
    counted = [
        (nominal, empirical, know, clean)
        for nominal, empirical, know, clean in bands
        if not isinstance(empirical, Missing)
    ]
    figure = sketch(340, showlegend=True)
    ends = [x for nominal, empirical, _, _ in counted for x in (nominal, empirical)] or [-1.0, 1.0]
    low, high = min(ends) - 0.2, max(ends) + 0.2
    figure.add_scatter(x=[low, high], y=[low, high], mode="lines", line={"color": QUIET, "dash": "dot"},
                       name="said = counted", hoverinfo="skip")  # fmt: skip
    figure.add_scatter(
        x=[b[0] for b in counted], y=[b[1] for b in counted], mode="markers+lines", line=pen("suspect"),
        marker={"size": 10, "color": LOOKS["suspect"].colour, "symbol": "square"}, name="as counted",
        customdata=[[b[2], b[3]] for b in counted],
        hovertemplate="said %{x:.2f}, counted %{y:.2f}<br>%{customdata[0]} know, %{customdata[1]} clean<extra></extra>",
    )  # fmt: skip
    figure.update_xaxes(title="log₁₀ ratio as said (nominal)")
    figure.update_yaxes(title="log₁₀ ratio as counted (empirical)")
    absent = "not countable: one kind is absent"
    rows = [
        [number(nominal), absent if isinstance(empirical, Missing) else number(empirical), str(know), str(clean)]
        for nominal, empirical, know, clean in bands
    ]
    alt = "Ratios as said against ratios as counted"
    caption = "On the dotted line a ratio is worth what it says. Bands without one kind of model cannot be counted."
    columns = ("Said", "Counted", "Knowing models", "Clean models")
    return Drawing("reliability", figure, alt, caption, grid_of(alt, columns, rows))
