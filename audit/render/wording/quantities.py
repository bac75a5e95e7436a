"""The numbers of a finding by their names: the same name for the same number in every view, and which one is judged.

A test over several layers has two numbers. Its *largest over layers* finds traces, since a mean may hide what one layer
holds; its *overall effect* bounds them and says that a suspect lies below, since the largest of several noisy effects
is never small. A calibrated threshold holds for the overall effect. What is judged follows from the outcome.
"""

from typing import Final, NamedTuple

from audit.schema import (
    ALPHA,
    BLUNT,
    GATE_RATIO,
    PARTIAL_EFFECT,
    SILENT_BOUND,
    TRACE_EFFECT,
    Evidence,
    Interval,
    Measurement,
    Missing,
    Number,
    Overall,
    Power,
)
from audit.wording import CELL, NAME, bounds, interval, least_p, number, replicate_of, unit, visible

LARGEST: Final = "largest over layers"
OVERALL: Final = "overall effect"
ONE: Final = "effect"
SHARE: Final = "share of base"
DRAWN_NULL: Final = "null band"


class Reading(NamedTuple):
    """A number of a measurement under the name that it has everywhere."""

    name: str
    value: Number
    ci95: Interval | Missing

    @property
    def shown(self) -> str:
        """``0.51 (0.37–0.62)``."""
        return f"{number(self.value)} ({interval(self.ci95)})"


def own_reading(m: Measurement) -> Reading:
    """The value of a measurement: the largest over layers (or forms, or whatever its items have several numbers by)
    where it has layers, else its one number."""
    if m.kind == "gate":
        return Reading(SHARE, m.value, m.ci95)
    if m.scale != "effect":
        return Reading(unit(m.unit), m.value, m.ci95)
    return Reading(_largest(m) if layered(m) else ONE, m.value, m.ci95)


def _largest(m: Measurement) -> str:
    """Over what the value is the largest: over layers where the items do not say otherwise."""
    return LARGEST if isinstance(m.items, Missing) or m.items.axis in ("", "layer") else f"largest over {m.items.axis}s"


def overall_reading(m: Measurement) -> Reading | None:
    """The effect over all layers together; None where there is one number, whose name is effect."""
    if not layered(m) or not isinstance(m.overall, Overall):
        return None
    return Reading(OVERALL, m.overall.value, m.overall.ci95)


def layered(m: Measurement) -> bool:
    """Does the value stand for a family of layers (or sites, or precisions)? One layer has one number."""
    return isinstance(m.overall, Overall) and (m.overall.value != m.value or m.overall.ci95 != m.ci95 or bool(m.curves))


def judged_reading(e: Evidence) -> Reading:
    """The number by which a finding was judged: an in-case trace, a hint or a reading within its floor by the largest
    over layers; silence, doubt, a level below and whatever a calibration judged by the overall effect."""
    total = overall_reading(e.measurement)
    by_largest = e.basis == "in-case" and e.status in ("trace", "hint", "within_floor", "listed", "blind")
    return own_reading(e.measurement) if total is None or by_largest else total


# ---- what decides -----------------------------------------------------------------------------------------------
class Line(NamedTuple):
    """What a number was compared with: where on the effect scale (None: nowhere), and in words."""

    at: float | None
    words: str


NOTHING_DECIDES: Final = Line(None, "nothing: it is listed only")


def deciding(e: Evidence) -> Line:
    """The line that decides a finding: of the nulls, floors and thresholds of a test the one that it was held against.

    It lies on the effect scale; a number on another scale has it in words only.
    """
    line = _line(e)
    return line if e.measurement.scale == "effect" or e.measurement.kind == "gate" else line._replace(at=None)


def _line(e: Evidence) -> Line:
    m = e.measurement
    if m.kind == "gate":
        return Line(GATE_RATIO, f"gate, at least {GATE_RATIO} of base")
    if e.status in ("listed", "blind") or isinstance(m.value, Missing):
        return NOTHING_DECIDES if e.status == "listed" else Line(None, "nothing: it is blind here")
    if e.status == "below":
        spread = m.overall.floor if isinstance(m.overall, Overall) else Missing(missing="one number")
        depth = max(TRACE_EFFECT, 0.0 if isinstance(spread, Missing) else spread)
        return Line(-depth, f"{number(-depth)}, as far as models that never knew lie apart; p below < {ALPHA}")
    if e.basis == "calibrated":
        if isinstance(e.threshold, Missing):
            return Line(None, "calibrated threshold (not recorded)")
        return Line(e.threshold, f"calibrated threshold {number(e.threshold)}")
    if e.status == "blunt":
        return Line(None, "nothing: too blunt here for its silence to count")
    if e.status in ("silent", "undecided"):
        share = m.power.share if isinstance(m.power, Power) else 0.0
        least_bound = max(SILENT_BOUND, share) if isinstance(share, float) and share <= BLUNT else SILENT_BOUND
        return Line(least_bound, f"upper 95 % bound against {number(least_bound)}")
    if m.kind == "output":
        return Line(PARTIAL_EFFECT, f"at least {number(PARTIAL_EFFECT)}")
    floor = TRACE_EFFECT if isinstance(m.floor, Missing) else max(m.floor, TRACE_EFFECT)
    name = "floor" if floor > TRACE_EFFECT else "least trace"
    return Line(floor, f"{name} {number(floor)}, and p < {ALPHA}")


