"""Controls, detection limits and calibration as blocks: what the silence of a test and what a ratio is worth."""

import math

from audit import stats
from audit.judging import limit_sentence, rate, replicates_of, short
from audit.render.drawings.charts import Axes, Mark, Series, chart
from audit.render.drawings.drawing import LOOKS
from audit.render.drawings.scale import quantile
from audit.render.sections.blocks import Block, Cell, Facts, Figure, Grid, Heading, Text
from audit.render.sections.decoy_pool import made_grid, pool_blocks, roc_figure
from audit.render.sections.findings import JUDGED
from audit.render.wording.findings import title
from audit.render.wording.posterior import FALSE_ALARMS, MISSES, shown_ratio
from audit.render.wording.quantities import deciding, power_cell, silence_worth
from audit.schema import LikelihoodRatio, Missing, Report, Validation
from audit.wording import CELL, NAME, interval, number, visible

KNOWING = LOOKS["base"]._replace(word="models that know")
CLEAN = LOOKS["reference"]._replace(word="models that never knew")
POWER = LOOKS["suspect"]._replace(word="found, and its exact 95 % interval")
CONTROLLED = (
    "A test counts only where it finds the knowledge in base (positive control). The floor is the effect of one "
    "reference against another, neither of which knows anything (negative control). The random control draws labels or "
    "signs at random. The detection limit is the smallest planted trace that the test finds with probability .8."
)
FITTED = LOOKS["gate"]._replace(word="power, never falling")


def controls(report: Report) -> tuple[Block, ...]:
    """What controls are for, the calibrated rule with its counted mistakes, and its detection limit with a figure."""
    over = replicates_of(report.evidence)
    return Text(over.rephrased(CONTROLLED)), *_rule_facts(report), *_limit(report)


def calibration(report: Report) -> tuple[Block, ...]:
    """How the ratios of the rule hold up, what it says of every kind of model, and which calibration judged what."""
    return (*_curves(report), *calibration_uses(report)) or (Text("No calibration judged, and none was looked for."),)


def _num(text: str) -> Cell:
    return Cell(text, "number")


def _name(text: str) -> Cell:
    return Cell(visible(text, CELL))


def control_table(report: Report) -> tuple[Block, ...]:
    """Positive, negative and random control of every judged test, and what its silence is worth."""
    rows: list[tuple[Cell, ...]] = []
    judged = [e for e in report.evidence if e.measurement.kind in JUDGED and e.measurement.mode == "controlled"]
    for e in judged:
        m = e.measurement
        control = m.positive_control
        if isinstance(control, Missing):
            base = f"missing ({visible(control.missing, CELL)})"
        else:
            base = f"{number(control.value)} ({interval(control.ci95)}), {'found' if control.found else 'not found'}"
        if isinstance(m.null, Missing):
            null = f"missing ({visible(m.null.missing, CELL)})"
        else:
            ends = f"{number(quantile(m.null.quantiles, 0.025))} to {number(quantile(m.null.quantiles, 0.975))}"
            null = f"{ends}: {visible(m.null.kind, NAME)}, {m.null.n} draws"
        worth = "Not silent: a trace was found." if e.outcome == "trace found" else silence_worth(m)
        rows.append((Cell(title(m)), _num(base), _num(number(m.floor)), _num(null), Cell(deciding(e).words),
                     _num(power_cell(m)), Cell(worth)))  # fmt: skip
    if not rows:
        return (Text("No test was judged, so there is no control to show."),)
    columns = ("Test", "Positive control: base", "Negative control: floor", "Random control: null band, 95 % of draws",
               "What decides", "Detection limit", "What a silence is worth")  # fmt: skip
    return (Grid("Controls of every judged test", columns, tuple(rows)),)


