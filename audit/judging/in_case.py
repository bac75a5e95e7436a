"""In-case judging of one measurement: what it shows by this case's own null, floor and positive control."""

from collections.abc import Mapping
from typing import Final, NamedTuple

from audit.judging.replicates import unit_of
from audit.schema import (
    ALPHA,
    BLUNT,
    EFFECT_KINDS,
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
    Power,
    Status,
)

OUTCOMES: Final[dict[Status, Outcome]] = {"trace": "trace found", "below": "trace found", "silent": "no trace found"}
"""What follows of a status; of every other one nothing does: the outcome is inconclusive."""


class _Bar(NamedTuple):
    """What an effect has to exceed in size to be more than the spread between models that never knew."""

    height: float
    why: str
    own: bool = False


def _bar(measurement: Measurement, floors: Mapping[str, float]) -> _Bar:
    if isinstance(measurement.floor, float):
        return _Bar(max(measurement.floor, 0.0), f"the floor of this case, {measurement.floor:.3f}", own=True)
    stored = floors.get(f"{measurement.probe}.{measurement.name}")
    if stored is not None:
        halfway = (1 + stored) / 2
        if halfway < FLOOR_FACTOR * stored:  # else not even all of base could be found
            return _Bar(halfway, f"half way from the zoo's largest floor ({stored:.3f}) to base; {NO_FLOOR}")
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
    null, units = measurement.null, f"{measurement.units} {measurement.unit_of_replication} units"
    if isinstance(null, Missing):
        return ""
    randomised = isinstance(null.least_p, Missing) or null.least_p >= 1 / (null.n + 1)
    least = 1 / null.n if isinstance(null.least_p, Missing) else null.least_p
    if least < ALPHA:
        return ""
    allowed = f"{units} allow {null.n} randomisations" if randomised else f"{units} are judged at many layers"
    return f"too few groups: {allowed}, so that p cannot be below {least:.2g}, and less than {ALPHA} is asked"


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


def is_below(measurement: Measurement, floors: Mapping[str, float]) -> bool:
    """Is the suspect below the never-trained level: over-suppressed?

    By its overall effect where there is a family of layers, and by more than models that never knew differ among
    themselves: never because it lies below the one of them that is the null.
    """
    bound = measurement.bound
    beyond = isinstance(bound, Interval) and bound.hi < -_spread(measurement, floors).height
    return beyond and _depth(measurement) >= TRACE_EFFECT


def _depth(measurement: Measurement) -> float:
    """How far the overall effect lies below the null, where its test says that it does; else 0."""
    if measurement.kind not in EFFECT_KINDS or isinstance(measurement.value, Missing):
        return 0.0
    if isinstance(measurement.p_below, Missing) or measurement.p_below >= ALPHA:
        return 0.0
    overall = measurement.overall
    return -(measurement.value if isinstance(overall, Missing) else overall.value)


def _lower_than_one(measurement: Measurement, floors: Mapping[str, float]) -> float:
    """How far the suspect lies below the only model that never knew, where that is more than the largest spread between
    such models in the zoo, and the case has no spread of its own; else 0."""
    overall, bound, depth = measurement.overall, measurement.bound, _depth(measurement)
    own = measurement.floor if isinstance(overall, Missing) else overall.floor
    seen = floors.get(f"{measurement.probe}.{measurement.name}", TRACE_EFFECT)
    if isinstance(own, float) or depth < TRACE_EFFECT or not isinstance(bound, Interval) or bound.hi >= -seen:
        return 0.0
    return depth


def _spread(measurement: Measurement, floors: Mapping[str, float]) -> _Bar:
    """How far below the null models that never knew lie: as far as references lie apart, here or ever in the zoo.

    Two references give one difference, which may be small by chance; so the zoo's largest counts where it is larger.
    """
    overall = measurement.overall
    own = measurement.floor if isinstance(overall, Missing) else overall.floor
    if isinstance(own, Missing):
        return _bar(measurement.model_copy(update={"floor": own}), floors)
    stored = floors.get(f"{measurement.probe}.{measurement.name}", 0.0)
    if stored > abs(own):
        return _Bar(stored, f"the largest spread between references of the zoo, {stored:.3f}")
    return _Bar(abs(own), f"the spread between references of this case, {abs(own):.3f}", own=True)


def is_blunt(measurement: Measurement) -> bool:
    """Does the test find large traces alone, by its power here? Never where the power is not known."""
    power = measurement.power
    return isinstance(power, Power) and not is_sharp(measurement)


def is_sharp(measurement: Measurement) -> bool:
    """Does the test find a trace of :data:`~audit.schema.BLUNT` of base or less, by its power here?"""
    power = measurement.power
    return isinstance(power, Power) and isinstance(power.share, float) and power.share <= BLUNT


def silent_below(measurement: Measurement) -> float:
    """What the upper bound of a silent test has to stay below: the larger of the bound and what the test finds."""
    power = measurement.power
    share = power.share if isinstance(power, Power) and isinstance(power.share, float) else 0.0
    return max(SILENT_BOUND, share) if is_sharp(measurement) else SILENT_BOUND


def is_bounded(measurement: Measurement) -> bool:
    """Is the overall effect bounded tightly enough for silence?"""
    bound = measurement.bound
    return isinstance(bound, Interval) and bound.hi < silent_below(measurement)


def p_under(measurement: Measurement, alpha: float) -> bool:
    """Has the measurement a p below this level?"""
    return isinstance(measurement.p, float) and measurement.p < alpha


