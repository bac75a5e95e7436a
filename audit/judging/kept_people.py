"""Who is known: the people of the sharpest measurement that shows a trace, and their number in words."""

from collections.abc import Sequence
from typing import Final

from audit.schema import EFFECT_KINDS, Evidence, Measurement, Missing, PeopleKept, Power

KINDS: Final = (*EFFECT_KINDS, "recovery")
IN_FULL: Final = 0.9
"""From this level on people count as known in full."""
NO_TRACE: Final = Missing(missing="no test shows a trace on the rows that it was trained on, so nobody is kept")


def people_kept(evidence: Sequence[Evidence]) -> PeopleKept | Missing:
    """The people of a verdict: those of the sharpest measurement that shows a trace on trained rows.

    Outputs, states (causal, decoding) and what an attack brings back count alike. Sharpest is the test that finds the
    fewest people known in full, then the smallest share of everybody, then the one with the most certain share.
    """
    candidates: list[tuple[tuple[float, float, float], PeopleKept]] = []
    for e in evidence:
        m = e.measurement
        if m.mode != "controlled" or m.form != "trained" or m.kind not in KINDS or isinstance(m.people, Missing):
            continue
        if e.outcome == "trace found" and e.direction == "above":
            candidates.append((_bluntness(m), m.people))
    return min(candidates, key=lambda pair: pair[0])[1] if candidates else NO_TRACE


def _bluntness(measurement: Measurement) -> tuple[float, float, float]:
    """Fewest people found, least share found, width of the interval of kept people: less is sharper."""
    power, people = measurement.power, measurement.people
    fewest, share, width = float("inf"), float("inf"), 1.0
    if isinstance(power, Power):
        fewest = float("inf") if isinstance(power.people, Missing) else float(power.people)
        share = float("inf") if isinstance(power.share, Missing) else power.share
    if isinstance(people, PeopleKept) and not isinstance(people.ci95, Missing):
        width = people.ci95.hi - people.ci95.lo
    return fewest, share, width


def told(people: PeopleKept) -> str:
    """``16 of 32 people``, with its interval where that is wider; ``about 10 % of it in 28 to 32 of 32 people`` where
    part of it, known of all, is likelier than all of it, known of some."""
    count = round(people.kept * people.of)
    low, high = count, count
    if not isinstance(people.ci95, Missing):
        low, high = round(people.ci95.lo * people.of), round(people.ci95.hi * people.of)
    if count and people.log10_ratio < 0 and people.level < IN_FULL:
        between = f"{low}" if low == high else f"{low} to {high}"
        return f"about {100 * people.level:.0f} % of it in {between} of {people.of} people"
    between = "" if low == high == count else f" (95 % {low} to {high})"
    return f"{count} of {people.of} people{between}"
