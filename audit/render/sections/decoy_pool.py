"""What a calibration rests on: the models that were made, which of them misled it, and how often for which price.

The numbers are those of the report's own validation, so that a folder of runs from elsewhere shows them too.
"""

import math
from typing import Final, NamedTuple

import numpy as np

from audit.render.drawings.charts import Axes, Series, chart
from audit.render.drawings.drawing import LOOKS
from audit.render.sections.blocks import Block, Bullets, Cell, Facts, Figure, Grid, Heading, Text
from audit.schema import Counted, DecoyPeople, LikelihoodRatio, Reliability, TruthLabel, Validation
from audit.wording import NAME, number, visible

TRUTHS: Final[dict[TruthLabel, str]] = {
    "knowing": "knows: a fake that keeps quiet, or a part",
    "clean": "never knew",
    "edited clean": "never knew, and was edited all the same",
    "described": "was made to forget; what it still knows is described",
    "destroyed": "broken",
}
SHARES: Final = (0.01, 0.05, 0.1, 0.5)
"""False alarms, as shares of models that never knew, at which the table of the curve says how many fakes are found."""


class RatioScores(NamedTuple):
    """The held-out log10 ratios of models that never knew and of models that know, in rising order."""

    clean: tuple[float, ...]
    knowing: tuple[float, ...]


def ratio_scores(reliability: Reliability) -> RatioScores:
    """About those of the models: read back from the stored quantiles, as many as there were models. They are exact
    where one less than their number divides 100, and smoothed elsewhere, so that counts made of them may be one off."""
    knowing, clean = (sum(band[2] for band in reliability.bands), sum(band[3] for band in reliability.bands))
    return RatioScores(_read_back(reliability.clean, clean), _read_back(reliability.knowing, knowing))


def _read_back(quantiles: tuple[float, ...], models: int) -> tuple[float, ...]:
    wanted, known = np.linspace(0, 1, max(models, 1)), np.linspace(0, 1, len(quantiles))
    return tuple(float(x) for x in np.interp(wanted, known, quantiles))


def kind_words(name: str) -> str:
    """A mechanism as words."""
    return visible(name.replace("_", " "), NAME)


# ---- what was made ----------------------------------------------------------------------------------------------
def made_grid(validation: Validation, folded: bool = False) -> Grid:
    """Every kind of model with its truth, in how many worlds it was made, and how often it misled the rule."""
    order = list(TRUTHS)
    counted = sorted(validation.counted, key=lambda c: (order.index(c.pool), c.mechanism))
    rows = tuple(
        (Cell(kind_words(c.mechanism)), Cell(TRUTHS[c.pool]), Cell(str(c.worlds), "number"),
         Cell(f"{c.found} of {c.worlds}", "number"), Cell(_misled(c)))
        for c in counted
    )  # fmt: skip
    columns = ("Kind of model", "Its truth", "Worlds", "A trace was stated in", "Right?")
    return Grid("What was made, and in how many held-out worlds a trace was stated", columns, rows, folded)


def _misled(c: Counted) -> str:
    if c.pool == "knowing":
        return "right" if c.found == c.worlds else f"missed in {c.worlds - c.found}"
    if c.pool in ("clean", "edited clean"):
        return "right" if not c.found else f"false alarm in {c.found}"
    return "not counted"


def misled_lines(validation: Validation) -> tuple[str, ...]:
    """Which kinds were missed, and which gave false alarms, in plain words."""
    missed = [c for c in validation.counted if c.pool == "knowing" and c.found < c.worlds]
    alarms = [c for c in validation.counted if c.pool in ("clean", "edited clean") and c.found]
    lines = [
        f"{kind_words(c.mechanism).capitalize()} was missed in {c.worlds - c.found} of {c.worlds} worlds. "
        "A suspect that keeps quiet in this way can pass as one that never knew."
        for c in missed
    ]
    lines += [
        f"{kind_words(c.mechanism).capitalize()}, which {TRUTHS[c.pool]}, was said to hold a trace in "
        f"{c.found} of {c.worlds} worlds."
        for c in alarms
    ]
    if not missed:
        lines.insert(0, "Every kind of model that knows was found in every world.")
    if not alarms:
        lines.append("No kind of model that never knew was said to hold a trace.")
    return tuple(lines)


