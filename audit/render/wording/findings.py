"""The sentences of a report: numbers with two significant figures, missing values as words, nothing overstated.

The rules that this module keeps, for every view: a number has the name of :mod:`audit.render.wording.quantities`; a
negative stands beside what its silence is worth; in-case evidence prints no likelihood ratio and no error rate; a mark
means one thing: triangles, circles and diamonds are outcomes, squares are verdicts, strokes and bars lie on the scale;
whatever a model or a file name says is hostile text until :func:`visible` has been over it.
"""

import math
from typing import Final

from audit.judging import NO_RATE
from audit.render.wording.quantities import blindness, is_blind, judged_reading, silence_worth, too_few
from audit.schema import Evidence, Interval, Measurement, Missing, Outcome, Report, VerdictWord
from audit.wording import CELL, NAME, number, shown_name, visible

BANNED: Final = ("proves", "certified", "guarantees", "fully forgotten", "compliant", "passed GDPR", "safe")
"""Words that no view may use of a result (a test greps every view for them)."""

OUTCOME_SYMBOL: Final[dict[Outcome, str]] = {
    "trace found": "▲", "no trace found": "●", "inconclusive": "◆", "not run": "–",
}  # fmt: skip
VERDICT_SYMBOL: Final[dict[VerdictWord, str]] = {
    "INTACT": "■", "PARTIAL": "◧", "SUPPRESSED": "▣", "CONSISTENT WITH NEVER TRAINED": "□", "INCONCLUSIVE": "◇",
    "INVALID": "✕",
}  # fmt: skip
WORST_FIRST: Final[tuple[VerdictWord, ...]] = (
    "INTACT", "PARTIAL", "SUPPRESSED", "INCONCLUSIVE", "INVALID", "CONSISTENT WITH NEVER TRAINED",
)  # fmt: skip
"""The words of a verdict in the order in which a reader wants to see them."""
VERDICT_MEANING: Final[dict[VerdictWord, str]] = {
    "INTACT": "The outputs still hold at least half of what base knows.",
    "PARTIAL": "Part of what base knows is still there.",
    "SUPPRESSED": "The model still holds more inside than its outputs say.",
    "CONSISTENT WITH NEVER TRAINED": "No trace was found by tests that find the knowledge in base.",
    "INCONCLUSIVE": "The evidence does not decide.",
    "INVALID": "The suspect is too damaged for its silence to mean anything.",
}  # fmt: skip
NO_RUNG_RATE: Final = (
    "No error rate is known for a verdict that is reached in this way, so no likelihood ratio is given."
)
ERASED: Final[dict[VerdictWord, str]] = {
    "INTACT": "No.",
    "PARTIAL": "No.",
    "SUPPRESSED": "No: what is not said is still inside.",
    "CONSISTENT WITH NEVER TRAINED": "No: no trace was found, and that does not prove erasure.",
    "INCONCLUSIVE": "No: nothing is decided.",
    "INVALID": "No: the silence of a broken model shows nothing.",
}
"""May it be called erased? Never by this report, whatever its word."""


# ---- sentences --------------------------------------------------------------------------------------------------
def title(m: Measurement) -> str:
    """Probe and name in words."""
    mode = "" if m.mode == "controlled" else " (as published)"
    form = m.form.replace("_", " ")
    name = f"{visible(m.probe, NAME)}: {visible(shown_name(m.probe, m.name), NAME)}".replace("_", " ")
    other_form = "" if m.form == "trained" or form in name else f", {form}"
    return f"{name}{other_form}{mode}"


def part(e: Evidence) -> str:
    """What a finding is, in a word with its symbol: an outcome, or why it is none (a gate, context, as published)."""
    if e.measurement.kind == "gate":
        return {"gate_passed": "gate passed", "gate_failed": "gate failed"}.get(e.status, "gate")
    if e.status == "listed":
        return "context" if e.measurement.kind in ("context", "recovery") else "as published"
    word = "below never trained" if e.direction == "below" else e.outcome
    return f"{'▼' if e.direction == 'below' else OUTCOME_SYMBOL[e.outcome]} {word}"


