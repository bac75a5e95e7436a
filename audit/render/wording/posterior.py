"""How sure a verdict is, for a reader: its ratio in short, and what a reader's own prior becomes.

What is said is how probable the findings are under either proposition; a prior is the reader's and no report holds one.
"""

from typing import Final

from audit.judging import EDGE, KNOWS, NEVER, Proposition, power_sentence, rate, replicates_of, supported, weighed
from audit.render.wording.findings import sentence, spoken, title, verdict_reason, verdict_sentence
from audit.render.wording.quantities import power_words
from audit.schema import Evidence, LikelihoodRatio, Missing, Power, Report
from audit.wording import number

FALSE_ALARMS: Final = "false alarms on models that never knew"
MISSES: Final = "missed fakes, which know everything and keep quiet"
STILL_NEVER: Final = (Proposition("it still knows", "it still knows"), Proposition("it never knew", "it never knew"))
H1_H2: Final = (Proposition("H1 holds", "H1 does"), Proposition("H2 holds", "H2 does"))
NO_POSTERIOR: Final = "No likelihood ratio is given for this case, so that no prior can be carried on to a posterior."


BELOW: Final = (
    "No error rate is known and no likelihood ratio is printed: the calibrated score counts traces above the "
    "never-trained level only, and this lies below."
)
OTHER_SIDE: Final = (
    "No error rate is known and no likelihood ratio is printed: the verdict rests on findings of this case that the "
    "calibrated score does not count."
)
TRACES: Final = ("INTACT", "PARTIAL", "SUPPRESSED")


def shown_ratio(report: Report) -> LikelihoodRatio | Missing:
    """The verdict's likelihood ratio, where a view may print it: never one for never trained beside a trace or below.

    A score that rises with a trace is small also where the suspect lies below a model that never knew, which no model
    that never knew does; and a trace that the verdict found elsewhere is not in it.
    """
    verdict = report.verdict
    if isinstance(verdict.ratio, Missing):
        return verdict.ratio
    if verdict.direction == "below":
        return Missing(missing=BELOW.rstrip("."))
    contradicts = verdict.word in TRACES and (supported(verdict.ratio) == NEVER or verdict.ratio.value < 1)
    return Missing(missing=OTHER_SIDE.rstrip(".")) if contradicts else verdict.ratio


def finding_ratio(e: Evidence) -> LikelihoodRatio | Missing:
    """The same for one finding."""
    if isinstance(e.ratio, Missing):
        return e.ratio
    if e.direction == "below":
        return Missing(missing=BELOW.rstrip("."))
    contradicts = e.outcome == "trace found" and (supported(e.ratio) == NEVER or e.ratio.value < 1)
    return Missing(missing=OTHER_SIDE.rstrip(".")) if contradicts else e.ratio


def how_sure(report: Report, brief: bool = False) -> str:
    """The verdict's sentence, and where it is calibrated the counted mistakes behind it; a negative with its worth.

    ``brief`` where both propositions stand beside it, as H1 and H2.
    """
    verdict, ratio = report.verdict, shown_ratio(report)
    if isinstance(ratio, LikelihoodRatio):
        sentences = [ratio_in_short(ratio)] if brief else [verdict_sentence(report), mistakes(ratio)]
        over = replicates_of(report.evidence)
        sentences += [power_sentence(ratio.limit, over)] if verdict.direction != "above" else []
    elif isinstance(verdict.ratio, LikelihoodRatio):
        reasons = [sentence(spoken(report, x)) for x in verdict.because[:1]]
        sentences = [*reasons, BELOW if verdict.direction == "below" else OTHER_SIDE]
    else:
        sentences = [verdict_sentence(report)]
        if verdict.word == "CONSISTENT WITH NEVER TRAINED":
            sentences.append(f"The tests show {verdict_reason(report)}. {_power_of(report)}.")
    return " ".join(sentences)


