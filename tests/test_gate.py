"""Which exit code a report earns: decided or not, complete or not, stopped by a gate or not."""

import pytest

from audit.findings import Failure, Report, Skip
from audit.gate import complete, exit_code, parse_gate
from audit.nouns import AuditError, ExitCode
from tests import golden


def with_trace(p: float, direction: str = "above") -> Report:
    """A decided report whose only trace has this p."""
    report = golden.report("consistent")
    found = report.evidence[3]
    measurement = found.measurement.model_copy(update={"p": p})
    trace = found.model_copy(update={"measurement": measurement, "outcome": "trace found", "direction": direction})
    return report.model_copy(update={"evidence": (*report.evidence[:3], trace, *report.evidence[4:])})


@pytest.mark.parametrize("text", ["", "some", "p", "p=", "p=x", "p=0", "p=-1", "lr=", "any=1", "q=0.1", "p=nan"])
def test_what_is_no_gate_is_refused(text: str) -> None:
    with pytest.raises(AuditError, match="is no gate") as caught:
        parse_gate(text)
    assert caught.value.code == ExitCode.INPUT


@pytest.mark.parametrize(
    ("gate", "p", "code"),
    [
        ("any", 0.5, ExitCode.GATE), ("p=0.01", 0.01, ExitCode.GATE), ("p=0.01", 0.009, ExitCode.GATE),
        ("p=0.01", 0.011, ExitCode.OK), ("lr=10", 0.001, ExitCode.UNDECIDED),
    ],
)  # fmt: skip
def test_a_gate_stops_a_trace_that_reaches_it(gate: str, p: float, code: int) -> None:
    assert exit_code(with_trace(p), parse_gate(gate)) == code
    assert exit_code(with_trace(p)) == ExitCode.OK


def test_a_reading_below_never_trained_is_no_trace_to_a_gate() -> None:
    assert exit_code(with_trace(0.001, "below"), parse_gate("any")) == ExitCode.OK


def test_an_in_case_report_cannot_pass_a_gate_on_likelihood_ratios_even_if_undecided_is_allowed() -> None:
    assert exit_code(with_trace(0.001), parse_gate("lr=10"), allow_undecided=True) == ExitCode.UNDECIDED


@pytest.mark.parametrize("variant", ["inconclusive", "invalid"])
def test_an_undecided_report_is_code_4_unless_that_is_allowed(variant: golden.Variant) -> None:
    report = golden.report(variant)
    assert exit_code(report) == ExitCode.UNDECIDED
    assert exit_code(report, allow_undecided=True) == ExitCode.OK


def test_a_planned_test_that_left_no_numbers_leaves_the_audit_undecided() -> None:
    whole = golden.report("consistent")
    skip = Skip(probe="utility", reason="r", consequence="c")
    failure = Failure(probe="utility", error="e", error_id="i")
    unplanned = Skip(probe="relearn", reason="r", consequence="c")
    assert complete(whole) and exit_code(whole) == ExitCode.OK
    assert complete(whole.model_copy(update={"skips": (unplanned,)})), "it was never to run"
    for missing in ({"skips": (skip,)}, {"failures": (failure,)}):
        report = whole.model_copy(update=missing)
        assert not complete(report) and exit_code(report) == ExitCode.UNDECIDED
        assert exit_code(report, allow_undecided=True) == ExitCode.OK


def test_a_trace_fails_the_gate_also_where_the_audit_is_undecided() -> None:
    report = with_trace(0.001)
    undecided = report.model_copy(update={"verdict": report.verdict.model_copy(update={"word": "INCONCLUSIVE"})})
    assert exit_code(undecided, parse_gate("any"), allow_undecided=True) == ExitCode.GATE