def evidence_sentence(e: Evidence) -> str:
    """One finding in words: what it shows, why, and for every negative what its silence is worth.

    A gate, context or a number in paper mode has no outcome: it is only listed.
    """
    reason = sentence(e.because)
    measured = f"Measured: {visible(e.measurement.statistic, CELL)}."
    if e.status == "listed" or e.measurement.kind == "gate":
        return f"{row_said(e.measurement)} {reason} {measured}".lstrip()
    lead = e.outcome.capitalize()
    if e.direction == "below":
        lead += ", below the never-trained level (over-suppressed)"
    negative = e.outcome in ("no trace found", "inconclusive") and e.basis == "in-case"
    limit = f" {silence_worth(e.measurement)}" if negative else ""
    return f"{lead}. {reason}{limit} {measured}"


def row_said(m: Measurement) -> str:
    """What a measurement says whose value is a row of a table and no number; empty for every other."""
    return sentence(m.notes[0]) if m.unit == "row" and m.notes else ""


def sentence(text: str) -> str:
    """Text from elsewhere as a sentence: visible, capitalised, ended."""
    shown = visible(text).strip()
    if not shown:
        return "No reason is recorded."
    first = shown[0] if shown.startswith(("p:", "p ")) or "_" in shown.split()[0] else shown[0].upper()
    return first + shown[1:] + ("" if shown[-1] in ".!?…" else ".")


def spoken(report: Report, text: str) -> str:
    """Text with the names of this report's probes and measurements in words: ``reverse_patch`` is reverse patch."""
    names = {name for e in report.evidence for name in (e.measurement.probe, e.measurement.name) if "_" in name}
    for name in sorted(names, key=lambda n: (-len(n), n)):
        text = text.replace(name, name.replace("_", " "))
    return text


def best(report: Report, kind: str) -> Evidence | None:
    """The deciding finding of one kind on the rows the verdict reads: a trace first, then the largest judged number.

    Of several gates the lowest decides. A test that is blind here speaks only where no other of its kind does.
    """
    rank = {"trace found": 0, "no trace found": 1, "inconclusive": 2, "not run": 3}

    def order(e: Evidence) -> tuple[bool, int, float]:
        value = judged_reading(e).value
        if isinstance(value, Missing):
            return is_blind(e), rank[e.outcome], math.inf
        return is_blind(e), rank[e.outcome], value if kind == "gate" else -value

    rows = trained_rows(report, kind)
    return min(rows, key=order) if rows else None


def trained_rows(report: Report, kind: str) -> list[Evidence]:
    """The findings of one kind on the rows that the verdict reads."""
    usable = [e for e in report.evidence if e.measurement.mode == "controlled" and e.measurement.form == "trained"]
    return [e for e in usable if e.measurement.kind == kind]


def measured(e: Evidence) -> str:
    """The name by which a verdict names what it was read from: probe and measurement."""
    return f"{e.measurement.probe}.{e.measurement.name}"


def hesitation(e: Evidence) -> str:
    """Why a test that was held against something says neither, in a few words; empty for every other."""
    if e.outcome != "inconclusive" or e.status != "undecided":
        return ""
    if e.basis == "calibrated" and not isinstance(e.threshold, Missing):
        value = judged_reading(e).value
        if isinstance(value, float) and value > e.threshold:
            return "above the line, but its own p is not small enough"
        return "below the line, too weak a support for its silence to count"
    return "no trace, but its interval reaches too high"


def verdict_sentence(report: Report) -> str:
    """The verdict's own sentence without its word, which stands above it; in-case, it says that no rate is known."""
    verdict = report.verdict
    stated = verdict.sentence.removeprefix(f"{verdict.word}: ").removesuffix(NO_RATE)
    text = sentence(spoken(report, stated))
    if verdict.basis == "calibrated":
        return text
    return f"{text} {NO_RUNG_RATE if any(use.status == 'holds' for use in report.calibrations) else NO_RATE}"