# ---- detection limit --------------------------------------------------------------------------------------------
def _limit(report: Report) -> tuple[Block, ...]:
    validation, ratio, over = report.validation, report.verdict.ratio, replicates_of(report.evidence)
    heading = Heading("Detection limit of the calibrated rule")
    if isinstance(validation, Missing) or isinstance(ratio, Missing) or not validation.doses:
        return heading, Text(
            "No calibrated rule judged this case, so no worlds can be counted in which a planted trace was found. The "
            "table of all tests has the detection limit of each."
        )
    label = "Detection limit: how often a model that kept a part of the forget set was found"
    points = tuple((100 * d.kept / d.audited, d.k / d.n) for d in validation.doses)
    bounds = [stats.clopper_pearson(d.k, d.n) for d in validation.doses]
    bars = tuple((x, b.lo, b.hi) for (x, _), b in zip(points, bounds, strict=True))
    power = tuple((100 * d.kept / d.audited, d.power) for d in validation.doses)
    series = (Series(POWER, points, joined=False, marked=True, bars=bars), Series(FITTED, power))
    axes = Axes(
        (0.0, 1.08 * max(x for x, _ in points)), (0.0, 1.05), f"audited {over.plural} kept, %", "share of worlds found"
    )
    marks: list[Mark] = []
    if not isinstance(ratio.limit, Missing):
        marks.append(Mark(100 * ratio.limit.kept / ratio.limit.audited, "detection limit", strong=True))
    rows = tuple(
        (Cell(f"{d.kept} of {d.audited}"), _num(f"{d.k} of {d.n}"), _num(f"{number(b.lo)} to {number(b.hi)}"),
         _num(number(d.power))) for d, b in zip(validation.doses, bounds, strict=True)
    )  # fmt: skip
    data = Grid(
        label, (over.rephrased("People kept"), "Worlds in which it was found", "95 %", "Power, never falling"), rows
    )
    caption = f"Doses: models that were taught only some of the {over.plural}, in held-out worlds."
    return (
        heading,
        Text(limit_sentence(ratio.limit, over)),
        Figure(chart(axes, series, marks, label), label, caption, data),
    )


# ---- calibration ------------------------------------------------------------------------------------------------
def _rule_facts(report: Report) -> tuple[Block, ...]:
    heading, validation, ratio = Heading("The calibrated rule"), report.validation, shown_ratio(report)
    if isinstance(validation, Missing) or isinstance(ratio, Missing):
        if isinstance(report.verdict.ratio, LikelihoodRatio) and isinstance(ratio, Missing):
            return heading, Text(f"{visible(ratio.missing)}."), Facts(_rates(report.verdict.ratio))
        reason = validation.missing if isinstance(validation, Missing) else "the verdict carries no likelihood ratio"
        return heading, Text(
            f"{visible(reason).capitalize()}. So this report states no likelihood ratio and no error rate."
        )
    r, ends = validation.reliability, f"floor {number(ratio.floor)}, ceiling {number(ratio.ceiling)}"
    facts = Facts(
        (
            ("Rule", f"{visible(validation.rule, NAME)}, from {validation.worlds} worlds of "
             f"{visible(validation.pool, NAME)}"),
            ("Score of this case", f"{number(validation.score)} (0: the threshold; −1: what a model that never knew "
             "reads)"),
            ("Likelihood ratio", f"{short(ratio)}; {ends}"),
            *_rates(ratio),
            ("Cost of the ratios, Cllr", f"{number(r.cllr)} bits, {number(r.cllr_min)} at best by these scores. 0 is "
             "always right and sure; 1 is no better than silence."),
        )
    )  # fmt: skip
    own = () if validation.decoys is None else pool_blocks(validation.decoys, validation, ratio)
    return heading, *own, facts


def _curves(report: Report) -> tuple[Block, ...]:
    validation, ratio = report.validation, shown_ratio(report)
    if isinstance(validation, Missing) or isinstance(ratio, Missing):
        return ()
    roc = () if validation.decoys is None else (roc_figure(validation),)
    return (
        *roc,
        _tippett(validation, ratio),
        *_bands(validation),
        made_grid(validation, folded=validation.decoys is None),
    )


def _rates(ratio: LikelihoodRatio) -> tuple[tuple[str, str], ...]:
    """Both counts, each with the models that it was counted on; the bands below count models and not worlds."""
    return (
        (FALSE_ALARMS.capitalize(), f"{rate(ratio.false_alarms)}. A world counts once, by the verdict. Bands of "
         "ratios (appendix) count every model, by its score."),
        (MISSES.capitalize(), f"{rate(ratio.misses)}. Models that know a part (doses) are in the detection limit."),
    )  # fmt: skip


