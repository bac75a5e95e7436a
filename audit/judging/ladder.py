"""In-case judging: what one measurement shows, and which rung of the verdict ladder all of them reach together.

Pure functions of numbers. They know no probe by name: a measurement's ``kind``, ``mode`` and ``form`` say what part it
may play. Every rung is *in-case*: it rests on this case's own null, floor and positive control, and prints no
likelihood ratio and no error rate. :mod:`audit.judging.explain` holds the constants and words the rule from them.
"""

from collections.abc import Collection, Sequence
from typing import NamedTuple

import numpy as np

from audit import stats
from audit.calibration import InCaseState
from audit.judging.explain import Blind, Given, limits, sentence, strength, would_change
from audit.judging.in_case import too_few
from audit.schema import (
    ALPHA,
    EFFECT_KINDS,
    INTACT_EFFECT,
    Evidence,
    Measurement,
    Missing,
    Verdict,
    VerdictWord,
)


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


class Rung(NamedTuple):
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


def _rung_by_gate_and_outputs(parts: _Sorted) -> Rung | None:
    broken = [e for e in parts.gates if e.status == "gate_failed"]
    if broken:
        return Rung("INVALID", broken, tuple(_named(e) for e in broken))
    if not any(e.status == "gate_passed" for e in parts.gates):
        why = "; ".join(_named(e) for e in parts.gates) or "no utility gate was measured"
        return Rung("INCONCLUSIVE", [], (f"nothing says that the suspect is usable at all: {why}",))
    shown = _strongest([e for e in parts.outputs if e.outcome == "trace found" and e.direction == "above"])
    if shown:
        top = shown[0].measurement.value
        assert isinstance(top, float), "only valued evidence is sorted"
        return Rung("INTACT" if top >= INTACT_EFFECT else "PARTIAL", shown, tuple(map(_named, shown)), "above")
    return None


def _rung_by_traces(parts: _Sorted) -> Rung | None:
    ineligible = [e for e in parts.causal if isinstance(e.measurement.value, Missing)]
    if parts.causal and len(ineligible) == len(parts.causal):
        because = tuple(f"no layer can be judged by {e.measurement.probe}: {e.because}" for e in ineligible)
        return Rung("INCONCLUSIVE", [], tuple(dict.fromkeys(because)))
    traces = _strongest(parts.traces)
    if traces:
        return Rung("SUPPRESSED", traces, tuple(_named(e) for e in traces), "above")
    if parts.below:
        why = (
            "the suspect lies below the level of a model that never knew: over-suppressed, which is a finding of its "
            "own and not what a model that never knew looks like"
        )
        return Rung("INCONCLUSIVE", parts.below, (why, *(_named(e) for e in parts.below)), "below")
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


def in_case_state(evidence: Sequence[Evidence], above: Collection[tuple[str, str]]) -> InCaseState:
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
    seeing = [e for e in found if e.status != "blind"]
    if not seeing:
        return [_named(e) for e in found] or [f"no {kind} test ran"]
    return [_named(e) for e in seeing if kind != "output" and e.outcome != "no trace found"]


def _rung_by_silence(parts: _Sorted, roles: Given) -> Rung:
    if not roles.null:
        shows = "only holdout people show" if roles.holdout else "nothing shows"
        why = f"no reference and no ancestor: {shows} the level of a model that never knew, so silence says little"
        return Rung("INCONCLUSIVE", [], (why,))
    doubts = [doubt for kind in ("output", "causal", "decoding") for doubt in _doubts(kind, parts)]
    if doubts:
        return Rung("INCONCLUSIVE", [], tuple(doubts))
    quiet = [*parts.causal, *parts.decoding]
    elsewhere = beyond_chance(parts.held_out)
    if elsewhere:
        why = "no trace on the rows that the edit was told to forget, but one on forms held out of it"
        return Rung("PARTIAL", _strongest(elsewhere), (why, *(_named(e) for e in elsewhere)), "above")
    chance = [e for e in parts.held_out if e.outcome == "trace found" and e.direction == "above"]
    told = [f"{_named(e)}; no more than chance among the tests of held-out forms (Holm)" for e in chance]
    return Rung("CONSISTENT WITH NEVER TRAINED", quiet, (*map(_named, quiet), *told))


class Reached(NamedTuple):
    """The rung that in-case evidence reaches, what might have shown a trace, and what was blind."""

    rung: Rung
    traceable: tuple[Measurement, ...]
    blind: Blind


def reach(evidence: Sequence[Evidence], roles: Given) -> Reached:
    """Which rung does in-case evidence reach, with the roles that were given? Total: every input reaches one.

    The order of the rungs is the rule (:func:`~audit.judging.explain.decision_rule`). Held-out forms never lower a
    verdict.
    """
    parts = _sort(evidence)
    rung = _rung_by_gate_and_outputs(parts) or _rung_by_traces(parts) or _rung_by_silence(parts, roles)
    judged = [*parts.outputs, *parts.causal, *parts.decoding]
    blind = [e for e in judged if e.status == "blind"]
    short = [too_few(e.measurement) for e in judged if not isinstance(e.measurement.null, Missing)]
    few = sum(bool(too_few(e.measurement)) for e in blind)
    return Reached(rung, tuple(parts.traceable), Blind(len(blind), few, short[0] if short and all(short) else ""))


def worded(reached: Reached, roles: Given, stale: str = "") -> Verdict:
    """The in-case verdict of what was reached; ``stale`` says which calibration would have judged but for its age."""
    rung = reached.rung
    return Verdict.model_validate(
        {
            "word": rung.word, "because": rung.because, "direction": rung.direction, "basis": "in-case",
            "strength": strength(rung.word, roles), "would_change": would_change(rung.word, roles),
            "limits": limits(reached.traceable, reached.blind, roles, stale=stale),
            "sentence": sentence(rung.word, rung.basis[0].measurement if rung.basis else None, rung.because[0]),
        }
    )  # fmt: skip


def verdict(evidence: Sequence[Evidence], roles: Given) -> Verdict:
    """The in-case verdict of this evidence: :func:`reach`, in words."""
    return worded(reach(evidence, roles), roles)