def verdict_reason(report: Report) -> str:
    """The verdict's reason in a few words, for a row of a table: which test, and the bar it passed or not."""
    verdict = report.verdict
    if verdict.direction == "below":
        return "below the never-trained level: over-suppressed"
    if verdict.word == "CONSISTENT WITH NEVER TRAINED":
        quiet = [e.measurement for e in report.evidence if e.outcome == "no trace found"]
        internal = [m for m in quiet if m.kind in ("causal", "decoding")]
        rows = [m for m in internal if m.form == "trained" and m.mode == "controlled"]
        ends = [bound.hi for bound in (m.bound for m in rows) if isinstance(bound, Interval)]
        return f"no trace above {number(max(ends))} (base: 1)" if ends else "no trace where base is found"
    kinds = {"INVALID": ("gate",), "INTACT": ("output",), "PARTIAL": ("output",), "SUPPRESSED": ("causal", "decoding")}
    candidates = (best(report, kind) for kind in kinds.get(verdict.word, ()))
    for e in candidates:
        if e is not None and (e.outcome == "trace found" or e.measurement.kind == "gate"):
            return f"{title(e.measurement)}, {_bar(e)}"
    return visible(spoken(report, verdict.because[0])) if verdict.because else VERDICT_MEANING[verdict.word]


def meaning(report: Report) -> str:
    """What the verdict's word means; where the evidence does not decide, the reason with it, never without."""
    word = report.verdict.word
    if word != "INCONCLUSIVE":
        return VERDICT_MEANING[word]
    return f"The evidence does not decide: {undecided(report)}."


def undecided(report: Report) -> str:
    """Why the evidence does not decide, in short: over-suppressed, no common basis, blind, else the first reason."""
    if report.verdict.direction == "below":
        low = [e for e in report.evidence if e.direction == "below" and e.measurement.form == "trained"]
        by = f" by {title(low[0].measurement)} ({number(judged_reading(low[0]).value)})" if low else ""
        below = f"below the level of models that never knew{by}, by more than such models differ"
        return f"the suspect lies {below} (over-suppressed)"
    inside = [e for e in report.evidence if e.measurement.kind in ("causal", "decoding") and e.status != "listed"]
    causal = [e for e in inside if e.measurement.kind == "causal"]
    if causal and all(isinstance(e.measurement.value, Missing) for e in causal):
        return "base cannot read the suspect's states (no common basis)"
    if inside and all(is_blind(e) for e in inside):
        few = [e.measurement for e in inside if too_few(e.measurement)]
        return blindness(few[0]) if few else "every test of the states is blind here"
    first = report.verdict.because[0] if report.verdict.because else "no reason is recorded"
    return visible(spoken(report, first)).rstrip(".")


def _bar(e: Evidence) -> str:
    m = e.measurement
    if m.kind == "gate":
        return f"{number(m.value)} of base"
    reading = judged_reading(e)
    shown = f"{reading.name} {number(reading.value)}"
    if m.kind == "output":
        return shown
    if not isinstance(e.threshold, Missing) and e.basis == "calibrated":
        return f"{shown}, above the calibrated threshold of {number(e.threshold)}"
    if isinstance(m.floor, Missing) or m.floor <= 0 or e.basis == "calibrated":
        return f"{shown}, above what a model that never knew reads"
    return f"{shown}, above the floor of {number(m.floor)}"


def is_control(report: Report) -> bool:
    """Is the suspect base itself? That it holds everything is what its audit was made to show."""
    fingerprints = report.plan.fingerprints
    return bool(fingerprints.get("suspect")) and fingerprints.get("suspect") == fingerprints.get("base")


def worst_first(report: Report) -> tuple[bool, int, str]:
    """Sorts reports: what holds the most comes first, equals by their names; base itself, a control, comes last."""
    return is_control(report), WORST_FIRST.index(report.verdict.word), report.plan.case.name
