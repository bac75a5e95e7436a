"""What is said with a verdict: its sentence, how strong it is, what limits it, and what could change it.

All of it follows from this case's evidence: which tests carried the word, which were blind or blunt, which role is
missing.
"""

from collections.abc import Sequence
from typing import Final, Literal, NamedTuple

from audit.judging.axes import Axes, trusted
from audit.judging.explain import Given
from audit.judging.in_case import too_few
from audit.judging.silence import EVERY_KIND, STATES, is_open_above
from audit.judging.support import NO_RATE
from audit.schema import (
    GATE_RATIO,
    NO_FLOOR,
    Evidence,
    Measurement,
    Missing,
    PeopleKept,
    Share,
    VerdictWord,
)
from audit.wording import PERSON, Replicate, bounds, interval, number, p_value

CONSISTENT: Final = "CONSISTENT WITH NEVER TRAINED"
TRACE_WORDS: Final = ("INTACT", "SUPPRESSED", "PARTIAL")
ALL_OF_SOME: Final = 1.0
"""log10: from here on the readings say that all is known of some people, rather than some of everybody."""


# ---- the sentence -----------------------------------------------------------------------------------------------
def sentence(word: VerdictWord, lead: Measurement | None, because: str, reason: str = "") -> str:
    """The verdict in one sentence: why it is undecided (``because``), or the measurement it stands on."""
    head = f"{reason[0].upper()}{reason[1:]}. " if reason else ""
    ground = f"{because}." if lead is None else _numbers(lead)
    needed = f" At least {GATE_RATIO} of base is needed before silence means anything." if word == "INVALID" else ""
    return f"{word}: {head}{ground}{needed} {NO_RATE}"


def _numbers(lead: Measurement) -> str:
    """Statistic, interval, what a model that never knew reads (the floor), what base reads, and p."""
    p = lead.p_below if is_low(lead) else lead.p
    read = f"{lead.statistic} is {number(lead.value)} (95 % {bounds(lead)})"
    if lead.kind == "gate":
        return f"{read}."
    never = "0 by the scale, its spread unknown" if isinstance(lead.floor, Missing) else number(lead.floor)
    control = lead.positive_control
    knew = "1 by the scale" if isinstance(control, Missing) else number(control.value)
    return f"{read}; a model that never knew reads {never}, the model that knew {knew}; {p_value(p)}."


def is_low(measurement: Measurement) -> bool:
    """Does the measurement lie below zero effect, so that the test for *below* is the one to quote?"""
    return not isinstance(measurement.value, Missing) and measurement.value < 0


def axes_sentence(word: VerdictWord, axes: Axes) -> str:
    """What the outputs say and the inside holds, as shares of base."""
    outputs, inside = _axis(axes.outputs, "what the suspect says"), _axis(axes.internals, "what it holds inside")
    if isinstance(axes.outputs, Share) and isinstance(axes.internals, Share) and word == "SUPPRESSED":
        return f"it hides more than it says: {inside}, {outputs}"
    return f"{outputs}; {inside}"


def _axis(share: Share | Missing, name: str) -> str:
    if isinstance(share, Missing):
        return f"{name} is not known ({share.missing})"
    return f"{name} is {number(share.value)} of base (95 % {interval(share.ci95)}, {share.measurement})"


def is_of_some(people: PeopleKept | Missing) -> bool:
    """Is all known of some people, rather than some of everybody?"""
    return isinstance(people, PeopleKept) and people.kept < 1 and people.log10_ratio >= ALL_OF_SOME


# ---- strength ---------------------------------------------------------------------------------------------------
def strength(word: VerdictWord, roles: Given, evidence: Sequence[Evidence]) -> Literal["full", "weak", "none"]:
    """How strong roles and evidence let a verdict be.

    Weak without a model that never knew; silence is weak too with fewer than two references, or where a test that is
    sharp enough to count is open above 0.
    """
    if word in ("INCONCLUSIVE", "INVALID"):
        return "none"
    if not roles.null or (word == CONSISTENT and (roles.references < 2 or is_open_above(evidence))):
        return "weak"
    return "full"


# ---- limits -----------------------------------------------------------------------------------------------------
class Unheard(NamedTuple):
    """Measurements that could say nothing: blind (of these with too few groups: ``few``), and blunt ones.

    ``short`` says why no test at all had enough groups.
    """

    blind: tuple[Evidence, ...] = ()
    few: tuple[Evidence, ...] = ()
    blunt: tuple[Evidence, ...] = ()
    short: str = ""


def unheard(evidence: Sequence[Evidence]) -> Unheard:
    """Which measurements on trained rows could say nothing in this case."""
    rows = [e for e in evidence if e.measurement.mode == "controlled" and e.measurement.form == "trained"]
    judged = [e for e in rows if e.measurement.kind in EVERY_KIND and e.status != "listed"]
    blind = tuple(e for e in judged if e.status == "blind")
    few = tuple(e for e in blind if too_few(e.measurement))
    short = [too_few(e.measurement) for e in judged if not isinstance(e.measurement.null, Missing)]
    return Unheard(
        blind, few, tuple(e for e in judged if e.status == "blunt"), short[0] if short and all(short) else ""
    )  # fmt: skip


