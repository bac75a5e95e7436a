"""In-case judging: which word the evidence of a case reaches by itself.

Pure functions of numbers. They know no probe by name: a measurement's ``kind``, ``mode`` and ``form`` say what part it
may play. Every word is *in-case*: it rests on this case's own null, floor and positive control, and prints no
likelihood ratio and no error rate. :mod:`audit.judging.axes` holds the two axes of which the word follows.
"""

from collections.abc import Collection, Sequence
from typing import Final, NamedTuple

from audit.calibration import InCaseState
from audit.judging.axes import Axes, axes, is_trace, trusted
from audit.judging.explain import Given
from audit.judging.in_case import blindness
from audit.judging.kept_people import count_words, people_kept, witnessed
from audit.judging.reasons import (
    CONSISTENT,
    TRACE_WORDS,
    axes_sentence,
    is_of_some,
    limits,
    sentence,
    strength,
    unheard,
    would_change,
)
from audit.judging.replicates import replicates_of
from audit.judging.silence import EVERY_KIND, STATES, Silence, by_chance, limit_sentence, settled, silence
from audit.schema import ALPHA, EFFECT_KINDS, Evidence, Missing, PeopleKept, Verdict, VerdictWord
from audit.wording import Replicate

ALL_ROLES: Final = Given(references=2, ancestor=True, holdout=True)


class Rung(NamedTuple):
    """A word of the ladder, the evidence it stands on, and what is said about it.

    ``reason``: why nothing is decided, in a few words.
    """

    word: VerdictWord
    basis: list[Evidence]
    because: tuple[str, ...]
    direction: str = "none"
    reason: str = ""


def _named(evidence: Evidence) -> str:
    return f"{evidence.measurement.probe}, {evidence.measurement.name}: {evidence.because}"


def _strongest(evidence: Sequence[Evidence]) -> list[Evidence]:
    """The evidence with values, the largest effect first."""
    valued = [(e.measurement.value, e) for e in evidence if isinstance(e.measurement.value, float)]
    return [e for _, e in sorted(valued, key=lambda pair: -pair[0])]


def _led(traces: Sequence[Evidence], measurement: str) -> list[Evidence]:
    """The evidence, that of this measurement first."""
    return sorted(
        _strongest(traces), key=lambda e: f"{e.measurement.probe}.{e.measurement.name}" != measurement
    )  # fmt: skip


# ---- the rungs --------------------------------------------------------------------------------------------------
def _rung_by_gate(evidence: Sequence[Evidence]) -> Rung | None:
    gates = trusted(evidence, ("gate",))
    broken = [e for e in gates if e.status == "gate_failed"]
    if broken:
        return Rung("INVALID", broken, tuple(_named(e) for e in broken))
    if not any(e.status == "gate_passed" for e in gates):
        reason = "; ".join(_named(e) for e in gates) or "no utility gate was measured"
        because = f"nothing says that the suspect is usable at all: {reason}"
        return Rung("INCONCLUSIVE", [], (because,), reason="no utility gate")
    return None


def _rung_by_trace(evidence: Sequence[Evidence], shares: Axes) -> Rung | None:
    """INTACT, SUPPRESSED or PARTIAL, by the axes."""
    traces = [*shares.in_outputs, *shares.inside]
    if not traces and not shares.is_intact:
        return None
    word = shares.word() if shares.inside or shares.is_intact else "PARTIAL"
    axis = shares.internals if word == "SUPPRESSED" or not shares.in_outputs else shares.outputs
    side = shares.inside if word == "SUPPRESSED" else shares.in_outputs or shares.inside
    lead = _led(side or traces, "" if isinstance(axis, Missing) else axis.measurement)
    rest = [e for e in _strongest(traces) if e not in lead]
    because = [*map(_named, (*lead, *rest))]
    if low := _below(evidence):
        because.append(f"elsewhere it lies below the never-trained level: {'; '.join(map(_named, low))}")
    return Rung(word, [*lead, *rest], tuple(because), "above")


def _rung_by_people(evidence: Sequence[Evidence]) -> Rung | None:
    """PARTIAL by a few people: too few for a trace in the mean, and named by two kinds of evidence."""
    people = witnessed(evidence)
    if people is None:
        return None
    over, names = replicates_of(evidence), set(people.named)
    telling = [e for e in trusted(evidence, EVERY_KIND) if _names(e) & names]
    reason = over.rephrased(
        f"{len(names)} of {people.of} people stand out in two kinds of evidence, each with a false discovery rate of "
        f"{people.fdr:.0%} against people whom nobody knew; the mean over all people shows no trace"
    )
    order = sorted(telling, key=lambda e: -len(_names(e) & names))
    return Rung("PARTIAL", order, (reason, *map(_named, order)), "above")


