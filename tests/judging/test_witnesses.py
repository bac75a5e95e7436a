"""A few people whom the mean does not see: believed where two kinds of evidence name the same ones."""

import pytest

from audit.judging import Given, judge, verdict
from audit.schema import Interval, Kind, Measurement, Missing, PeopleKept, Power, Verdict
from tests.judging.test_judging import FULL, measured


def naming(kind: Kind, *names: str, p: float = 0.4, **more: object) -> Measurement:
    """A sharp test whose mean shows nothing, and which names these people."""
    people = PeopleKept(
        kept=len(names) / 32, ci95=Missing(missing="x"), level=1.0, log10_ratio=5.0, named=names, fdr=0.05, of=32
    )
    power = Power(share=0.05, people=4, of=32, power=0.8)
    ends = Interval(lo=-0.02, hi=0.06)
    return measured(kind, 0.02, ci95=ends, p=p).model_copy(update={"people": people, "power": power, **more})


def ruled(*tests: Measurement, roles: Given = FULL) -> Verdict:
    return verdict([judge(m) for m in (measured("gate", 1.0), *tests)], roles)


def test_one_person_of_many_whom_outputs_and_a_lesson_name_makes_it_partial() -> None:
    reached = ruled(naming("output", "anna"), naming("recovery", "anna"), naming("causal"), naming("decoding"))
    assert reached.word == "PARTIAL" and "1 of 32 people are known" in reached.sentence
    assert isinstance(reached.people, PeopleKept) and reached.people.named == ("anna",)
    assert any("stand out in two kinds of evidence" in x for x in reached.because)


@pytest.mark.parametrize(
    "tests",
    [
        (naming("output", "anna"), naming("recovery", "ben")),
        (naming("output", "anna"), naming("recovery", "anna", witness="output")),
        (naming("causal", "anna"), naming("decoding", "anna")),
        (naming("output", "anna"), naming("recovery", "anna", form="held_out_phrasing")),
        (naming("output", "anna"), naming("recovery", "anna", mode="paper")),
        (naming("output", "anna"), naming("context", "anna")),
    ],
)
def test_one_kind_of_evidence_is_no_two(tests: tuple[Measurement, ...]) -> None:
    """Other people, the outputs read again, two readings of the states, other forms and context are no second kind."""
    assert ruled(*tests, naming("causal"), naming("output")).word == "CONSISTENT WITH NEVER TRAINED"


def test_only_those_whom_both_name_are_named() -> None:
    reached = ruled(naming("output", "anna", "ben", "cleo"), naming("decoding", "ben", "dora", "cleo"))
    assert isinstance(reached.people, PeopleKept) and set(reached.people.named) == {"ben", "cleo"}


def test_a_broken_suspect_stays_broken_whoever_is_named() -> None:
    broken = [judge(m) for m in (measured("gate", 0.1), naming("output", "anna"), naming("causal", "anna"))]
    assert verdict(broken, FULL).word == "INVALID"


# ---- several tests of the inside --------------------------------------------------------------------------------
def inside(p: float, n: int) -> list[Measurement]:
    """One test of the inside with a trace by this p, and silent ones beside it."""
    power = Power(share=0.05, people=4, of=32, power=0.8)
    trace = measured("causal", 0.2, ci95=Interval(lo=0.1, hi=0.3), p=p, floor=0.01)
    quiet = [measured("decoding", 0.0, ci95=Interval(lo=-0.05, hi=0.05), p=0.5) for _ in range(n)]
    return [m.model_copy(update={"power": power}) for m in (trace, *quiet, naming("output"))]


@pytest.mark.parametrize(("p", "beside", "word"), [(0.004, 1, "SUPPRESSED"), (0.004, 3, "INCONCLUSIVE")])
def test_a_trace_inside_has_to_stand_among_all_tests_of_the_inside(p: float, beside: int, word: str) -> None:
    reached = ruled(*inside(p, beside))
    assert reached.word == word
    if word == "INCONCLUSIVE":
        assert any("no more than a hint among 4 tests" in x for x in reached.because)
