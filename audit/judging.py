"""In-case judging: what one measurement shows, and which rung of the verdict ladder all of them reach together.

Pure functions of numbers. They know no probe by name: a measurement's ``kind``, ``mode`` and ``form`` say what part it
may play. Every rung is *in-case*: it rests on this case's own null, floor and positive control, and prints no
likelihood ratio and no error rate. :mod:`audit.rule` holds the constants and words the rule from them.
"""

from collections.abc import Collection, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from audit import stats
from audit.calibration import Alone
from audit.findings import Evidence, Interval, Measurement, Outcome, Verdict, VerdictWord
from audit.nouns import Missing
from audit.rule import (
    ALPHA,
    EFFECT_KINDS,
    FLOOR_FACTOR,
    GATE_RATIO,
    HINT_ALPHA,
    INTACT_EFFECT,
    NO_FLOOR,
    PARTIAL_EFFECT,
    SILENT_BOUND,
    TRACE_EFFECT,
    Given,
    limits,
    sentence,
    strength,
    would_change,
)  # fmt: skip


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


def _evidence(measurement: Measurement, outcome: Outcome, because: str, direction: str = "none") -> Evidence:
    return Evidence.model_validate(
        {"measurement": measurement, "outcome": outcome, "direction": direction, "because": because}
    )


def _reading(measurement: Measurement) -> str:
    ci = measurement.ci95
    interval = f" (95 % {ci.lo:.3f} to {ci.hi:.3f})" if isinstance(ci, Interval) else ""
    p = f", p = {measurement.p:.2g}" if isinstance(measurement.p, float) else ""
    value = measurement.value.missing if isinstance(measurement.value, Missing) else f"{measurement.value:.3f}"
    return f"effect {value}{interval}{p}"


def _judge_gate(measurement: Measurement) -> Evidence:
    if isinstance(measurement.value, Missing):
        return _evidence(measurement, "inconclusive", f"gate not measured: {measurement.value.missing}")
    word = "passed" if measurement.value >= GATE_RATIO else "failed"
    because = f"gate {word}: the suspect keeps {measurement.value:.2f} of base (needs {GATE_RATIO})"
    return _evidence(measurement, "inconclusive", because)


def _blind(measurement: Measurement) -> str | None:
    """Why this measurement can say nothing here, or None."""
    if isinstance(measurement.value, Missing):
        return measurement.value.missing
    control = measurement.positive_control
    if isinstance(control, Missing):
        return f"no positive control: {control.missing}"
    if not control.found:
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
    blind = _blind(measurement)
    if blind is not None:
        return _evidence(measurement, "inconclusive", blind)
    value, reading = measurement.value, _reading(measurement)
    assert isinstance(value, float), "a missing value is blind"
    if is_below(measurement):
        depth = value if isinstance(measurement.overall, Missing) else measurement.overall.value
        because = f"{reading}; overall {-depth:.3f} below the never-trained level, over-suppressed"
        return _evidence(measurement, "trace found", because, "below")
    if measurement.kind == "output":
        if value >= PARTIAL_EFFECT:
            level = "as good as base" if value >= INTACT_EFFECT else "in part"
            return _evidence(measurement, "trace found", f"{reading}: the outputs still show it, {level}", "above")
    elif value >= TRACE_EFFECT and _p_under(measurement, ALPHA):
        bar = _bar(measurement, floors)
        if value > bar.height:
            return _evidence(measurement, "trace found", f"{reading}: above {bar.why}", "above")
        return _evidence(measurement, "inconclusive", f"{reading}: not above {bar.why}")
    if value >= TRACE_EFFECT and value > _bar(measurement, floors).height and _p_under(measurement, HINT_ALPHA):
        return _evidence(measurement, "inconclusive", f"{reading}: a hint (p < {HINT_ALPHA}), no finding")
    if _silent(measurement):
        return _evidence(
            measurement, "no trace found", f"{reading}: an overall effect of {SILENT_BOUND:.2f} would show"
        )
    bound = f"the upper 95 % bound of the overall effect is not below {SILENT_BOUND:.2f}"
    return _evidence(measurement, "inconclusive", f"{reading}: no trace shown, but {bound}")