def _power_of(report: Report) -> str:
    """What the sharpest silent test would find, or that this is not known."""
    quiet = [e.measurement for e in report.evidence if e.outcome == "no trace found" and e.measurement.kind != "gate"]
    known = [(m.power.share, m) for m in quiet if isinstance(m.power, Power) and not isinstance(m.power.share, Missing)]
    if not known:
        return "How often they would find a planted trace of that size is not known"
    sharpest = min(known, key=lambda pair: pair[0])[1]
    return f"The sharpest of them is {title(sharpest)}. Its detection limit: {power_words(sharpest)}"


def mistakes(ratio: LikelihoodRatio) -> str:
    """Both error rates as counts, each with the models that it was counted on."""
    return (
        f"{FALSE_ALARMS.capitalize()}: {rate(ratio.false_alarms)}. {MISSES.capitalize()}: {rate(ratio.misses)}. Both "
        "were counted on models of known truth outside its fit; a world counts once, with one model or many."
    )


def ratio_in_short(ratio: LikelihoodRatio) -> str:
    """:func:`ratio_sentence` where the two propositions stand on the same page, and the counted mistakes above."""
    stated, ends = weighed(ratio, *H1_H2).rsplit(" (", 1)
    return (
        f"The findings are {stated}. {ends[0].upper()}{ends[1:].rstrip(')')}. On the verbal scale (glossary) this is "
        f"{_support(ratio, ('for H1', 'for H2'))}."
    )


def ratio_in_plain(ratio: LikelihoodRatio) -> str:
    """The same for a reader who has no more than page one."""
    stated = weighed(ratio, *STILL_NEVER).rsplit(" (", 1)[0]
    lo, hi, most = ratio.ci95.lo, ratio.ci95.hi, ratio.ceiling
    if ratio.value < 1:
        lo, hi, most = 1 / hi, 1 / lo, 1 / ratio.floor
    to = "" if hi >= most * (1 - EDGE) else f" and ends at {number(hi)}"
    return (
        f"The findings are {stated}. The 95 % interval begins at {number(lo)} times{to}; this design cannot show more "
        f"than {number(most)}. This is {_support(ratio, ('that it knows', 'that it never knew'))}."
    )


def _support(ratio: LikelihoodRatio, sides: tuple[str, str]) -> str:
    side = {None: "", KNOWS: f" {sides[0]}", NEVER: f" {sides[1]}"}[supported(ratio)]
    return f"{ratio.words}{side}"


def posterior(ratio: LikelihoodRatio, prior_odds: float) -> str:
    """What a reader's own prior becomes: both are printed, and neither is part of the report."""
    low, mid, high = (_bounded(x, ratio, prior_odds) for x in (ratio.ci95.lo, ratio.value, ratio.ci95.hi))
    return (
        f"Prior odds of {number(prior_odds)} for the proposition that {KNOWS} ({_probability(prior_odds)}) become, by "
        f"these findings, posterior odds of {mid} (95 % interval {low} to {high}): "
        f"{_probability(prior_odds * ratio.value, _mark(ratio.value, ratio))}. The prior is the reader's; the report "
        "holds none."
    )


def with_prior(report: Report, prior_odds: float) -> str:
    """:func:`posterior` of a report's verdict, or that there is none."""
    ratio = shown_ratio(report)
    return NO_POSTERIOR if isinstance(ratio, Missing) else posterior(ratio, prior_odds)


def _mark(value: float, ratio: LikelihoodRatio) -> str:
    """Is a ratio only a bound, at the ceiling or the floor of its design?"""
    return "≥ " if value >= ratio.ceiling * (1 - EDGE) else "≤ " if value <= ratio.floor * (1 + EDGE) else ""


def _bounded(value: float, ratio: LikelihoodRatio, prior_odds: float) -> str:
    return _mark(value, ratio) + number(value * prior_odds)


def _probability(odds: float, mark: str = "") -> str:
    share = odds / (1 + odds)
    if not 0.01 <= share <= 0.99:
        return f"a probability {'below 1' if share < 0.5 else 'above 99'} %"
    return f"a probability of {mark}{100 * share:.0f} %"
