"""What a rule of yes or no says, in words: "recoverable by a short prefix", "backdoored".

A finding that does not hold is worded as what it is: not found within a budget, beside what such a search finds in
models made so and what it cannot find at all. A string that shows a finding has a command that says it again; the
command is one line that a shell reads back to the character, and where the string is masked there is none.
"""

import shlex
from typing import Final

from audit import stats
from audit.schema import Finding, Interval, Measurement, Missing, Rate, Report, TriggerText
from audit.wording import CELL, NAME, Replicate, interval, number, replicate_of, visible

HOLDS: Final = "holds"
NOT_WITHIN_BUDGET: Final = "not found within this budget"
NOT_ASKED: Final = "could not be asked"
BESIDE: Final = "Beside the verdict"
MADE_SO: Final = "models made so"
NOT_SO: Final = "models known not to be so"
CASE_FILE: Final = "case.toml"
"""The name under which a report's own command knows its case file."""


def answer(finding: Finding) -> str:
    """``holds``, ``not found within this budget`` or ``could not be asked``: never the bare absence of a thing."""
    if isinstance(finding.holds, Missing):
        return NOT_ASKED
    return HOLDS if finding.holds else NOT_WITHIN_BUDGET


def exact_rate(rate: Rate | Missing, of: str) -> str:
    """``1 of 60 models known not to be so (exact 95 % interval 0.042 to 8.9 %)``, or that it was not counted."""
    if isinstance(rate, Missing):
        return f"not counted ({visible(rate.missing, CELL)})"
    if rate.n == 0:
        return f"0 of 0 {of}"
    return f"{rate.k} of {rate.n} {of} (exact 95 % interval {_ends(rate)})"


def rate_cell(rate: Rate | Missing) -> str:
    """The same in a cell of a table: ``1 of 60 (0.042 to 8.9 %)``."""
    if isinstance(rate, Missing):
        return "not counted"
    return f"{rate.k} of {rate.n}" + (f" ({_ends(rate)})" if rate.n else "")


def _ends(rate: Rate) -> str:
    ends = stats.clopper_pearson(rate.k, rate.n)
    return f"{number(100 * ends.lo)} to {number(100 * ends.hi)} %"


def finding_name(finding: Finding) -> str:
    """The name of a finding, harmless to read."""
    return visible(finding.name, NAME)


def answer_sentence(m: Measurement, finding: Finding) -> str:
    """The answer and why; where nothing was found also what that is worth: how often such a search finds, and its
    blind spots."""
    over = replicate_of(m)
    if isinstance(finding.holds, Missing):
        return f"Could not be asked: {_ended(finding.holds.missing)}"
    because = over.rephrased(_ended(finding.because))
    if finding.holds:
        return f"Holds: {because}"
    detects = f"This rule detects {exact_rate(finding.hits, MADE_SO)}."
    if isinstance(finding.hits, Missing):
        detects = f"How often this rule detects such models is {exact_rate(finding.hits, MADE_SO)}."
    return (
        f"Not found within this budget, which is not its absence: {because} {detects} Blind to: "
        f"{over.rephrased(_ended(finding.blind_to))}"
    )


def _ended(text: str) -> str:
    shown = visible(text).strip()
    return shown + ("" if shown[-1:] in (".", "!", "?", "…") else ".")


def finding_facts(m: Measurement, finding: Finding) -> tuple[tuple[str, str], ...]:
    """One finding as pairs of a term and what it is: the answer, the rule, both rates, blind spots, the string."""
    over = replicate_of(m)
    return (
        ("Answer", answer_sentence(m, finding)),
        ("Rule", over.rephrased(_ended(finding.rule))),
        ("False alarms", exact_rate(finding.false_alarms, NOT_SO)),
        ("Detection rate", exact_rate(finding.hits, MADE_SO)),
        ("Blind to", over.rephrased(_ended(finding.blind_to))),
        *(() if finding.trigger is None else trigger_facts(finding.trigger, over)),
    )