def judge(measurement: Measurement, floors: Mapping[str, float] | None = None) -> Evidence:
    """What does this measurement show, by this case's own null, floor and positive control?

    ``floors`` (:func:`audit.calibration.zoo_floors`) are used only where the case measured none. Gates, context numbers
    and paper-mode numbers are listed and never traces. Source: DESIGN, "The nouns" (Evidence).
    """
    if measurement.kind == "gate":
        return _judge_gate(measurement)
    if measurement.kind in ("context", "recovery") or measurement.mode == "paper":
        return _evidence(measurement, "inconclusive", "listed for comparison; never enters the verdict")
    return _judge_effect(measurement, floors or {})


# ---- the ladder -------------------------------------------------------------------------------------------------
class _Sorted(NamedTuple):
    """The evidence that may carry a verdict, by the part it plays."""

    gates: list[Evidence]
    outputs: list[Evidence]
    causal: list[Evidence]
    decoding: list[Evidence]
    held_out: list[Evidence]

    @property
    def traceable(self) -> list[Measurement]:
        return [e.measurement for e in (*self.causal, *self.decoding)]

    @property
    def traces(self) -> list[Evidence]:
        return [e for e in (*self.causal, *self.decoding) if e.outcome == "trace found" and e.direction == "above"]

    @property
    def below(self) -> list[Evidence]:
        return [e for e in (*self.outputs, *self.causal, *self.decoding) if e.direction == "below"]


def _sort(evidence: Sequence[Evidence]) -> _Sorted:
    usable = [e for e in evidence if e.measurement.mode == "controlled"]
    on_rows = [e for e in usable if e.measurement.form == "trained"]

    def of(kind: str) -> list[Evidence]:
        return [e for e in on_rows if e.measurement.kind == kind]

    apart = [e for e in usable if e.measurement.form != "trained" and e.measurement.kind in EFFECT_KINDS]
    return _Sorted(of("gate"), of("output"), of("causal"), of("decoding"), apart)


class _Rung(NamedTuple):
    """A rung of the ladder, the evidence it stands on, and what is said about it."""

    word: VerdictWord
    basis: list[Evidence]
    because: tuple[str, ...]
    direction: str = "none"


def _named(evidence: Evidence) -> str:
    return f"{evidence.measurement.probe}, {evidence.measurement.name}: {evidence.because}"


def _strongest(evidence: Sequence[Evidence]) -> list[Evidence]:
    """The evidence with values, the largest effect first."""
    valued = [(e.measurement.value, e) for e in evidence if isinstance(e.measurement.value, float)]
    return [e for _, e in sorted(valued, key=lambda pair: -pair[0])]


def _rung_by_gate_and_outputs(parts: _Sorted) -> _Rung | None:
    measured = [e for e in parts.gates if isinstance(e.measurement.value, float)]
    broken = [e for e in measured if isinstance(e.measurement.value, float) and e.measurement.value < GATE_RATIO]
    if broken:
        return _Rung("INVALID", broken, tuple(_named(e) for e in broken))
    if not measured:
        why = "; ".join(_named(e) for e in parts.gates) or "no utility gate was measured"
        return _Rung("INCONCLUSIVE", [], (f"nothing says that the suspect is usable at all: {why}",))
    shown = _strongest([e for e in parts.outputs if e.outcome == "trace found" and e.direction == "above"])
    if shown:
        top = shown[0].measurement.value
        assert isinstance(top, float), "only valued evidence is sorted"
        return _Rung("INTACT" if top >= INTACT_EFFECT else "PARTIAL", shown, tuple(map(_named, shown)), "above")
    return None


def _rung_by_traces(parts: _Sorted) -> _Rung | None:
    ineligible = [e for e in parts.causal if isinstance(e.measurement.value, Missing)]
    if parts.causal and len(ineligible) == len(parts.causal):
        because = tuple(f"no layer can be judged by {e.measurement.probe}: {e.because}" for e in ineligible)
        return _Rung("INCONCLUSIVE", [], tuple(dict.fromkeys(because)))
    traces = _strongest(parts.traces)
    if traces:
        return _Rung("SUPPRESSED", traces, tuple(_named(e) for e in traces), "above")
    if parts.below:
        why = (
            "the suspect lies below the level of a model that never knew: over-suppressed, which is a finding of its "
            "own and not what a model that never knew looks like"
        )
        return _Rung("INCONCLUSIVE", parts.below, (why, *(_named(e) for e in parts.below)), "below")
    return None


