"""Which exit code a finished report earns: decided, undecided, or stopped by the gate that the caller asked for."""

from typing import Literal, NamedTuple

from audit.findings import Report
from audit.nouns import AuditError, ExitCode, Missing

MEANINGS = (
    (ExitCode.OK, "a verdict was reached and the gate, if any, passed; `demo`: every audit finished"),
    (ExitCode.GATE, "gate failed: a trace at or above --fail-on"),
    (
        ExitCode.INPUT,
        "input: missing folder, unknown key, other architecture or tokenizer, pickle, remote code, bad data",
    ),
    (ExitCode.INTEGRITY, "integrity or tool: fingerprint mismatch, truncated or NaN weights, disk, crash"),
    (ExitCode.UNDECIDED, "INCONCLUSIVE, INVALID, base does not recall (blind here), or a planned test is missing"),
    (ExitCode.INTERRUPTED, "interrupted (Ctrl-C); finished units are kept, the same command resumes"),
)


class Gate(NamedTuple):
    """What fails a run: any trace, a trace with p at most ``bound``, or a likelihood ratio of at least ``bound``."""

    kind: Literal["any", "p", "lr"]
    bound: float = 0.0


def parse_gate(text: str) -> Gate:
    """``any``, ``p=0.01`` or ``lr=10``. AuditError (code 2) for anything else."""
    kind, _, bound = text.partition("=")
    try:
        if kind in ("p", "lr") and float(bound) > 0:
            return Gate("p" if kind == "p" else "lr", float(bound))
    except ValueError:
        pass
    if text == "any":
        return Gate("any")
    raise AuditError(f"--fail-on {text!r} is no gate", "give any, p=0.01 or lr=10")


def _stopped(report: Report, gate: Gate) -> bool:
    traces = [e for e in report.evidence if e.outcome == "trace found" and e.direction == "above"]
    if gate.kind == "any":
        return bool(traces)
    if gate.kind == "lr":
        ratio = report.verdict.ratio
        return not isinstance(ratio, Missing) and ratio.value >= gate.bound
    p_values = [e.measurement.p for e in traces]
    return any(not isinstance(p, Missing) and p <= gate.bound for p in p_values)


def complete(report: Report) -> bool:
    """Did every test that the plan said would run leave its numbers?"""
    planned = {test.probe for test in report.plan.tests if test.will_run}
    return not report.failures and not planned & {skip.probe for skip in report.skips}


def exit_code(report: Report, gate: Gate | None = None, allow_undecided: bool = False) -> int:
    """The process exit code. The gate changes the code, never what is reported.

    An in-case report states no likelihood ratio, so an ``lr`` gate cannot be decided on it.
    """
    if gate is not None and _stopped(report, gate):
        return ExitCode.GATE
    unratioed = gate is not None and gate.kind == "lr" and isinstance(report.verdict.ratio, Missing)
    undecided = report.verdict.word in ("INCONCLUSIVE", "INVALID") or not complete(report)
    if unratioed or (undecided and not allow_undecided):
        return ExitCode.UNDECIDED
    return ExitCode.OK