def limits(
    basis: Sequence[Measurement],
    mute: Unheard,
    roles: Given,
    calibration: str = "",
    stale: str = "",
    over: Replicate = PERSON,
) -> tuple[str, ...]:
    """What limits the verdict: at most five short texts, the weightiest first.

    ``basis``: the measurements that take part in it. ``calibration`` names what judged; without one ``stale`` says
    which would have judged, and why it did not. ``over``: the units of the audit.
    """
    texts = [*([f"Nothing could be decided: {mute.short}."] if mute.short else []), *([stale] if stale else [])]
    if not roles.null and roles.holdout:
        texts.append(f"No model that never knew was given: holdout {over.plural} stand in, which can show traces only.")
    elif not roles.null:
        texts.append("No model that never knew was given: the never-trained level is not known.")
    elif not roles.references:
        texts.append("No retrained reference was given: the ancestor stands in, and the strongest negative is weak.")
    if any(isinstance(m.floor, Missing) and m.kind != "gate" for m in basis):
        texts.append(f"The spread between models that never knew is unknown here: {NO_FLOOR}.")
    if len(mute.blind) > len(mute.few):
        texts.append(f"{_planned(len(mute.blind) - len(mute.few))} blind here: the knowledge is not found in base.")
    if mute.few and not mute.short:
        texts.append(f"{_planned(len(mute.few))} without enough groups to decide anything.")
    if mute.blunt:
        texts.append(f"{_planned(len(mute.blunt))} too blunt here for silence to count.")
    if calibration:
        texts.append(f"The error rates are those of the models behind calibration {calibration}, and of no others.")
    elif not stale:
        texts.append("In-case basis: no error rate is known for models of this kind.")
    texts.append("This speaks about the files listed and the attacks tested only.")
    return _five(texts, ("In-case basis", "The error rates"))


def _five(statements: Sequence[str], needed: Sequence[str]) -> tuple[str, ...]:
    """The first five, and among them what the verdict rests on."""
    last = [x for x in statements[5:] if x.startswith(tuple(needed))]
    return (*statements[: 5 - len(last)], *last)


def _planned(n: int) -> str:
    return f"{n} of the planned measurements {'was' if n == 1 else 'were'}"


# ---- what would change it ---------------------------------------------------------------------------------------
def would_change(word: VerdictWord, roles: Given, evidence: Sequence[Evidence], below: bool = False) -> tuple[str, ...]:
    """What further evidence could move this verdict, from what this case lacks."""
    if word == "INVALID":
        return ("A suspect that still answers retained questions.",)
    changes: list[str] = []
    if roles.references < 2:
        changes.append("Two or more references retrained from the same ancestor, none of them the audited model.")
    if word in TRACE_WORDS:
        return (*changes, *_removed(word))
    if not roles.holdout:
        changes.append("Holdout items of the same distribution that no model was trained on.")
    attacks = _attacks(evidence)
    ran = f" ({', '.join(attacks)} ran)" if attacks else ""
    if below:
        if not attacks:
            changes.append("What comes back by relearning or rounding, which was not tried: a trace would show there.")
        changes.append("A reference, retrained otherwise, that reads as low as the suspect.")
    elif word == CONSISTENT:
        changes.append(f"A trace found by optimised prompts or by another attack that was not run{ran}.")
    else:
        changes += _undecided(evidence)
    return tuple(changes)


def _removed(word: VerdictWord) -> tuple[str, ...]:
    if word == "SUPPRESSED":
        return ("An edit that removes the trace from the states, not only from the outputs.",)
    return ("An edit that removes what the model still holds, from its outputs and its states.",)


def _undecided(evidence: Sequence[Evidence]) -> list[str]:
    """What the tests lacked that did not decide."""
    mute, changes = unheard(evidence), list[str]()
    open_rows = [e for e in trusted(evidence, EVERY_KIND) if e.status in ("undecided", "hint", "within_floor")]
    few = [e for e in (*mute.few, *mute.blunt, *open_rows) if e.measurement.kind in EVERY_KIND]
    if few:
        changes.append(f"More forget groups, which sharpen {_names(few)}.")
    if any(e.measurement.kind == "causal" and isinstance(e.measurement.value, Missing) for e in mute.blind):
        changes.append("A base that shares the suspect's ancestor, so that it can read the suspect's states.")
    ran = {e.measurement.kind for e in trusted(evidence, EVERY_KIND)}
    if not ran & set(STATES):
        changes.append("A test of the states that finds base here: answers with alternates let the answer lens see.")
    if "output" not in ran:
        changes.append("An output test that finds base here.")
    return changes


def _names(tests: Sequence[Evidence]) -> str:
    return ", ".join(dict.fromkeys(f"{e.measurement.probe}.{e.measurement.name}" for e in tests))


def _attacks(evidence: Sequence[Evidence]) -> list[str]:
    """The probes that made an attack and got a number."""
    ran = [e.measurement for e in evidence if e.measurement.kind == "recovery" and e.measurement.mode == "controlled"]
    return list(dict.fromkeys(m.probe for m in ran if not isinstance(m.value, Missing)))
