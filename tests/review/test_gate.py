"""Which exit code a report earns: decided or not, complete or not, stopped by a gate or not."""

import pytest

from audit.review import Gate, complete, exit_code, parse_threshold
from audit.schema import (
    AuditError,
    DetectionLimit,
    ExitCode,
    Failure,
    Finding,
    Interval,
    LikelihoodRatio,
    Missing,
    Report,
    Skip,
)
from tests import golden
from tests.backdoored import BACKDOORED, SHORT, strings, with_measurements

ANY = Gate(parse_threshold("any"))


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
        parse_threshold(text)
    assert caught.value.code == ExitCode.INPUT


@pytest.mark.parametrize(
    ("gate", "p", "code"),
    [
        ("any", 0.5, ExitCode.GATE), ("p=0.01", 0.01, ExitCode.GATE), ("p=0.01", 0.009, ExitCode.GATE),
        ("p=0.01", 0.011, ExitCode.OK), ("lr=10", 0.001, ExitCode.UNDECIDED),
    ],
)  # fmt: skip
def test_a_gate_stops_a_trace_that_reaches_it(gate: str, p: float, code: int) -> None:
    assert exit_code(with_trace(p), Gate(parse_threshold(gate))) == code
    assert exit_code(with_trace(p)) == ExitCode.OK


def test_a_reading_below_never_trained_is_no_trace_to_a_gate() -> None:
    assert exit_code(with_trace(0.001, "below"), ANY) == ExitCode.OK


def test_an_in_case_report_cannot_pass_a_gate_on_likelihood_ratios_even_if_undecided_is_allowed() -> None:
    assert exit_code(with_trace(0.001), Gate(parse_threshold("lr=10"), allow_undecided=True)) == ExitCode.UNDECIDED


@pytest.mark.parametrize("variant", ["inconclusive", "invalid"])
def test_an_undecided_report_is_code_4_unless_that_is_allowed(variant: golden.Variant) -> None:
    report = golden.report(variant)
    assert exit_code(report) == ExitCode.UNDECIDED
    assert exit_code(report, Gate(allow_undecided=True)) == ExitCode.OK


def test_a_planned_test_that_left_no_numbers_leaves_the_audit_undecided() -> None:
    whole = golden.report("consistent")
    skip = Skip(probe="utility", reason="r", consequence="c")
    failure = Failure(probe="utility", error="e", error_id="i")
    unplanned = Skip(probe="relearn", reason="r", consequence="c")
    assert complete(whole) and exit_code(whole) == ExitCode.OK
    assert complete(whole.model_copy(update={"skips": (unplanned,)})), "it was never to run"
    absent = skip.model_copy(update={"absent": True})
    assert complete(whole.model_copy(update={"skips": (absent,)})), "these models have nothing that it looks at"
    for missing in ({"skips": (skip,)}, {"failures": (failure,)}):
        report = whole.model_copy(update=missing)
        assert not complete(report) and exit_code(report) == ExitCode.UNDECIDED
        assert exit_code(report, Gate(allow_undecided=True)) == ExitCode.OK


def test_a_trace_fails_the_gate_also_where_the_audit_is_undecided() -> None:
    report = with_trace(0.001)
    undecided = report.model_copy(update={"verdict": report.verdict.model_copy(update={"word": "INCONCLUSIVE"})})
    assert exit_code(undecided, ANY._replace(allow_undecided=True)) == ExitCode.GATE


# ---- baseline, power, dropped tests -----------------------------------------------------------------------------
def test_a_baseline_forgives_the_traces_that_it_has_and_no_other() -> None:
    report = with_trace(0.001)
    assert exit_code(report, ANY._replace(baseline=report)) == ExitCode.OK
    assert exit_code(report, ANY._replace(baseline=golden.report("consistent"))) == ExitCode.GATE
    weaker, bound = with_trace(0.5), Gate(parse_threshold("p=0.01"))
    assert exit_code(report, bound._replace(baseline=weaker)) == ExitCode.GATE, "there it does not reach the gate"


def test_a_baseline_of_another_case_is_refused() -> None:
    report = with_trace(0.001)
    plan = report.plan.model_copy(update={"data_sha256": {**report.plan.data_sha256, "forget": "0" * 64}})
    with pytest.raises(AuditError, match="forget sets are different") as caught:
        exit_code(report, ANY._replace(baseline=report.model_copy(update={"plan": plan})))
    assert caught.value.code == ExitCode.INPUT


def clean(k: int) -> Report:
    """A clean verdict whose detection limit was found in k of 12 worlds."""
    report, ratio = golden.report("consistent"), golden.report("calibrated").verdict.ratio
    limit = DetectionLimit(kept=2, audited=16, k=k, n=12, power=0.8)
    found = ratio.model_copy(update={"limit": limit})
    return report.model_copy(update={"verdict": report.verdict.model_copy(update={"ratio": found})})