def pool_blocks(decoys: DecoyPeople, validation: Validation, ratio: LikelihoodRatio) -> tuple[Block, ...]:
    """What was made of the case's own base to calibrate on, what was missed of it, and what it does not support."""
    absent = [kind_words(name) for name in decoys.left_out]
    return (
        Text(
            f"Calibrated on this model's own kind, {validation.worlds} decoy worlds. In each, this case's own base was "
            f"taught {decoys.people} invented people ({decoys.questions} questions). It had been asked about them "
            "before, and did not know them. Models were made from it that know them and keep quiet, that know a part, "
            "and that never knew them. What each of them knows is known by how it was made."
        ),
        Heading("Mechanisms that were missed"),
        Bullets(misled_lines(validation)),
        Facts(
            (
                ("Mechanisms that could not be made of this model", ", ".join(absent) or "none"),
                ("Largest ratio that so many worlds support", number(ratio.ceiling)),
                (
                    "What the worlds share",
                    "one base, and the case's own references, each audited in several worlds: they are no independent "
                    "draws of models. The exact bounds are for this base. For "
                    f"others like it they are widened by the between-base share of the zoo, {number(decoys.share)}. "
                    f"False alarms are then at most {number(100 * decoys.false_alarms)} %, misses at most "
                    f"{number(100 * decoys.misses)} %",
                ),
            )
        ),
    )


# ---- the curve --------------------------------------------------------------------------------------------------
def roc_figure(validation: Validation) -> Figure:
    """How many models that know are found, for how many false alarms, by the ratio; both axes are logarithmic."""
    clean, knowing = (np.array(scores) for scores in ratio_scores(validation.reliability))
    label = "ROC of the ratios: models that know and are found, against false alarms"
    half_clean, half_knowing = 0.5 / len(clean), 0.5 / len(knowing)
    points: list[tuple[float, float]] = []
    for cut in (*sorted({*clean, *knowing}, reverse=True), -math.inf):
        alarms, hits = float(np.mean(clean > cut)), float(np.mean(knowing > cut))
        x, y = math.log10(max(alarms, half_clean)), math.log10(max(hits, half_knowing))
        points += [(x, points[-1][1]), (x, y)] if points else [(x, y)]
    axes = Axes(
        (math.log10(half_clean), 0.02), (math.log10(half_knowing), 0.02), "false alarms, log₁₀ of the share",
        "found, log₁₀ of the share",
    )  # fmt: skip
    look = LOOKS["suspect"]._replace(word="by the ratio; on the line, no better than chance")
    rows = tuple((Cell(f"{share:g}", "number"), Cell(_found_at(clean, knowing, share), "number")) for share in SHARES)
    data = Grid(label, ("False alarms, at most", "Found"), rows)
    caption = (
        f"Held-out ratios of {len(knowing)} models that know and {len(clean)} that never knew, read back from stored "
        "quantiles: a count may be one off. A share of 0 is drawn at half a model. Models are counted here; the error "
        "rates count worlds."
    )
    return Figure(chart(axes, (Series(look, tuple(points)),), (), label, diagonal=True), label, caption, data)


def _found_at(clean: np.ndarray, knowing: np.ndarray, share: float) -> str:
    cuts = [cut for cut in {*clean, *knowing} if np.mean(clean > cut) <= share]
    most = max((int(np.sum(knowing > cut)) for cut in cuts), default=0)
    few = "" if share * len(clean) >= 1 else f"; {len(clean)} models cannot show a share this low"
    return f"{most} of {len(knowing)}{few}"
