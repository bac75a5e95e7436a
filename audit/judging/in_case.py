"""In-case judging of one measurement: what it shows by this case's own null, floor and positive control."""

from collections.abc import Mapping
from typing import Final, NamedTuple

from audit.schema import (
    ALPHA,
    FLOOR_FACTOR,
    GATE_RATIO,
    HINT_ALPHA,
    INTACT_EFFECT,
    NO_FLOOR,
    PARTIAL_EFFECT,
    SILENT_BOUND,
    TRACE_EFFECT,
    Direction,
    Evidence,
    Interval,
    Measurement,
    Missing,
    Outcome,
    Status,
)

OUTCOMES: Final[dict[Status, Outcome]] = {"trace": "trace found", "below": "trace found", "silent": "no trace found"}
"""What follows of a status; of every other one nothing does: the outcome is inconclusive."""


class _Bar(NamedTuple):
    """What an effect has to exceed in size to be more than the spread between models that never knew."""

    height: float
    why: str


def _bar(measurement: Measurement, floors: Mapping[str, float]) -> _Bar:
    if isinstance(measurement.floor, float):
        return _Bar(max(measurement.floor, 0.0), f"the floor of this case, {measurement.floor:.3f}")
    stored = floors.get(f"{measurement.probe}.{measurement.name}")
    if stored is not None:
        return _Bar(FLOOR_FACTOR * stored, f"three times the zoo's largest floor ({stored:.3f}); {NO_FLOOR}")
    return _Bar(FLOOR_FACTOR * TRACE_EFFECT, f"three times the trace threshold ({TRACE_EFFECT}); {NO_FLOOR}")


def _evidence(measurement: Measurement, status: Status, because: str) -> Evidence:
    direction: Direction = "above" if status == "trace" else "below" if status == "below" else "none"
    outcome = OUTCOMES.get(status, "inconclusive")
    return Evidence(measurement=measurement, outcome=outcome, status=status, direction=direction, because=because)


def _reading(measurement: Measurement) -> str:
    ci = measurement.ci95
    interval = f" (95 % {ci.lo:.3f} to {ci.hi:.3f})" if isinstance(ci, Interval) else ""
    p = f", p = {measurement.p:.2g}" if isinstance(measurement.p, float) else ""
    value = measurement.value.missing if isinstance(measurement.value, Missing) else f"{measurement.value:.3f}"
    return f"effect {value}{interval}{p}"


def _judge_gate(measurement: Measurement) -> Evidence:
    if isinstance(measurement.value, Missing):
        return _evidence(measurement, "gate_unmeasured", f"gate not measured: {measurement.value.missing}")
    passed = measurement.value >= GATE_RATIO
    word = "passed" if passed else "failed"
    because = f"gate {word}: the suspect keeps {measurement.value:.2f} of base (needs {GATE_RATIO})"
    return _evidence(measurement, "gate_passed" if passed else "gate_failed", because)


def too_few(measurement: Measurement) -> str:
    """Why no p of this measurement can decide anything, because of how few groups there are; empty where one can."""
    null = measurement.null
    if isinstance(null, Missing) or 1 / null.n < ALPHA:
        return ""
    return (
        f"too few groups: {measurement.units} {measurement.unit_of_replication} units allow {null.n} randomisations, "
        f"so that p cannot be below {1 / null.n:.2g}, and less than {ALPHA} is asked"
    )


def blindness(measurement: Measurement) -> str | None:
    """Why this measurement can say nothing here, or None."""
    if isinstance(measurement.value, Missing):
        return measurement.value.missing
    control = measurement.positive_control
    if isinstance(control, Missing):
        return f"no positive control: {control.missing}"
    if not control.found:
        if few := too_few(measurement):
            return f"blind here: {few}"
        why = f"base in the suspect's place is not found by the same test (reads {control.value:.2f}"
        return f"blind here: {why}, {measurement.units} {measurement.unit_of_replication} units)"
    return None


def is_below(measurement: Measurement) -> bool:
    """Is the suspect below the never-trained level: over-suppressed?

    A profile is below if its overall effect is, by more than models that never knew differ among themselves.
    """
    overall, p_below = measurement.overall, measurement.p_below
    if isinstance(measurement.value, Missing) or isinstance(p_below, Missing) or p_below >= ALPHA:
        return False
    if isinstance(overall, Missing):
        return measurement.value <= -TRACE_EFFECT
    spread = 0.0 if isinstance(overall.floor, Missing) else overall.floor
    clear = isinstance(overall.ci95, Interval) and overall.ci95.hi < 0
    return clear and -overall.value >= max(TRACE_EFFECT, spread)


def _p_under(measurement: Measurement, alpha: float) -> bool:
    return isinstance(measurement.p, float) and measurement.p < alpha


def _silent(measurement: Measurement) -> bool:
    bound = measurement.bound
    return isinstance(bound, Interval) and bound.hi < SILENT_BOUND


def _judge_effect(measurement: Measurement, floors: Mapping[str, float]) -> Evidence:
    blind = blindness(measurement)
    if blind is not None:
        return _evidence(measurement, "blind", blind)
    value, reading = measurement.value, _reading(measurement)
    assert isinstance(value, float), "a missing value is blind"
    if is_below(measurement):
        depth = value if isinstance(measurement.overall, Missing) else measurement.overall.value
        because = f"{reading}; overall {-depth:.3f} below the never-trained level, over-suppressed"
        return _evidence(measurement, "below", because)
    if measurement.kind == "output":
        if value >= PARTIAL_EFFECT:
            level = "as good as base" if value >= INTACT_EFFECT else "in part"
            return _evidence(measurement, "trace", f"{reading}: the outputs still show it, {level}")
    elif value >= TRACE_EFFECT and _p_under(measurement, ALPHA):
        bar = _bar(measurement, floors)
        if value > bar.height:
            return _evidence(measurement, "trace", f"{reading}: above {bar.why}")
        return _evidence(measurement, "within_floor", f"{reading}: not above {bar.why}")
    if value >= TRACE_EFFECT and value > _bar(measurement, floors).height and _p_under(measurement, HINT_ALPHA):
        return _evidence(measurement, "hint", f"{reading}: a hint (p < {HINT_ALPHA}), no finding")
    if _silent(measurement):
        return _evidence(measurement, "silent", f"{reading}: an overall effect of {SILENT_BOUND:.2f} would show")
    bound = f"the upper 95 % bound of the overall effect is not below {SILENT_BOUND:.2f}"
    return _evidence(measurement, "undecided", f"{reading}: no trace shown, but {bound}")


def judge(measurement: Measurement, floors: Mapping[str, float] | None = None) -> Evidence:
    """What does this measurement show, by this case's own null, floor and positive control?

    ``floors`` (:func:`audit.calibration.zoo_floors`) are used only where the case measured none. Gates, context numbers
    and paper-mode numbers are listed and never traces.
    """
    if measurement.kind == "gate":
        return _judge_gate(measurement)
    if measurement.kind in ("context", "recovery") or measurement.mode == "paper":
        return _evidence(measurement, "listed", "listed for comparison; never enters the verdict")
    return _judge_effect(measurement, floors or {})
