"""Which measurement's people a verdict shows, and how their number is said."""

import pytest

from audit.judging import count_words, judge, people_kept
from audit.schema import Evidence, Interval, Kind, Missing, PeopleKept, Power
from tests.judging.test_judging import measured


def people(
    kept: float = 0.5, level: float = 1.0, ratio: float = 5.0, spread: float = 0.0, **more: object
) -> PeopleKept:
    ci95 = Interval(lo=kept - spread, hi=kept + spread)
    given = PeopleKept(kept=kept, ci95=ci95, level=level, log10_ratio=ratio, named=(), fdr=0.05, of=32)
    return given.model_copy(update=more)


def evidence(kind: Kind, value: float, fewest: int | None, kept: float, **more: object) -> Evidence:
    blunt = Missing(missing="not found")
    power = Power(share=0.1, people=blunt if fewest is None else fewest, of=32, power=0.8)
    given = measured(kind, value, p=0.001 if value >= 0.05 else 0.5)
    return judge(given.model_copy(update={"power": power, "people": people(kept), **more}))


def test_the_test_by_which_most_is_known_for_sure_says_who_and_of_equal_ones_the_sharpest() -> None:
    rows = [
        evidence("output", 0.6, None, 0.1), evidence("causal", 0.6, 8, 0.2), evidence("decoding", 0.6, 4, 0.3),
        evidence("causal", 0.0, 1, 0.4), evidence("causal", 0.6, 1, 0.5, form="paraphrased"),
        evidence("causal", 0.6, 1, 0.6, mode="paper"), evidence("context", 0.6, 1, 0.7),
    ]  # fmt: skip
    shown = people_kept(rows)
    assert isinstance(shown, PeopleKept) and shown.kept == 0.3
    assert people_kept(rows[::-1]) == shown
    unsure = evidence("causal", 0.6, 1, 0.3, people=people(0.9, spread=0.7))
    assert people_kept([*rows, unsure]) == shown, "at least 20 of 100 are known by it, by the other 30"
    part = evidence("decoding", 0.6, 1, 0.3, people=people(0.9, level=0.3, ratio=-6.0))
    assert people_kept([*rows, part]) == shown, "a third of it in 29 people is less than all of it in 10"
    alike = [evidence("output", 0.6, n, 0.3, people=people(0.3, ratio=float(n))) for n in (8, 4)]
    assert people_kept(alike) == alike[1].measurement.people


def test_people_without_an_interval_count_by_their_number_and_are_no_sharper_for_it() -> None:
    without = Missing(missing="too few")
    bare = evidence("causal", 0.6, 4, 0.5, people=people(0.5, ci95=without))
    assert people_kept([bare]) == bare.measurement.people
    wide, narrow = (evidence("causal", 0.6, 4, 0.5, people=people(0.5 + s, spread=s)) for s in (0.25, 0.125))
    for order in ([wide, bare, narrow], [narrow, wide, bare]):
        assert people_kept(order) == narrow.measurement.people, "at least half by all three"
    assert people_kept([bare, wide]) == wide.measurement.people


def test_of_equal_tests_the_smallest_share_of_everybody_that_is_found_is_the_sharpest() -> None:
    def by(share: float | Missing) -> Evidence:
        power = Power(share=share, people=4, of=32, power=0.8)
        told = people(0.5, ratio=9.0 if isinstance(share, Missing) else share)  # tells them apart, and ranks none
        return evidence("causal", 0.6, 4, 0.5, power=power, people=told)

    coarse, fine, unknown = by(0.2), by(0.05), by(Missing(missing="not found"))
    for order in ([coarse, fine, unknown], [unknown, fine, coarse]):
        assert people_kept(order) == fine.measurement.people
    no_power = evidence("causal", 0.6, 4, 0.5, power=Missing(missing="older"), people=people(0.5, ratio=9.0))
    assert people_kept([no_power, coarse]) == coarse.measurement.people


def test_what_an_attack_brings_back_counts_as_well() -> None:
    shown = people_kept([evidence("recovery", 0.6, 1, 0.5), evidence("output", 0.6, 8, 0.2)])
    assert isinstance(shown, PeopleKept) and shown.kept == 0.5


def test_without_a_trace_nobody_is_shown() -> None:
    assert isinstance(people_kept([]), Missing) and isinstance(people_kept([evidence("causal", 0.0, 1, 0.5)]), Missing)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (people(0.5), "16 of 32 people"),
        (people(0.5, spread=1 / 16), "16 of 32 people (95 % interval 14 to 18)"),
        (people(0.5, ci95=Missing(missing="x")), "16 of 32 people"),
        (people(1.0), "32 of 32 people"),
        (people(0.75, level=0.07, ratio=-9.0, spread=0.25), "24 of 32 people (95 % interval 16 to 32)"),
        (people(0.0), "0 of 32 people"),
    ],
)
def test_people_are_told_as_a_count(given: PeopleKept, words: str) -> None:
    assert count_words(given) == words
