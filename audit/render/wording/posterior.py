"""How sure a verdict is, for a reader: its ratio in short, and what a reader's own prior becomes.

What is said is how probable the findings are under either proposition; a prior is the reader's and no report holds one.
"""

from typing import Final

from audit.judging import EDGE, KNOWS, NEVER, Proposition, power_sentence, rates_sentence, supported, weighed
from audit.render.wording.findings import verdict_reason, verdict_sentence
from audit.schema import LikelihoodRatio, Missing, Report
from audit.wording import number

H1_H2: Final = (Proposition("H1 holds", "H1 does"), Proposition("H2 holds", "H2 does"))
NO_POSTERIOR: Final = "No likelihood ratio is given for this case, so that no prior can be carried on to a posterior."


def how_sure(report: Report, brief: bool = False) -> str:
    """The verdict's sentence, and where it is calibrated the counted mistakes behind it; a negative with its worth.

    ``brief`` where both propositions stand beside it, as H1 and H2.
    """
    verdict = report.verdict
    sentences = [verdict_sentence(report)]
    if isinstance(verdict.ratio, LikelihoodRatio):
        sentences = [ratio_in_short(verdict.ratio)] if brief else [*sentences, rates_sentence(verdict.ratio)]
        sentences += [power_sentence(verdict.ratio.limit)] if verdict.direction != "above" else []
    elif verdict.word == "CONSISTENT WITH NEVER TRAINED":
        sentences.append(
            f"The tests are {verdict_reason(report)}; how often they would find a planted trace of that size is not "
            "known."
        )
    return " ".join(sentences)


def ratio_in_short(ratio: LikelihoodRatio) -> str:
    """:func:`ratio_sentence` where the two propositions stand on the same page, with the counted mistakes."""
    side = {None: "", KNOWS: " for H1", NEVER: " for H2"}[supported(ratio)]
    alarms, misses = (f"{r.k} of {r.n} worlds (at most {number(100 * r.upper95)} % with 95 % confidence)"
                      for r in (ratio.false_alarms, ratio.misses))  # fmt: skip
    return (
        f"The findings are {weighed(ratio, *H1_H2)}. On the scale of section 11 this is "
        f"{ratio.words}{side}. The same rule, on models of known truth that it was not fitted on: false alarms in "
        f"{alarms}, misses in {misses}."
    )


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
    ratio = report.verdict.ratio
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