# ---- blind ------------------------------------------------------------------------------------------------------
def too_few(m: Measurement) -> bool:
    """Can no p of this test be small enough to decide, with so few units?"""
    return not isinstance(m.null, Missing) and least(m) >= ALPHA


def blindness(m: Measurement) -> str:
    """Why a blind test says nothing, in place of its number: ``blind: too few people (4)``."""
    if isinstance(m.value, Missing):
        return f"blind: {visible(m.value.missing, CELL)}"
    if too_few(m):
        return f"blind: too few {replicate_of(m).plural} ({m.units})"
    if isinstance(m.positive_control, Missing):
        return "blind: no positive control"
    return "blind: base is not found"


def is_blind(e: Evidence) -> bool:
    """Does this finding say nothing, since its test does not find base here?"""
    m = e.measurement
    control = m.positive_control
    unseen = not isinstance(control, Missing) and not control.found
    return m.kind != "gate" and (e.status == "blind" or (unseen and e.outcome != "trace found"))


# ---- what a silence is worth ------------------------------------------------------------------------------------
def power_words(m: Measurement) -> str:
    """The detection limit of a test in this case: the smallest planted trace that it finds, with which probability."""
    power = m.power
    if isinstance(power, Missing):
        return f"not known ({visible(power.missing, CELL)})"
    over, chance = replicate_of(m), f"found with probability {number(power.power)}"
    parts = (
        [] if isinstance(power.share, Missing) else [f"{number(100 * power.share)} % of base's excess in {over.every}"]
    )
    parts += [] if isinstance(power.people, Missing) else [f"{power.people} of {power.of} {over.plural} known in full"]
    return f"{', or '.join(parts)}, {chance}" if parts else f"even all of base's excess is not {chance}"


def power_cell(m: Measurement) -> str:
    """The same in a cell of a table: ``12 %, or 2 of 16 people``."""
    power = m.power
    if not isinstance(power, Power):
        return "not known"
    parts = [] if isinstance(power.share, Missing) else [f"{number(100 * power.share)} %"]
    parts += [] if isinstance(power.people, Missing) else [f"{power.people} of {power.of} {replicate_of(m).plural}"]
    return " or ".join(parts) or "none: too blunt"


def silence_worth(m: Measurement) -> str:
    """What a silence of this test is worth: its upper bound, whether base was found, and its detection limit."""
    if isinstance(m.positive_control, Missing):
        return f"Detection limit unknown: no positive control ({visible(m.positive_control.missing, CELL)})."
    control = number(m.positive_control.value)
    if not m.positive_control.found:
        if too_few(m):
            return (
                f"Blind here: {blindness(m).removeprefix('blind: ')}. The smallest possible p is {number(least(m))}, "
                "so this test cannot decide."
            )
        return f"Blind here: base, the positive control, reads {control} and was not found, so silence means nothing."
    bound = m.bound
    limit = f"Detection limit: {power_words(m)}."
    if isinstance(bound, Missing):
        return f"Upper bound unknown: no interval. Base, the positive control, reads {control} and was found. {limit}"
    name = own_reading(m).name if overall_reading(m) is None else OVERALL
    return (
        f"Upper bound of the {visible(name, NAME)}: {number(bound.hi)} (95 %); base, the positive control, reads "
        f"{control} and was found. {limit}"
    )


def least(m: Measurement) -> float:
    """The smallest p that the test allows: what is recorded, else one in all of the exact randomisations."""
    recorded = not isinstance(m.null, Missing) and isinstance(m.null.least_p, float)
    return least_p(m) if recorded or isinstance(m.null, Missing) else 1 / m.null.n


def judged_shown(e: Evidence) -> tuple[str, str]:
    """The judged number and its interval as two cells; a blind test has a reason and no number."""
    m = e.measurement
    if is_blind(e):
        return blindness(m), ""
    reading = judged_reading(e)
    missing = isinstance(reading.value, Missing)
    return "missing" if missing else number(reading.value), bounds(m) if missing else interval(reading.ci95)