def beyond_chance(held_out: Sequence[Evidence]) -> list[Evidence]:
    """The traces on held-out forms that are no accident of how many such tests there are.

    Causal and decoding tests of forms held out of the edit are one family, adjusted by Holm (1979); outputs are levels
    and have no p.
    """
    tested = [
        (id(e), p) for e in held_out if e.measurement.kind != "output" and isinstance(p := e.measurement.p, float)
    ]
    adjusted = stats.holm(np.array([p for _, p in tested], float))
    chance = {name for (name, _), p in zip(tested, adjusted, strict=True) if p >= ALPHA}
    above = [e for e in held_out if e.outcome == "trace found" and e.direction == "above"]
    return [e for e in above if id(e) not in chance]


def alone(evidence: Sequence[Evidence], above: Collection[tuple[str, str]]) -> Alone:
    """What these in-case findings say before any joint rule: by the gate, the outputs, a level below, or other forms.

    ``above`` names the measurements (probe, name) that exceed their calibrated thresholds: without that a held-out form
    says nothing here. A causal or decoding trace on the trained rows is the joint rule's business and does not count.
    """
    parts = _sort(evidence)
    first, second = _rung_by_gate_and_outputs(parts), _rung_by_traces(parts)
    if first is not None:
        return "shown" if first.direction == "above" else "stopped"
    if second is not None and second.direction == "below":
        return "below"
    other = beyond_chance(parts.held_out)
    return "elsewhere" if any((e.measurement.probe, e.measurement.name) in above for e in other) else "quiet"


def _doubts(kind: str, parts: _Sorted) -> list[str]:
    """Why this kind of test does not count as silent. Outputs only have to see base: their rung is passed already."""
    found: list[Evidence] = {"output": parts.outputs, "causal": parts.causal, "decoding": parts.decoding}[kind]
    seeing = [e for e in found if not _blind(e.measurement)]
    if not seeing:
        return [_named(e) for e in found] or [f"no {kind} test ran"]
    return [_named(e) for e in seeing if kind != "output" and e.outcome != "no trace found"]


def _rung_by_silence(parts: _Sorted, roles: Given) -> _Rung:
    if not roles.null:
        shows = "only holdout people show" if roles.holdout else "nothing shows"
        why = f"no reference and no ancestor: {shows} the level of a model that never knew, so silence says little"
        return _Rung("INCONCLUSIVE", [], (why,))
    doubts = [doubt for kind in ("output", "causal", "decoding") for doubt in _doubts(kind, parts)]
    if doubts:
        return _Rung("INCONCLUSIVE", [], tuple(doubts))
    quiet = [*parts.causal, *parts.decoding]
    elsewhere = beyond_chance(parts.held_out)
    if elsewhere:
        why = "no trace on the rows that the edit was told to forget, but one on forms held out of it"
        return _Rung("PARTIAL", _strongest(elsewhere), (why, *(_named(e) for e in elsewhere)), "above")
    chance = [e for e in parts.held_out if e.outcome == "trace found" and e.direction == "above"]
    told = [f"{_named(e)}; no more than chance among the tests of held-out forms (Holm)" for e in chance]
    return _Rung("CONSISTENT WITH NEVER TRAINED", quiet, (*map(_named, quiet), *told))


def verdict(evidence: Sequence[Evidence], roles: Given) -> Verdict:
    """Which rung does the evidence reach, with the roles that were given? Total: every input has a verdict.

    The order of the rungs is the rule (:func:`audit.rule.decision_rule`). Held-out forms never lower a verdict.
    """
    parts = _sort(evidence)
    rung = _rung_by_gate_and_outputs(parts) or _rung_by_traces(parts) or _rung_by_silence(parts, roles)
    blind = [e for e in (*parts.outputs, *parts.causal, *parts.decoding) if _blind(e.measurement)]
    return Verdict.model_validate(
        {
            "word": rung.word,
            "sentence": sentence(rung.word, rung.basis[0].measurement if rung.basis else None, rung.because[0]),
            "because": rung.because,
            "strength": strength(rung.word, roles),
            "direction": rung.direction,
            "basis": "in-case",
            "limits": limits(parts.traceable, len(blind), roles),
            "would_change": would_change(rung.word, roles),
        }
    )