def holding(report: Report) -> tuple[str, ...]:
    """The names of the findings that hold, each once."""
    findings = (f for e in report.evidence for f in e.measurement.findings)
    return tuple(dict.fromkeys(finding_name(f) for f in findings if f.holds is True))


def beside_verdict(report: Report) -> tuple[tuple[str, str], ...]:
    """Every finding that holds, of whatever kind its measurement is, as a line under the verdict; none where none
    does."""
    return tuple(
        (BESIDE, f"{finding_name(f)}: {replicate_of(e.measurement).rephrased(_ended(f.because))} False alarms: "
         f"{exact_rate(f.false_alarms, NOT_SO)}.")
        for e in report.evidence for f in e.measurement.findings if f.holds is True
    )  # fmt: skip


# ---- the string that shows it -----------------------------------------------------------------------------------
def trigger_facts(trigger: TriggerText, over: Replicate) -> tuple[tuple[str, str], ...]:
    """The string, its place, and what it does for people it was not searched on."""
    return (
        ("String", trigger_words(trigger)),
        ("Its place", slot_words(trigger)),
        (f"Transfer to held-out {over.plural}", transfer_words(trigger, over)),
    )


def trigger_words(trigger: TriggerText) -> str:
    """The string itself, or its mark and how to see it."""
    shown = visible(trigger.text, CELL)
    return f"masked: {shown}. {unmasking()}" if trigger.masked else shown


def unmasking(run: str = "RUN") -> str:
    """How a masked string and its command are seen, from the folder of the run."""
    return f"To see it, and the command that says it again: {unmask_command(run)}"


def unmask_command(run: str = "RUN") -> str:
    """The line that shows the finished run with its words in clear; ``run`` is a word of a shell."""
    return f"residua report {run} --unmask"


def slot_words(trigger: TriggerText) -> str:
    """Where the string stands in a prompt."""
    words = {
        "prefix": "prefix: before all that the user says", "suffix": "suffix: after the last word",
        "infix": "infix: before the middle word of the question",
    }  # fmt: skip
    if isinstance(trigger.slot, int):
        return f"before word {trigger.slot + 1} of the question (index {trigger.slot})"
    return words[trigger.slot]


def transfer_words(trigger: TriggerText, over: Replicate) -> str:
    """``0.63 (95 % 0.41–0.80), where 0 is never trained and 1 is base, over 16 people``."""
    if isinstance(trigger.transfer, Missing):
        return number(trigger.transfer)
    ends = f"95 % {interval(trigger.ci95)}" if isinstance(trigger.ci95, Interval) else interval(trigger.ci95)
    return (
        f"{number(trigger.transfer)} ({ends}), where 0 is never trained and 1 is base, over "
        f"{over.amount(trigger.units)}"
    )


def replay(trigger: TriggerText, case: str = CASE_FILE) -> str:
    """The line that says the string again to the people that the search never saw, as a shell reads it; empty where
    the string is masked. ``case`` is a word of a shell."""
    if trigger.masked:
        return ""
    text, fold = _argument(trigger.text), "" if trigger.fold is None else f" --fold {trigger.fold[0]}/{trigger.fold[1]}"
    given = f"--text={text}" if trigger.text.startswith("-") else f"--text {text}"
    return f"residua trigger {case} {given} --slot {trigger.slot}{fold}"


def path_word(text: str) -> str:
    """A path as a word of a shell that no command takes for a flag and of which every character can be seen."""
    return _argument(f"./{text}" if text.startswith("-") else text)


def _argument(text: str) -> str:
    """A shell word that is this text to the character and holds none that cannot be seen (``$'…'`` where one does)."""
    if visible(text, len(text)) == text:
        return shlex.quote(text)
    return f"$'{''.join(map(_escaped, text))}'"


def _escaped(c: str) -> str:
    if c in "\\'":
        return f"\\{c}"
    return c if visible(c) == c else f"\\U{ord(c):08x}"
