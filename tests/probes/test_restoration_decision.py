"""The decision table, row by row."""

import pytest

from audit.schema import Interval
from probes._decision import NOTHING, PARTLY, READER_ONLY, RECODED, RETAINED, Finding, decide

NONE = Finding.absent("not judged")


def finding(value: float, lower: float | None = None) -> Finding:
    lower = value - 0.05 if lower is None else lower
    return Finding(value, Interval(lo=lower, hi=value + 0.05))


@pytest.mark.parametrize(
    ("reverse", "readout", "donor", "row"),
    [
        (finding(0.97), finding(0.9), finding(0.0), RETAINED),
        (finding(0.97), NONE, NONE, RETAINED),
        (finding(0.4), finding(0.5), finding(0.9), PARTLY),
        (finding(0.97), finding(0.5), finding(0.9), PARTLY),
        (finding(0.01, -0.1), finding(0.4), finding(0.9), RECODED),
        (finding(0.01, -0.1), finding(0.4), finding(0.0), RECODED),
        (finding(0.01, -0.1), finding(0.1, -0.2), finding(0.9), READER_ONLY),
        (finding(0.01, -0.1), finding(0.1, -0.2), finding(0.1), NOTHING),
        (finding(-0.3), NONE, finding(0.1), NOTHING),
    ],
)
def test_every_row(reverse: Finding, readout: Finding, donor: Finding, row: int) -> None:
    assert decide(reverse, readout, donor).row == row


def test_a_donor_never_makes_knowledge() -> None:
    for donor in (finding(0.1), finding(0.6), finding(1.0)):
        decision = decide(finding(0.0, -0.1), finding(0.0, -0.1), donor)
        assert decision.row in (READER_ONLY, NOTHING) and "not" in decision.text


def test_what_could_not_be_judged_is_said() -> None:
    decision = decide(Finding.absent("no common basis"), finding(0.9), finding(0.9))
    assert decision.row == 0 and "no common basis" in decision.text
    assert "no read-out could be judged" in decide(finding(0.9), NONE, NONE).text