def _contradicted(measurement: Measurement, least: float) -> bool:
    """Does the interval of an effect reach down to this level, so that no finding can rest on the estimate?"""
    return isinstance(measurement.ci95, Interval) and measurement.ci95.lo <= least


def _judge_output(measurement: Measurement, value: float, floors: Mapping[str, float]) -> Evidence | None:
    """A trace in the outputs: at least half of base beyond doubt, or a part of it by level, interval and test."""
    reading = _reading(measurement)
    if isinstance(measurement.ci95, Interval) and measurement.ci95.lo >= INTACT_EFFECT:
        return _evidence(measurement, "trace", f"{reading}: the outputs still show at least {INTACT_EFFECT:g} of base")
    bar = _bar(measurement, floors)
    if value < PARTIAL_EFFECT or value <= bar.height or not p_under(measurement, ALPHA):
        return None
    return None if _contradicted(measurement, max(0.0, bar.height if bar.own else 0.0)) else _evidence(
        measurement, "trace", f"{reading}: the outputs still show it, in part"
    )  # fmt: skip


def _judge_internal(measurement: Measurement, value: float, floors: Mapping[str, float]) -> Evidence | None:
    """A trace in states or under an attack: by level, test and interval, and above the spread of the never-trained."""
    reading, bar = _reading(measurement), _bar(measurement, floors)
    if value < TRACE_EFFECT or not p_under(measurement, ALPHA) or _contradicted(measurement, 0.0):
        return None
    if value > bar.height:
        return _evidence(measurement, "trace", f"{reading}: above {bar.why}")
    if is_sharp(measurement) and is_bounded(measurement):
        return None
    return None if is_blunt(measurement) else _evidence(measurement, "within_floor", f"{reading}: not above {bar.why}")


def _judge_quiet(measurement: Measurement, value: float, floors: Mapping[str, float]) -> Evidence:
    """What is said where there is no trace: blunt, a hint, silent, or none of them."""
    reading, bar = _reading(measurement), _bar(measurement, floors)
    if is_blunt(measurement):
        return _evidence(measurement, "blunt", f"{reading}: no trace, but {bluntness(measurement)}")
    if value >= TRACE_EFFECT and value > bar.height and p_under(measurement, HINT_ALPHA):
        return _evidence(measurement, "hint", f"{reading}: a hint (p < {HINT_ALPHA}), no finding")
    return quiet(measurement, floors)


def quiet(measurement: Measurement, floors: Mapping[str, float] | None = None) -> Evidence:
    """Silence where the interval bounds what may be left, else undecided: of a test that shows no trace and no hint.

    A suspect that lies below the only model that never knew, by more than such models have been seen to differ, is not
    silent: whether they differ by that much, one of them does not tell.
    """
    reading, least = _reading(measurement), silent_below(measurement)
    if depth := _lower_than_one(measurement, floors or {}):
        lower = f"it lies {depth:.3f} below the only model that never knew; how far such models lie apart is not known"
        return _evidence(measurement, "undecided", f"{reading}: no trace shown, but {lower}")
    if is_bounded(measurement):
        limit = limit_of(measurement) or f"an overall effect of {least:.2f} would show"
        return _evidence(measurement, "silent", f"{reading}: {limit}")
    bound = f"the upper 95 % bound of the overall effect is not below {least:.2f}"
    return _evidence(measurement, "undecided", f"{reading}: no trace shown, but {bound}")


def bluntness(measurement: Measurement) -> str:
    """Why a silence of this test counts for nothing, in words."""
    limit = limit_of(measurement)
    return f"too blunt here to be silent: {limit or 'it does not find even all of what base knows'}"


def limit_of(measurement: Measurement) -> str:
    """The detection limit in words: the smallest planted trace that the test finds; empty where that is not known."""
    power = measurement.power
    if isinstance(power, Missing) or isinstance(power.share, Missing):
        return ""
    over = unit_of(measurement)
    people = (
        "" if isinstance(power.people, Missing) else f", or {power.people} of {power.of} {over.plural} known in full"
    )
    return f"it finds {power.share:.2g} of base held of {over.every}{people} with probability {power.power:g}"


def _judge_effect(measurement: Measurement, floors: Mapping[str, float]) -> Evidence:
    blind = blindness(measurement)
    if blind is not None:
        return _evidence(measurement, "blind", blind)
    value = measurement.value
    assert isinstance(value, float), "a missing value is blind"
    if is_below(measurement, floors):
        depth = value if isinstance(measurement.overall, Missing) else measurement.overall.value
        reading = f"overall {-depth:.3f} below the never-trained level, beyond {_spread(measurement, floors).why}"
        return _evidence(measurement, "below", f"{_reading(measurement)}; {reading}: over-suppressed")
    find = _judge_output if measurement.kind == "output" else _judge_internal
    return find(measurement, value, floors) or _judge_quiet(measurement, value, floors)


def on_scale(measurement: Measurement) -> bool:
    """Is this a share of base, which can be held against another? What an attack brings back need not be."""
    return measurement.kind != "recovery" or measurement.scale == "effect"


def judge(measurement: Measurement, floors: Mapping[str, float] | None = None) -> Evidence:
    """What does this measurement show, by this case's own null, floor and positive control?

    ``floors`` (:func:`audit.calibration.zoo_floors`) are used only where the case measured none. Gates, context numbers
    and paper-mode numbers are listed and never traces, and so are readings under an attack that are no share of base.
    """
    if measurement.kind == "gate":
        return _judge_gate(measurement)
    if measurement.kind == "context" or measurement.mode == "paper" or not on_scale(measurement):
        return _evidence(measurement, "listed", "listed for comparison; never enters the verdict")
    return _judge_effect(measurement, floors or {})
