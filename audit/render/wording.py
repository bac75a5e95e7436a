"""The sentences of a report: numbers with two significant figures, missing values as words, nothing overstated.

The rules that this module keeps, for every view: a number stands beside what a model that never knew and the model that
knew read; a negative stands beside its detection limit; in-case evidence prints no likelihood ratio and no error rate;
whatever a model or a file name says is hostile text until :func:`visible` has been over it.
"""

import math
import re
import unicodedata
from typing import Final

from audit.findings import Evidence, Interval, Measurement, Number, Outcome, Report, VerdictWord
from audit.nouns import Missing

_RAISED: Final = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")
BANNED: Final = ("proves", "certified", "guarantees", "fully forgotten", "compliant", "passed GDPR", "safe")
"""Words that no view may use of a result (a test greps every view for them)."""

OUTCOME_SYMBOL: Final[dict[Outcome, str]] = {
    "trace found": "▲", "no trace found": "●", "inconclusive": "◆", "not run": "–",
}  # fmt: skip
VERDICT_SYMBOL: Final[dict[VerdictWord, str]] = {
    "INTACT": "■", "PARTIAL": "◧", "SUPPRESSED": "▲", "CONSISTENT WITH NEVER TRAINED": "●", "INCONCLUSIVE": "◆",
    "INVALID": "✕",
}  # fmt: skip
VERDICT_MEANING: Final[dict[VerdictWord, str]] = {
    "INTACT": "The outputs still hold at least half of what base knows.",
    "PARTIAL": "The outputs still hold part of what base knows.",
    "SUPPRESSED": "The outputs keep quiet, but the knowledge is still inside the model.",
    "CONSISTENT WITH NEVER TRAINED": "No trace was found by tests that find the knowledge in base.",
    "INCONCLUSIVE": "The evidence does not decide.",
    "INVALID": "The suspect is too damaged for its silence to mean anything.",
}  # fmt: skip
GONE: Final[dict[VerdictWord, str]] = {
    "INTACT": "No, on this evidence.",
    "PARTIAL": "Not all of it, on this evidence.",
    "SUPPRESSED": "No, on this evidence.",
    "CONSISTENT WITH NEVER TRAINED": "Nothing was found, which is not erasure.",
    "INCONCLUSIVE": "That is not decided.",
    "INVALID": "That cannot be said.",
}
"""The answer to "is it gone?", which the verdict's word then says in its own terms."""
NO_RATE: Final = "No error rate is known for models of this kind, so no likelihood ratio is given."
PROSE, CELL, NAME = 1200, 240, 80
"""Caps in characters for a paragraph, a table cell and a name."""


# ---- text that came from elsewhere ------------------------------------------------------------------------------
def visible(text: str, cap: int = PROSE) -> str:
    """Hostile text made harmless to read: control, bidirectional and invisible characters shown, length capped.

    Markup is not touched: escaping is the business of the view that knows its own syntax.
    """
    head = text[:cap]
    shown = head if head.isascii() and head.isprintable() else "".join(_seen(c) for c in head)
    return shown if len(text) <= cap else f"{shown} … {len(text) - cap} more characters"


def _seen(c: str) -> str:
    hidden = unicodedata.category(c) in ("Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp")
    selector = "\ufe00" <= c <= "\ufe0f" or "\U000e0100" <= c <= "\U000e01ef"
    return f"‹U+{ord(c):04X}›" if hidden or selector else c


# ---- numbers ----------------------------------------------------------------------------------------------------
def number(value: Number) -> str:
    """Two significant figures with a true minus sign; a missing value is the word 'missing' with its reason."""
    if isinstance(value, Missing):
        return f"missing ({visible(value.missing, CELL)})"
    if value == 0:
        return "0"
    mantissa, exponent = f"{abs(value):.1e}".split("e")
    power = int(exponent)
    if power < -4 or power > 5:
        shown = f"{mantissa}×10{str(power).translate(_RAISED)}"
    else:
        shown = f"{float(f'{abs(value):.1e}'):.{max(0, 1 - power)}f}"
    return f"−{shown}" if value < 0 else shown


def interval(ci95: Interval | Missing) -> str:
    """Both ends of a 95 % interval, or why there is none."""
    if isinstance(ci95, Missing):
        return f"no interval ({visible(ci95.missing, CELL)})"
    joint = "–" if ci95.lo >= 0 else " to "
    return f"{number(ci95.lo)}{joint}{number(ci95.hi)}"


