"""What do the error rates rest on?"""

from audit.render import (
    calibration_uses,
    made_grid,
    misled_lines,
    pool_blocks,
    ratio_scores,
    reliability,
    roc,
    sentence,
    tippett,
)
from audit.schema import LikelihoodRatio, Missing, Validation
from audit.wording import NAME, number, visible
from dashboards import bar, show, states

ORDER = 45


def made(validation: Validation, ratio: LikelihoodRatio) -> None:
    """Which models were made to calibrate on, which of them misled the rule, and how far that reaches."""
    if validation.decoys is not None:
        show.blocks(pool_blocks(validation.decoys, validation, ratio))
    else:
        show.lead(
            f"Calibrated on the {visible(validation.pool, NAME)}: {validation.worlds} worlds, each with a base of its "
            "own, and models of known truth made from it."
        )
        show.heading("Which models misled it")
        show.bullets(misled_lines(validation))
    show.heading("What was made")
    show.table(made_grid(validation))


def curves(validation: Validation) -> None:
    """ROC with logarithmic axes, Tippett, and whether the ratios hold."""
    held = validation.reliability
    scores = ratio_scores(held)
    show.heading("How many are found, for how many false alarms")
    show.chart(roc(scores.clean, scores.knowing, 0.0, "ratio of 1"))
    show.note("By held-out ratios, a model each. The error rates of the verdict count a world once.")
    show.heading("How far a ratio can mislead")
    show.chart(tippett(held.clean, held.knowing))
    show.heading("Are ratios worth what they say?")
    show.chart(reliability(held.bands))
    show.facts([
        ("Cllr", f"{number(held.cllr)} bits; {number(held.cllr_min)} at best by these scores. 0 is always right and "
         "sure, 1 is no better than silence."),
    ])  # fmt: skip


view = bar.current()
report = states.report_or_stop(view)
validation, ratio = report.validation, report.verdict.ratio
if isinstance(validation, Missing) or isinstance(ratio, Missing):
    reason = validation.missing if isinstance(validation, Missing) else "the verdict carries no likelihood ratio"
    states.nothing("No error rate is known for this verdict", sentence(visible(reason)))
    show.text("Error rates for this kind of model come from decoys, which its own base is taught and made to forget:")
    show.command("residua calibrate --on case.toml")
else:
    made(validation, ratio)
    curves(validation)
if uses := calibration_uses(report):
    show.heading("Which calibration judged which test")
    show.blocks(uses)
