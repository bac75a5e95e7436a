"""Which exit code a finished report earns: decided, undecided, or stopped by the gate that the caller asked for.

A gate changes the exit code and never what is reported.
"""

from typing import Literal, NamedTuple

from audit.review.comparability import refusal
from audit.schema import AuditError, Evidence, ExitCode, Missing, Report

MEANINGS = (
    (
        ExitCode.OK,
        "a verdict was reached and the gate, if any, passed; `demo`: every audit finished; `compare`: always",
    ),
    (
        ExitCode.GATE,
        "gate failed: a trace at or above --fail-on (with --baseline: one that the baseline has not), "
        "or the finding that it names holds",
    ),
    (
        ExitCode.INPUT,
        "input: missing folder, unknown key, other architecture or tokenizer, pickle, remote code, bad data",
    ),
    (ExitCode.INTEGRITY, "integrity or tool: fingerprint mismatch, truncated or NaN weights, disk, crash"),
    (
        ExitCode.UNDECIDED,
        "INCONCLUSIVE, INVALID, base does not recall (blind here), a planned test is missing, or the gate cannot be "
        "decided (lr= without a likelihood ratio, finding= of a rule that was not asked, "
        "--min-power not reached, tests dropped by --max-time or --max-mem)",
    ),
    (ExitCode.INTERRUPTED, "interrupted (Ctrl-C); finished units are kept, the same command resumes"),
)


class Threshold(NamedTuple):
    """What fails a run: any trace, a trace with p at most ``bound``, a likelihood ratio of at least ``bound``, or a
    ``finding`` of this name that holds."""

    kind: Literal["any", "p", "lr", "finding"]
    bound: float = 0.0
    finding: str = ""


class Gate(NamedTuple):
    """What the caller asks of a report. ``min_power``: the least power, in models of known truth, behind a clean
    verdict's detection limit. ``baseline``: a report whose traces are known and fail no more."""

    fail_on: Threshold | None = None
    min_power: float | None = None
    baseline: Report | None = None
    allow_undecided: bool = False

    @property
    def is_set(self) -> bool:
        """Is there anything that a report could fail?"""
        return self.fail_on is not None or self.min_power is not None


NO_GATE = Gate()


def parse_threshold(text: str) -> Threshold:
    """``any``, ``p=0.01``, ``lr=10`` or ``finding=backdoored``. AuditError (code 2) for anything else."""
    kind, _, bound = text.partition("=")
    if kind == "finding" and bound.strip():
        return Threshold("finding", finding=bound.strip())
    try:
        if kind in ("p", "lr") and float(bound) > 0:
            return Threshold("p" if kind == "p" else "lr", float(bound))
    except ValueError:
        pass
    if text == "any":
        return Threshold("any")
    raise AuditError(f"--fail-on {text!r} is no gate", "give any, p=0.01, lr=10 or finding=NAME")


def complete(report: Report) -> bool:
    """Did every test that the plan said would run leave its numbers, if models of this family have what it looks at?"""
    planned = {test.probe for test in report.plan.tests if test.will_run}
    return not report.failures and not planned & {skip.probe for skip in report.skips if not skip.absent}


def exit_code(report: Report, gate: Gate = NO_GATE) -> int:
    """The process exit code. AuditError (code 2) where the baseline is of another case.

    An in-case report states no likelihood ratio, so an ``lr`` gate cannot be decided on it; nor can any gate be passed
    by an audit that left tests out, or by a clean verdict that would have missed what it was asked to find.
    """
    if gate.baseline is not None and (reason := refusal(gate.baseline, report)):
        raise AuditError(
            f"the baseline cannot be compared with this report: {reason}", "give a baseline of the same case"
        )
    if gate.fail_on is not None and _stopped(report, gate.fail_on, gate.baseline):
        return ExitCode.GATE
    if gate.fail_on is not None and gate.fail_on.kind == "lr" and isinstance(report.verdict.ratio, Missing):
        return ExitCode.UNDECIDED
    if gate.fail_on is not None and gate.fail_on.kind == "finding" and not _asked(report, gate.fail_on.finding):
        return ExitCode.UNDECIDED
    if gate.min_power is not None and _unseen(report, gate.min_power):
        return ExitCode.UNDECIDED
    undecided = report.verdict.word in ("INCONCLUSIVE", "INVALID") or not complete(report)
    shrunk = gate.is_set and any(test.dropped_by for test in report.plan.tests)
    return ExitCode.UNDECIDED if (undecided or shrunk) and not gate.allow_undecided else ExitCode.OK


def _traces(report: Report) -> list[Evidence]:
    return [e for e in report.evidence if e.outcome == "trace found" and e.direction == "above"]


def _stopped(report: Report, threshold: Threshold, baseline: Report | None) -> bool:
    """Is there a trace that reaches the threshold, and that the baseline does not reach as well?"""
    if threshold.kind == "lr":
        known = baseline is not None and _stopped(baseline, threshold, None)
        ratio = report.verdict.ratio
        return not known and not isinstance(ratio, Missing) and ratio.value >= threshold.bound
    if threshold.kind == "finding":
        known = baseline is not None and _stopped(baseline, threshold, None)
        return not known and any(holds is True for holds in _answers(report, threshold.finding))
    known = set[tuple[str, str]]() if baseline is None else _reaching(baseline, threshold)
    return bool(_reaching(report, threshold) - known)


def _answers(report: Report, name: str) -> list[bool | Missing]:
    """What every rule of this name says."""
    return [f.holds for e in report.evidence for f in e.measurement.findings if f.name == name]


def _asked(report: Report, name: str) -> bool:
    """Was the rule asked here, and everywhere it stands?"""
    answers = _answers(report, name)
    return bool(answers) and not any(isinstance(holds, Missing) for holds in answers)


def _reaching(report: Report, threshold: Threshold) -> set[tuple[str, str]]:
    """Probe and name of every trace that reaches a threshold."""
    traces: set[tuple[str, str]] = set()
    for m in (e.measurement for e in _traces(report)):
        if threshold.kind == "any" or (not isinstance(m.p, Missing) and m.p <= threshold.bound):
            traces.add((m.probe, m.name))
    return traces


def _unseen(report: Report, power: float) -> bool:
    """Is the verdict clean without a detection limit that was found with this power?"""
    if report.verdict.word != "CONSISTENT WITH NEVER TRAINED":
        return False
    ratio = report.verdict.ratio
    limit = ratio if isinstance(ratio, Missing) else ratio.limit
    return isinstance(limit, Missing) or limit.k / limit.n < power
