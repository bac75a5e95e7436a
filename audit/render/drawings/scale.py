"""The scale that every number sits on: 0 is the level of a model that never knew, 1 is base."""

import math
from typing import NamedTuple

from audit.render.wording.quantities import judged_reading, overall_reading
from audit.schema import Evidence, Measurement, Missing, Null, Overall


class Position(NamedTuple):
    """A measurement on the scale 0 = never trained, 1 = base, with its interval, null band and floor."""

    value: float
    lo: float | None
    hi: float | None
    null_lo: float | None
    null_hi: float | None
    floor: float | None


def on_effect_scale(m: Measurement) -> bool:
    """Is the value an effect already, 0 for never trained and 1 for base?"""
    return m.scale == "effect"


def position(m: Measurement) -> Position | Missing:
    """Where the measurement lies between never trained (0) and base (1).

    An effect is there already; any other statistic is placed by its own null median and positive control.
    """
    if isinstance(m.value, Missing):
        return m.value
    zero, span = 0.0, 1.0
    if not on_effect_scale(m):
        if isinstance(m.null, Missing) or isinstance(m.positive_control, Missing):
            return Missing(missing=f"measured in {m.unit} without both ends of the scale")
        zero = median(m.null)
        span = m.positive_control.value - zero
        if abs(span) < 1e-9:
            return Missing(missing="base reads the same as never trained")
    place = [(x - zero) / span if x is not None else None for x in _marks(m)]
    lo, hi = sorted(place[:2], key=_last) if span < 0 else place[:2]
    null_lo, null_hi = sorted(place[2:4], key=_last) if span < 0 else place[2:4]
    return Position((m.value - zero) / span, lo, hi, null_lo, null_hi, place[4])


def placed(m: Measurement) -> Position | Missing:
    """:func:`position`; a gate, which is no effect, at its share of base: 0 is nothing, 1 is base."""
    if m.kind != "gate" or isinstance(m.value, Missing):
        return position(m)
    lo, hi = _marks(m)[:2]
    return Position(m.value, lo, hi, None, None, None)


def judged_place(e: Evidence) -> Position | Missing:
    """Where the number lies that a finding was judged by; a null band is one of the largest over layers."""
    place, m = placed(e.measurement), e.measurement
    reading = judged_reading(e)
    if isinstance(place, Missing) or overall_reading(m) != reading or isinstance(reading.value, Missing):
        return place
    lo, hi = (None, None) if isinstance(reading.ci95, Missing) else (reading.ci95.lo, reading.ci95.hi)
    floor = m.overall.floor if isinstance(m.overall, Overall) else Missing(missing="one number")
    return Position(reading.value, lo, hi, None, None, None if isinstance(floor, Missing) else floor)


def _marks(m: Measurement) -> list[float | None]:
    lo, hi = (None, None) if isinstance(m.ci95, Missing) else (m.ci95.lo, m.ci95.hi)
    q = None if isinstance(m.null, Missing) else m.null.quantiles
    ends = (None, None) if q is None else (quantile(q, 0.025), quantile(q, 0.975))
    return [lo, hi, *ends, None if isinstance(m.floor, Missing) else m.floor]


def _last(x: float | None) -> float:
    return math.inf if x is None else x


def quantile(quantiles: tuple[float, ...], share: float) -> float:
    """A quantile read off equally spaced ones, linearly between them."""
    place = share * (len(quantiles) - 1)
    low = math.floor(place)
    high = min(low + 1, len(quantiles) - 1)
    return quantiles[low] + (place - low) * (quantiles[high] - quantiles[low])


def median(null: Null) -> float:
    """The middle of a null."""
    return quantile(null.quantiles, 0.5)
