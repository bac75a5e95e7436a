"""The smallest p that a test over so many people can reach, held against the tests themselves."""

from typing import Any

import numpy as np
import pytest

from audit import stats
from audit.case import OpenCase, Part
from audit.probing import ALPHA, GroupTest, group_test, with_alternates
from audit.schema import Item, Texts


@pytest.mark.parametrize("people", [1, 2, 4, 6, 7, 9, 11, 12, 13, 20])
def test_least_p_of_people_is_what_the_clearest_data_reach(people: int) -> None:
    clearest = np.linspace(1.0, 1 + 1e-5, people)[:, None]
    assert stats.least_p(people, 0) == pytest.approx(stats.mean_max_t(clearest, 0).p)


@pytest.mark.parametrize(("people", "others"), [(1, 3), (1, 100), (2, 13), (4, 5), (3, 6), (12, 12)])
def test_least_p_beside_holdout_people_is_what_the_clearest_data_reach(people: int, others: int) -> None:
    clearest = np.concatenate([np.linspace(5, 5 + 1e-5, people), np.linspace(0, 1e-5, others)])[:, None]
    labels = np.arange(people + others) < people
    assert stats.least_p(people, others) == pytest.approx(stats.mean_max_t(clearest, 0, labels).p)


@pytest.mark.parametrize("people", [2, 3, 4, 6, 13])
@pytest.mark.parametrize("spread", [1e-5, 1e-4, 1e-3])
def test_no_rounding_takes_an_enumerated_p_below_one_over_its_randomisations(people: int, spread: float) -> None:
    """Beside one holdout person, who has no spread, the statistic is huge and its variance a small difference."""
    clearest = np.concatenate([np.linspace(5, 5 + spread, people), [0.0]])[:, None]
    judged = stats.mean_max_t(clearest, 0, np.arange(people + 1) < people)
    assert judged.p == pytest.approx(1 / (people + 1)) == stats.least_p(people, 1)


def test_drawn_randomisations_reach_no_less_than_their_number_allows() -> None:
    assert stats.least_p(30, 0, 99) == 1 / 100 and stats.least_p(30, 30, 9999) == 1e-4


def of_people(forget: int, others: int = 0, **more: object) -> GroupTest:
    return GroupTest(forget, others, 9999, pairs=True)._replace(**more)


@pytest.mark.parametrize("others", [0, 2, 7, 8, 50])
def test_two_groups_are_the_fewest_that_can_be_decided(others: int) -> None:
    assert [n for n in range(1, 40) if of_people(n, others).decides] == list(range(2, 40))


def test_beside_one_holdout_group_only_very_many_can_be_decided() -> None:
    assert [n for n in range(1, 120) if of_people(n, 1).decides] == list(range(100, 120))


@pytest.mark.parametrize(("forget", "given"), [(1, 0), (1, 1), (1, 2), (1, 99), (2, 1), (6, 1), (50, 1)])
def test_what_is_said_to_suffice_suffices_and_one_less_does_not(forget: int, given: int) -> None:
    short = of_people(forget, given)
    assert not short.decides and f"{short.least_p:.2g}" in str(short)
    enough = int(str(short).split("; ")[1].split()[0])
    assert of_people(enough, given).decides and not of_people(enough - 1, given).decides
    others = int(str(short).split(" or ")[1].split()[0])
    assert of_people(forget, others).decides and not of_people(forget, others - 1).decides
    assert ("no holdout set at all" in str(short)) == (given > 0 and of_people(forget).decides)


def test_holdout_groups_are_offered_only_where_they_take_part() -> None:
    assert "holdout" in str(of_people(1)) and "holdout" not in str(of_people(1, pairs=False))


def test_too_few_draws_are_the_fault_where_they_are() -> None:
    assert "raise `permutations`" in str(of_people(40, draws=50)) and not of_people(40, draws=50).decides


def test_forms_that_are_adjusted_together_need_more_people() -> None:
    assert of_people(1, 150).short_family == "" and of_people(1, 150, family=1).short_family == ""
    said = of_people(1, 150, family=2).short_family
    assert "2 forms" in said and f"{2 * of_people(1, 150).least_p:.2g}" in said and "2 forget groups" in said
    assert of_people(1, 150, family=2).least_p * 2 >= ALPHA > of_people(2, 150, family=2).least_p * 2
    assert of_people(1, family=2).short_family == "", "said already: no form can be judged at all"


class People(OpenCase):
    """A case of so many forget people, of whom the first few have alternates."""

    def __init__(self, forget: int, matched: int, **answers: Any) -> None:
        self._people = [
            Item(id=f"{n}", group=f"{n}", question="q", answer="a", **(answers if n < matched else {}))
            for n in range(forget)
        ]

    def items(self, texts: Texts, part: Part = "all") -> tuple[Item, ...]:
        return () if texts.cohort == "holdout" else tuple(self._people[:: 1 if part == "all" else 2])


@pytest.mark.parametrize("answers", [{"alternates": ("b", "c")}, {"perturbed_answers": ("b", "c")}])
def test_only_people_who_have_alternates_are_counted_where_alternates_are_tested(answers: dict[str, Any]) -> None:
    case = People(40, 1, **answers)
    every, few = group_test(case, 9999), group_test(case, 9999, usable=with_alternates)
    assert every.decides and (every.audited, every.unmatched) == (40, 0), "every group is audited"
    assert not few.decides and (few.audited, few.unmatched) == (1, 39)
    assert "1 audited forget group (39 more have no item with alternates)" in str(few)
    assert "2 forget groups with alternates in all" in str(few)
    assert "alternates" not in str(group_test(People(1, 1, **answers), 9999, usable=with_alternates))
