"""Who is known: the people of a measurement that shows a trace, and their number in words.

A few people whom the mean does not see are believed where two kinds of evidence, independent of one another, name the
same ones: what the model says, what its states hold, what a lesson brings back.
"""

from collections.abc import Sequence
from typing import Final

from audit.schema import EFFECT_KINDS, Evidence, Measurement, Missing, PeopleKept, Power
from audit.wording import PERSON, Replicate

KINDS: Final = (*EFFECT_KINDS, "recovery")
WITNESSES: Final = 2
"""So many kinds of evidence have to name a person who is believed without a trace in the mean."""
_STATES: Final = {"causal": "states", "decoding": "states"}


def _usable(measurement: Measurement) -> PeopleKept | None:
    """The people of a controlled measurement of trained rows that may enter a verdict."""
    m = measurement
    fit = m.mode == "controlled" and m.form == "trained" and m.kind in KINDS
    return m.people if fit and isinstance(m.people, PeopleKept) else None


def witnessed(evidence: Sequence[Evidence]) -> PeopleKept | None:
    """The people whom at least two kinds of evidence name, each at its false discovery rate; None without any.

    As the measurement tells them that names most of these; blind evidence names nobody.
    """
    by_kind: dict[str, set[str]] = {}
    telling: list[PeopleKept] = []
    for e in evidence:
        people = None if e.status in ("blind", "listed") else _usable(e.measurement)
        if people is not None and people.named:
            kind = e.measurement.witness or e.measurement.kind
            by_kind.setdefault(_STATES.get(kind, kind), set()).update(people.named)
            telling.append(people)
    candidates = {name for names in by_kind.values() for name in names}
    sure = {name for name in candidates if sum(name in names for names in by_kind.values()) >= WITNESSES}
    if not sure:
        return None
    best = max(telling, key=lambda people: (len(sure & set(people.named)), people.log10_ratio))
    ordered = [name for name in best.named if name in sure] + sorted(sure - set(best.named))
    return best.model_copy(update={"named": tuple(ordered)})


def people_kept(evidence: Sequence[Evidence]) -> PeopleKept | Missing:
    """The people of a verdict: those of the measurement with a trace on trained rows by which most is known for sure.

    Most by the lower end of their number times how much of base is read of them; of equal ones the sharpest test, which
    finds the fewest people known in full, then the smallest share of everybody. Without such a measurement those whom
    two kinds of evidence name (:func:`witnessed`). Outputs, states (causal, decoding) and what an attack brings back
    count alike.
    """
    candidates: list[tuple[tuple[float, float, float, float], PeopleKept]] = []
    for e in evidence:
        people = _usable(e.measurement)
        if people is not None and e.outcome == "trace found" and e.direction == "above":
            least = people.kept if isinstance(people.ci95, Missing) else people.ci95.lo
            candidates.append(((-least * people.level, *_bluntness(e.measurement)), people))
    if candidates:
        return min(candidates, key=lambda pair: pair[0])[1]
    return witnessed(evidence) or Missing(missing="no test shows a trace of the forget set as it was taught")


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


def count_words(people: PeopleKept, over: Replicate = PERSON) -> str:
    """``16 of 32 people``, with its interval where that is wider: ``16 of 32 people (95 % interval 10 to 22)``."""
    count = round(people.kept * people.of)
    ends = (count, count) if isinstance(people.ci95, Missing) else [round(end * people.of) for end in people.ci95.ends]
    wider = f" (95 % interval {ends[0]} to {ends[1]})" if set(ends) != {count} else ""
    return f"{count} of {people.of} {over.plural}{wider}"