def bounds(m: Measurement) -> str:
    """The interval of a measurement; the reason why there is none is not told twice."""
    return "missing" if isinstance(m.ci95, Missing) and m.ci95 == m.value else interval(m.ci95)


def bounds_told(e: Evidence) -> str:
    """The interval of a finding; of a silent family of layers also the end that the silence rests on."""
    m, bound = e.measurement, bounding(e.measurement)
    if e.outcome != "no trace found" or not m.curves or isinstance(m.overall, Missing) or isinstance(bound, Missing):
        return bounds(m)
    return f"{bounds(m)}, over all layers up to {number(bound.hi)}"


def unit(text: str) -> str:
    """A unit without what its author explains in brackets."""
    return visible(text.partition(" (")[0], NAME)


def p_value(value: Number) -> str:
    """``p = 0.0012``, or why there is none."""
    if isinstance(value, Missing):
        return f"no p ({visible(value.missing, CELL)})"
    return "p < 0.0001" if value < 1e-4 else f"p = {number(value)}"


def units(m: Measurement) -> str:
    """How many units of replication stand behind a number: ``16 people``."""
    if m.units == 0:
        return "not over units"
    plural = {"person": "people", "world": "worlds", "model": "models", "author": "authors", "document": "documents"}
    word = plural.get(m.unit_of_replication, m.unit_of_replication) if m.units != 1 else m.unit_of_replication
    return f"{m.units} {visible(word, NAME)}"


def size(size_bytes: int) -> str:
    """Bytes in the largest unit that leaves at least one."""
    value, unit = float(size_bytes), "B"
    for larger in ("KB", "MB", "GB", "TB"):
        if value < 1000:
            break
        value, unit = value / 1000, larger
    return f"{size_bytes} B" if unit == "B" else f"{value:.1f} {unit}"


# ---- sentences --------------------------------------------------------------------------------------------------
def title(m: Measurement) -> str:
    """Probe and name in words."""
    mode = "" if m.mode == "controlled" else " (as published)"
    form = m.form.replace("_", " ")
    name = f"{visible(m.probe, NAME)}: {visible(m.name, NAME)}".replace("_", " ")
    other_form = "" if m.form == "trained" or form in name else f", {form}"
    return f"{name}{other_form}{mode}"


def bounding(m: Measurement) -> Interval | Missing:
    """The interval that bounds what may be left: of the overall effect where there is a family of layers."""
    return m.ci95 if isinstance(m.overall, Missing) else m.overall.ci95


def detection_limit(m: Measurement) -> str:
    """What a silence of this test is worth: the size that the interval still allows, and whether base was found."""
    if isinstance(m.positive_control, Missing):
        return f"Detection limit unknown: no positive control ({visible(m.positive_control.missing, CELL)})."
    control = number(m.positive_control.value)
    if not m.positive_control.found:
        return f"Blind here: the positive control, base, reads {control} and was not found; silence means nothing."
    bound = bounding(m)
    if isinstance(bound, Missing):
        return f"Detection limit unknown: no interval; the positive control, base, reads {control}."
    over = " over all layers" if m.curves and not isinstance(m.overall, Missing) else ""
    return (
        f"Detection limit: the 95 % interval still allows {number(bound.hi)}{over}; "
        f"the positive control, base, reads {control} and was found."
    )


def part(e: Evidence) -> str:
    """What a finding is, in a word with its symbol: an outcome, or why it is none (a gate, context, as published)."""
    if e.measurement.kind == "gate":
        word = e.because.partition(":")[0]
        return word if word in ("gate passed", "gate failed") else "gate"
    if e.measurement.kind in ("context", "recovery") and e.basis == "in-case":
        return "context"
    if e.measurement.mode == "paper":
        return "as published"
    word = "below never trained" if e.direction == "below" else e.outcome
    return f"{'▼' if e.direction == 'below' else OUTCOME_SYMBOL[e.outcome]} {word}"