def _names(evidence: Evidence) -> set[str]:
    people = evidence.measurement.people
    return set() if isinstance(people, Missing) else set(people.named)


def _below(evidence: Sequence[Evidence]) -> list[Evidence]:
    return [e for e in trusted(evidence, EFFECT_KINDS) if e.direction == "below"]


def is_below(evidence: Sequence[Evidence]) -> bool:
    """Does the suspect lie below the never-trained level in outputs or states?"""
    return bool(_below(evidence))


def _rung_by_depth(evidence: Sequence[Evidence]) -> Rung | None:
    low = _below(evidence)
    if not low:
        return None
    reason = (
        "the suspect lies below the level of a model that never knew: over-suppressed, which is a finding of its own "
        "and not what a model that never knew looks like; no trace was found beside it"
    )
    return Rung("INCONCLUSIVE", low, (reason, *map(_named, low)), "below", "over-suppressed")


def held_out(evidence: Sequence[Evidence]) -> list[Evidence]:
    """The evidence of forms that were held out of the edit."""
    usable = [e for e in evidence if e.measurement.mode == "controlled" and e.measurement.form != "trained"]
    return [e for e in usable if e.measurement.kind in EFFECT_KINDS]


def beyond_chance(forms: Sequence[Evidence]) -> list[Evidence]:
    """The traces on held-out forms that are no accident of how many such tests there are.

    All tests of forms held out of the edit are one family, adjusted by Holm (1979).
    """
    chance = by_chance(forms, ALPHA)
    return [e for e in forms if is_trace(e) and id(e) not in chance]


def _rung_by_silence(evidence: Sequence[Evidence], roles: Given) -> Rung:
    if not roles.null:
        shows = f"only holdout {replicates_of(evidence).plural} show" if roles.holdout else "nothing shows"
        reason = f"no reference and no ancestor: {shows} the level of a model that never knew, so silence says little"
        return Rung("INCONCLUSIVE", [], (reason,), reason="no model that never knew was given")
    state = silence(evidence)
    if not state.holds:
        return _undecided(evidence, state)
    elsewhere = beyond_chance(held_out(evidence))
    if elsewhere:
        reason = "no trace on the rows that the edit was told to forget, but one on forms held out of it"
        return Rung("PARTIAL", _strongest(elsewhere), (reason, *(_named(e) for e in elsewhere)), "above")
    chance = [e for e in held_out(evidence) if is_trace(e)]
    chances = [f"{_named(e)}; no more than chance among the tests of held-out forms (Holm)" for e in chance]
    lead = [e for e in state.quiet if e.measurement.kind in STATES] or state.quiet
    rest = [e for e in state.quiet if e not in lead]
    limit = [limit] if (limit := limit_sentence(state.quiet)) else []
    return Rung(CONSISTENT, [*lead, *rest], (*limit, *map(_named, (*lead, *rest)), *chances))


def _undecided(evidence: Sequence[Evidence], state: Silence) -> Rung:
    """INCONCLUSIVE, with what kept it from silence: blindness first, then tests that are open."""
    mute = unheard(evidence)
    doubts = [*state.lacking, *map(_named, state.doubts), *(map(_named, (*mute.blind, *mute.blunt)))]
    return Rung("INCONCLUSIVE", [], tuple(dict.fromkeys(doubts)), reason=_reason(evidence, state))


def _reason(evidence: Sequence[Evidence], state: Silence) -> str:
    mute = unheard(evidence)
    if mute.short or (state.lacking and mute.few):
        units = max((e.measurement.units for e in mute.few), default=0)
        too_few = f"blind: too few {replicates_of(evidence).plural}"
        return f"{too_few} ({units})" if units else too_few
    if state.lacking:
        causal = [e for e in mute.blind if e.measurement.kind == "causal"]
        if causal and all(isinstance(e.measurement.value, Missing) for e in causal):
            return "no common basis: base cannot read the suspect's states"
        if mute.blunt:
            return f"too blunt: {'; '.join(state.lacking)}"
        return f"blind: {'; '.join(state.lacking)}"
    names = ", ".join(dict.fromkeys(e.measurement.probe for e in state.doubts))
    return f"open: {names} shows neither a trace nor silence"


# ---- together ---------------------------------------------------------------------------------------------------
class Reached(NamedTuple):
    """The word that in-case evidence reaches, its axes, and the evidence with hints settled."""

    rung: Rung
    axes: Axes
    evidence: tuple[Evidence, ...]
    people: PeopleKept | Missing


