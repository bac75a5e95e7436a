"""Likelihood ratios in words: bands, numbers under their ceiling, error rates as counts, and what a silence is worth.

The band is taken from the end of the interval nearest 1, never from the estimate, and never beyond the ceiling. What is
said is how probable the findings are under either proposition, never how probable a proposition is.
"""

import math
from typing import Final, NamedTuple

from audit.schema import DetectionLimit, Interval, LikelihoodRatio, Missing, Rate
from audit.stats import approximate
from audit.wording import PERSON, Replicate, number, visible

NO_SUPPORT: Final = "no useful support for either proposition"
BANDS: Final = (
    (2.0, NO_SUPPORT), (10.0, "weak support"), (100.0, "moderate support"), (1e3, "moderately strong support"),
    (1e4, "strong support"), (1e6, "very strong support"),
)  # fmt: skip
STRONGEST: Final = "extremely strong support"
NO_RATE: Final = "No error rate is known for models of this kind, so no likelihood ratio is given."
KNOWS: Final = "the suspect still carries information from the forget set"
NEVER: Final = "the suspect is like a model that was never trained on it"
EDGE: Final = 1e-9
"""Relative slack: a ratio that reaches the edge of a band, or the ceiling, but for rounding is there."""


def nearest_one(ci95: Interval) -> float:
    """The end of the interval nearest 1; 1 where the interval holds it."""
    return ci95.lo if ci95.lo > 1 else min(ci95.hi, 1.0)


def band(ci95: Interval) -> str:
    """The words for the support that a ratio gives to the proposition on its side of 1."""
    end = nearest_one(ci95)
    size = max(end, 1 / end)
    return next((words for below, words in BANDS if size < below * (1 - EDGE)), STRONGEST)


def supported(ratio: LikelihoodRatio) -> str | None:
    """The proposition that a ratio supports; None where it supports neither."""
    if ratio.words == NO_SUPPORT:
        return None
    return KNOWS if nearest_one(ratio.ci95) > 1 else NEVER


# ---- numbers ----------------------------------------------------------------------------------------------------
def rounded(value: float, towards_one: bool) -> float:
    """Two significant figures; ``towards_one`` never claims more than the value."""
    unit = 10.0 ** (math.floor(math.log10(value)) - 1)
    if not towards_one:
        return round(value / unit) * unit
    up = value < 1
    return (math.ceil(value / unit * (1 - EDGE)) if up else math.floor(value / unit * (1 + EDGE))) * unit


def ratio_number(value: float, floor: float, ceiling: float) -> str:
    """Two significant figures; at a limit of the design a bound and never an extrapolated value."""
    if value >= ceiling * (1 - EDGE):
        return f"≥ {number(rounded(ceiling, True))}"
    if value <= floor * (1 + EDGE):
        return f"≤ {number(rounded(floor, True))}"
    return number(min(max(rounded(value, False), floor), ceiling))


def short(ratio: LikelihoodRatio | Missing) -> str:
    """A ratio in a cell of a table: value, interval, words."""
    if isinstance(ratio, Missing):
        return "–"
    low, mid, high = (ratio_number(x, ratio.floor, ratio.ceiling) for x in (ratio.ci95.lo, ratio.value, ratio.ci95.hi))
    return f"{mid} ({_ends(low, mid, high)}), {ratio.words}"


def _ends(low: str, mid: str, high: str) -> str:
    """An interval in words; an end that is the bound itself is not said again."""
    return f"from {low}" if mid == high != low else f"up to {high}" if mid == low != high else f"{low} to {high}"


def rate(errors: Rate) -> str:
    """``1 of 60 worlds (at most 7.7 %)``: a count, and its exact one-sided 95 % bound."""
    return f"{errors.k} of {errors.n} worlds (with 95 % confidence at most {number(100 * errors.upper95)} %)"


# ---- sentences --------------------------------------------------------------------------------------------------
class Proposition(NamedTuple):
    """A proposition as one says it, and as one says it again in the same sentence ("H1 holds", "H2 does")."""

    stated: str
    repeated: str


def ratio_sentence(ratio: LikelihoodRatio, of: str = "The findings are") -> str:
    """A likelihood ratio in words: ratio, interval, ceiling, verbal scale; below 1 its inverse, the other way round."""
    side = supported(ratio)
    words = ratio.words if side is None else f"{ratio.words} for the proposition that {side}"
    times = weighed(ratio, Proposition(KNOWS, KNOWS), Proposition(NEVER, NEVER))
    return f"{of} {times}. On the verbal scale this is {words}."


def weighed(ratio: LikelihoodRatio, knows: Proposition, never: Proposition) -> str:
    """How many times more probable under the likelier of two propositions, with interval and ceiling."""
    likelier, other = knows, never
    lo, value, hi, floor, ceiling = ratio.ci95.lo, ratio.value, ratio.ci95.hi, ratio.floor, ratio.ceiling
    if value < 1:
        likelier, other = never, knows
        lo, value, hi, floor, ceiling = 1 / hi, 1 / value, 1 / lo, 1 / ceiling, 1 / floor
    low, middle, high = (ratio_number(x, floor, ceiling) for x in (lo, value, hi))
    times = f"at least {middle[2:]}" if middle.startswith("≥") else f"about {middle}"
    about = "approximate " if approximate("percentile", ratio.false_alarms.n) else ""
    return (
        f"{times} times more probable if {likelier.stated} than if {other.repeated} ({about}95 % interval "
        f"{_ends(low, middle, high)}; this design cannot show more than {number(rounded(ceiling, True))})"
    )


def rates_sentence(ratio: LikelihoodRatio) -> str:
    """Both error rates of the rule that gave an outcome, as counts, and what it is that was missed."""
    return (
        f"On models of known truth, in worlds and mechanisms held out of its fitting, this rule raised a false alarm "
        f"in {rate(ratio.false_alarms)} and missed a fake, a model that knows everything and was made to keep quiet, "
        f"in {rate(ratio.misses)}."
    )


def power_sentence(limit: DetectionLimit | Missing, over: Replicate = PERSON) -> str:
    """What a silence is worth: the planted trace that the tests would have found."""
    if isinstance(limit, Missing):
        return f"No trace found; which planted trace would have been found is not known: {visible(limit.missing)}."
    return f"No trace found by tests that would have found {_planted(limit, over)}: it was found in {_seen(limit)}."


def limit_sentence(limit: DetectionLimit | Missing, over: Replicate = PERSON) -> str:
    """What a silence would be worth, where none is claimed."""
    if isinstance(limit, Missing):
        return f"Which planted trace this rule finds is not known: {visible(limit.missing)}."
    return f"This rule finds {_planted(limit, over)}: it was found in {_seen(limit)}."


def _planted(limit: DetectionLimit, over: Replicate) -> str:
    share = f"{100 * limit.kept / limit.audited:.3g}"  # 12.5 is not "at least 12"
    people = f"{limit.kept} of {limit.audited} audited {over.plural} kept"
    return f"a planted trace of ≥ {share} % ({people}) with probability {number(limit.power)}"


def _seen(limit: DetectionLimit) -> str:
    return f"{limit.k} of {limit.n} worlds"