def evidence_sentence(e: Evidence) -> str:
    """One finding in words: what it shows, why, and for every negative its detection limit.

    A gate, context or a number in paper mode has no outcome: it is only listed.
    """
    reason = sentence(e.because)
    measured = f"Measured: {visible(e.measurement.statistic, CELL)}."
    listed = e.basis == "in-case" and e.measurement.kind in ("context", "recovery")
    if listed or e.measurement.kind == "gate" or e.measurement.mode == "paper":
        return f"{reason} {measured}"
    lead = e.outcome.capitalize()
    if e.direction == "below":
        lead += ", below the never-trained level (over-suppressed)"
    negative = e.outcome in ("no trace found", "inconclusive") and e.basis == "in-case"
    limit = f" {detection_limit(e.measurement)}" if negative else ""
    return f"{lead}. {reason}{limit} {measured}"


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


def moment(text: str) -> str:
    """A UTC time as people write it; any other text as it is."""
    shown = visible(text, NAME)
    match = re.fullmatch(r"(\d{4}-\d\d-\d\d)T(\d\d:\d\d):\d\d(?:\.\d+)?(?:Z|\+00:00)", shown)
    return f"{match[1]}, {match[2]} UTC" if match else shown


def best(report: Report, kind: str) -> Evidence | None:
    """The deciding finding of one kind on the rows the verdict reads: a trace first, then the largest value.

    Of several gates the lowest decides.
    """
    rank = {"trace found": 0, "no trace found": 1, "inconclusive": 2, "not run": 3}

    def order(e: Evidence) -> tuple[int, float]:
        value = e.measurement.value
        if isinstance(value, Missing):
            return rank[e.outcome], math.inf
        return rank[e.outcome], value if kind == "gate" else -value

    usable = [e for e in report.evidence if e.measurement.mode == "controlled" and e.measurement.form == "trained"]
    rows = [e for e in usable if e.measurement.kind == kind]
    return min(rows, key=order) if rows else None


def verdict_sentence(report: Report) -> str:
    """The verdict's own sentence without its word, which stands above it; in-case, it says that no rate is known."""
    verdict = report.verdict
    text = sentence(spoken(report, verdict.sentence.removeprefix(f"{verdict.word}: ")))
    return text if verdict.basis == "calibrated" or "likelihood ratio" in text else f"{text} {NO_RATE}"


def layer(m: Measurement) -> str:
    """The layer at which a causal value was read: as the probe says, else where the suspect's curve has that value."""
    stated = next((v for k, v in m.readings.items() if k.startswith("layer")), None)
    if stated is not None:
        return f"{stated:g}"
    curve = next((c for c in m.curves if c.role == "suspect" and c.axis == "layer" and c.x), None)
    if curve is None or isinstance(m.value, Missing):
        return ""
    value = m.value
    return f"{min(zip(curve.x, curve.y, strict=True), key=lambda point: abs(point[1] - value))[0]:g}"


def verdict_reason(report: Report) -> str:
    """The verdict's reason in a few words, for a row of a table: which test, and the bar it passed or not."""
    verdict = report.verdict
    if verdict.direction == "below":
        return "below the never-trained level: over-suppressed"
    if verdict.word == "CONSISTENT WITH NEVER TRAINED":
        quiet = [e.measurement for e in report.evidence if e.outcome == "no trace found"]
        internal = [m for m in quiet if m.kind in ("causal", "decoding")]
        rows = [m for m in internal if m.form == "trained" and m.mode == "controlled"]
        ends = [bound.hi for bound in map(bounding, rows) if isinstance(bound, Interval)]
        return f"silent down to {number(max(ends))} where base is found" if ends else "silent where base is found"
    kinds = {"INVALID": ("gate",), "INTACT": ("output",), "PARTIAL": ("output",), "SUPPRESSED": ("causal", "decoding")}
    candidates = (best(report, kind) for kind in kinds.get(verdict.word, ()))
    for e in candidates:
        if e is not None and (e.outcome == "trace found" or e.measurement.kind == "gate"):
            return f"{title(e.measurement)}, {_bar(e)}"
    return visible(spoken(report, verdict.because[0]), 110) if verdict.because else VERDICT_MEANING[verdict.word]


def _bar(e: Evidence) -> str:
    m = e.measurement
    if m.kind == "gate":
        return f"{number(m.value)} of base"
    if m.kind == "output":
        return f"effect {number(m.value)}"
    if isinstance(m.floor, Missing) or m.floor <= 0:
        return "above what a model that never knew reads"
    return f"above the floor of {number(m.floor)}"