def reach(evidence: Sequence[Evidence], roles: Given) -> Reached:
    """Which word does in-case evidence reach, with the roles that were given? Total: every input reaches one.

    The order of the rungs is the rule (:func:`~audit.judging.explain.decision_rule`). Held-out forms never lower a
    verdict.
    """
    final = settled(evidence)
    shares = axes(final)
    rung = (
        _rung_by_gate(final) or _rung_by_trace(final, shares) or _rung_by_people(final) or _rung_by_depth(final)
        or _rung_by_silence(final, roles)
    )  # fmt: skip
    return Reached(rung, shares, tuple(final), people_kept(final))


def some_people(word: VerdictWord, people: PeopleKept | Missing, over: Replicate) -> str:
    """``16 of 32 people are known``, where all is known of some people; empty otherwise."""
    if word not in ("PARTIAL", "SUPPRESSED") or isinstance(people, Missing) or not is_of_some(people):
        return ""
    return f"{count_words(people, over)} are known"


def worded(reached: Reached, roles: Given, stale: str = "") -> Verdict:
    """The in-case verdict of what was reached; ``stale`` says which calibration would have judged but for its age."""
    rung, evidence = reached.rung, reached.evidence
    lead = rung.basis[0].measurement if rung.basis else None
    over = replicates_of(evidence)
    people = some_people(rung.word, reached.people, over)
    because = (axes_sentence(rung.word, reached.axes), *rung.because) if rung.word in TRACE_WORDS else rung.because
    return Verdict.model_validate(
        {
            "word": rung.word, "because": because, "direction": rung.direction, "basis": "in-case",
            "strength": strength(rung.word, roles, evidence),
            "would_change": would_change(rung.word, roles, evidence, rung.direction == "below"),
            "limits": limits([e.measurement for e in rung.basis], unheard(evidence), roles, stale=stale, over=over),
            "sentence": sentence(rung.word, lead, rung.because[0], people or rung.reason),
            "outputs": reached.axes.outputs, "internals": reached.axes.internals, "people": reached.people,
        }
    )  # fmt: skip


def verdict(evidence: Sequence[Evidence], roles: Given) -> Verdict:
    """The in-case verdict of this evidence: :func:`reach`, in words."""
    return worded(reach(evidence, roles), roles)


def stands(state: str, joint: bool) -> bool:
    """Does the case's own verdict stand, in this state before a joint rule that finds a trace or none?"""
    return state in ("stopped", "unreadable") or (not joint and state in ("shown", "below"))


def confirmed(evidence: Sequence[Evidence], denied: Collection[tuple[str, str]]) -> tuple[Evidence, ...]:
    """The evidence of a suspect that no causal test reads, without the traces in its states that are ``denied``: of the
    measurements (probe, name) whose calibration, made of models that never knew as well, sees none there.

    What such a suspect's own states show is a difference from one model that never knew, and by how much models of
    other initialisations differ from each other two references of one initialisation do not say. The evidence of
    others is left as it is.
    """
    if any(blindness(e.measurement) is None for e in trusted(evidence, ("causal",))):
        return tuple(evidence)
    doubted = "no more than models that never knew reach, by its calibration; no causal test reads this suspect"
    return tuple(
        e.model_copy(update={"status": "undecided", "outcome": "inconclusive", "direction": "none", "because": doubted})
        if is_trace(e) and e.measurement.kind == "decoding" and (e.measurement.probe, e.measurement.name) in denied
        else e
        for e in evidence
    )


def in_case_state(
    evidence: Sequence[Evidence], above: Collection[tuple[str, str]], denied: Collection[tuple[str, str]] = ()
) -> InCaseState:
    """What these in-case findings say before any joint rule: by the gate, the outputs, a level below, or other forms.

    ``above`` names the measurements (probe, name) that exceed their calibrated thresholds: without that a held-out form
    says nothing here. A causal or decoding trace on the trained rows is the joint rule's business and does not count,
    but for a suspect below the never-trained level; what an attack brings back does. Without a causal measurement
    there is no joint rule, and the case's own word is the verdict, without what is ``denied`` (:func:`confirmed`).
    """
    reached = reach(confirmed(evidence, denied), ALL_ROLES)
    final, shares, word = reached.evidence, reached.axes, reached.rung.word
    if _rung_by_gate(final) is not None:
        return "stopped"
    readable = [e for e in trusted(final, ("causal",)) if blindness(e.measurement) is None]
    if not readable:
        return "shown" if word in TRACE_WORDS else "unreadable"
    low = is_below(final)
    if shares.in_outputs or shares.is_intact or shares.recovered or (low and shares.inside):
        return "shown"
    if witnessed(final) is not None:
        return "shown"
    if low:
        return "below"
    other = beyond_chance(held_out(final))
    return "elsewhere" if any((e.measurement.probe, e.measurement.name) in above for e in other) else "quiet"