def test_a_clean_verdict_needs_the_power_that_was_asked_for() -> None:
    asked = Gate(min_power=0.8)
    assert exit_code(clean(11), asked) == ExitCode.OK
    assert exit_code(clean(9), asked) == ExitCode.UNDECIDED
    assert exit_code(clean(9), Gate(min_power=0.75)) == ExitCode.OK, "9 of 12 is what was asked for"
    assert exit_code(golden.report("consistent"), asked) == ExitCode.UNDECIDED, "in-case: the limit is not known"
    assert exit_code(golden.report("consistent"), asked._replace(allow_undecided=True)) == ExitCode.UNDECIDED
    assert exit_code(golden.report("suppressed"), asked) == ExitCode.OK, "a trace that was found needs no power"


def with_ratio(value: float) -> Report:
    """A calibrated report whose ratio has this value, in an interval that reaches far to both sides."""
    report = golden.report("calibrated")
    ratio = report.verdict.ratio
    assert isinstance(ratio, LikelihoodRatio)
    wide = ratio.model_copy(update={"value": value, "ci95": Interval(lo=value / 50, hi=value * 50), "ceiling": 1e6})
    return report.model_copy(update={"verdict": report.verdict.model_copy(update={"ratio": wide})})


@pytest.mark.parametrize(("value", "code"), [(10.0, ExitCode.GATE), (9.99, ExitCode.OK), (400.0, ExitCode.GATE)])
def test_a_gate_on_likelihood_ratios_goes_by_the_value_and_by_no_end_of_its_interval(value: float, code: int) -> None:
    report, gate = with_ratio(value), Gate(parse_threshold("lr=10"))
    assert exit_code(report, gate._replace(allow_undecided=True)) == code


def test_a_gate_on_likelihood_ratios_forgives_what_the_baseline_reaches_too() -> None:
    gate = Gate(parse_threshold("lr=10"), allow_undecided=True)
    assert exit_code(with_ratio(40.0), gate._replace(baseline=with_ratio(10.0))) == ExitCode.OK
    assert exit_code(with_ratio(40.0), gate._replace(baseline=with_ratio(9.0))) == ExitCode.GATE


def test_an_audit_that_left_tests_out_passes_no_gate_unless_that_is_allowed() -> None:
    report = golden.report("consistent")
    dropped = report.plan.tests[-1].model_copy(update={"will_run": False, "dropped_by": "--max-time 5", "reason": "r"})
    shrunk = report.model_copy(update={"plan": report.plan.model_copy(update={"tests": (*report.plan.tests, dropped)})})
    assert exit_code(shrunk) == ExitCode.OK
    assert exit_code(shrunk, ANY) == ExitCode.UNDECIDED
    assert exit_code(shrunk, ANY._replace(allow_undecided=True)) == ExitCode.OK


# ---- findings ---------------------------------------------------------------------------------------------------
BACKDOOR = Gate(parse_threshold("finding=backdoored"))


def with_findings(*findings: Finding) -> Report:
    """A decided report without a trace whose rules of yes or no say this."""
    return with_measurements(golden.report("consistent"), strings(*findings))


@pytest.mark.parametrize(("holds", "code"), [
    (True, ExitCode.GATE), (False, ExitCode.OK), (Missing(missing="no prompts"), ExitCode.UNDECIDED),
    (None, ExitCode.UNDECIDED),
])  # fmt: skip
def test_a_gate_on_a_finding_fails_where_it_holds_and_is_undecided_where_it_was_not_asked(
    holds: bool | Missing | None, code: int
) -> None:
    findings = () if holds is None else (BACKDOORED.model_copy(update={"holds": holds}),)
    report = with_findings(SHORT.model_copy(update={"holds": True}), *findings)
    assert exit_code(report, BACKDOOR) == code
    assert exit_code(report) == exit_code(report, ANY) == ExitCode.OK
    assert exit_code(report, Gate(parse_threshold("finding=recoverable by a short prefix"))) == ExitCode.GATE


def test_a_finding_that_holds_fails_the_gate_though_another_of_its_name_was_not_asked() -> None:
    silent = BACKDOORED.model_copy(update={"holds": Missing(missing="no prompts")})
    assert exit_code(with_findings(silent, BACKDOORED), BACKDOOR) == ExitCode.GATE


def test_a_finding_that_the_baseline_has_fails_no_more() -> None:
    known, silent = with_findings(BACKDOORED), with_findings(BACKDOORED.model_copy(update={"holds": False}))
    assert exit_code(known, BACKDOOR._replace(baseline=known)) == ExitCode.OK
    assert exit_code(known, BACKDOOR._replace(baseline=silent)) == ExitCode.GATE


@pytest.mark.parametrize("text", ["finding", "finding=", "finding= ", "findings=backdoored"])
def test_a_gate_on_no_finding_is_refused(text: str) -> None:
    with pytest.raises(AuditError, match="is no gate"):
        parse_threshold(text)