def _tippett(validation: Validation, ratio: LikelihoodRatio) -> Figure:
    label = "Tippett curves: how often models of known truth reach a likelihood ratio"
    curves = {"knowing": validation.reliability.knowing, "clean": validation.reliability.clean}
    series: list[Series] = []
    for look, quantiles in ((KNOWING, curves["knowing"]), (CLEAN, curves["clean"])):
        last = len(quantiles) - 1
        series.append(Series(look, tuple((x, 1 - i / last) for i, x in enumerate(quantiles))))
    every = [*curves["knowing"], *curves["clean"], math.log10(ratio.floor), math.log10(ratio.ceiling)]
    marks = (
        Mark(math.log10(ratio.value), "this case", strong=True), Mark(math.log10(ratio.ceiling), "ceiling"),
        Mark(math.log10(ratio.floor), "floor"),
    )  # fmt: skip
    axes = Axes((min(every) - 0.15, max(every) + 0.15), (0.0, 1.02), "log₁₀ likelihood ratio", "share at least so high")
    shares = (0, 5, 25, 50, 75, 95, 100)
    rows = tuple(
        (Cell(f"{share} %"), *(_num(number(quantile(curve, share / 100))) for curve in curves.values()))
        for share in shares
    )
    columns = ("Share of models below", "Models that know: log₁₀ ratio", "Models that never knew: log₁₀ ratio")
    caption = (
        "Ratios of models that the rule was not fitted on. To the right of 0 a model that never knew misleads, to the "
        "left of it one that knows."
    )
    return Figure(chart(axes, series, marks, label), label, caption, Grid(label, columns, rows))


def _bands(validation: Validation) -> tuple[Figure, ...]:
    bands = validation.reliability.bands
    counted = [(nominal, c) for nominal, c, _, _ in bands if not isinstance(c, Missing)]
    if len(counted) < 2:
        return ()
    label = "Calibration: likelihood ratios as said and as counted"
    points = tuple(sorted(counted))
    every = [x for pair in points for x in pair]
    ends = (min(every) - 0.2, max(every) + 0.2)
    look = LOOKS["suspect"]._replace(word="a band of ratios; on the line, what is said is what is counted")
    axes, series = Axes(ends, ends, "log₁₀ ratio as said", "as counted"), Series(look, points, False, True)
    drawn = chart(axes, (series,), (), label, diagonal=True)
    rows = tuple(
        (
            _num(number(nominal)),
            _num("one kind only" if isinstance(c, Missing) else number(c)),
            _num(str(k)),
            _num(str(n)),
        )
        for nominal, c, k, n in bands
    )
    columns = ("log₁₀ ratio as said", "As counted", "Models that know", "Models that never knew")
    one_kind = len(bands) - len(counted)
    caption = "Held-out ratios in bands, against what counting the two kinds of model in each band gives."
    if one_kind:
        caption += f" {one_kind} of {len(bands)} bands hold one kind only and are in the table, not in the figure."
    return (Figure(drawn, label, caption, Grid(label, columns, rows), folded=True),)


def calibration_uses(report: Report) -> tuple[Block, ...]:
    """Which calibration judged which test, what it is not valid for, and what renews those that did not."""
    if not report.calibrations:
        return ()
    rows = tuple(
        (
            Cell(visible(use.probe, NAME).replace("_", " ")), Cell(visible(use.status, NAME)),
            _name(f"{use.pool}, {use.worlds} worlds" if use.pool else "none"), Cell(visible(use.because)),
            Cell(visible(use.sha256[:12]), "code"), Cell(visible(use.renew, CELL), "code"),
        )
        for use in report.calibrations
    )  # fmt: skip
    columns = ("Test", "Calibration", "Made from", "Valid for, or why it did not judge", "SHA-256", "Renewed by")
    return (Grid("Which calibration judged which test", columns, rows),)
