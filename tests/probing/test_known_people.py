"""Every effect says what its test would find here and who is known, by the names that its panel has."""

import numpy as np
import pytest

from audit.probing import Design, Panel, Sides, assess, by_person, panel_of
from audit.schema import Missing, PeopleKept, Power
from tests import toy

N = 24
NAMES = tuple(f"group {i:02}" for i in range(N))


def panel(k: int = 0, share: float = 0.0, holdout: bool = False, floors: int = 2, seed: int = 0) -> Panel:
    """Three layers: base reads .9 of everybody, the suspect all of k people and a share of the others."""
    rng = np.random.default_rng(seed)

    def never() -> Sides:
        def read() -> np.ndarray:
            return 0.1 + 0.04 * rng.standard_normal((N, 3))

        return Sides(read(), read() if holdout else None)

    null, base, suspect = never(), never(), never()
    base.forget[:] += 0.8
    suspect.forget[:] += share * 0.8
    suspect.forget[:k] += (1 - share) * 0.8
    return Panel(suspect, base, null, tuple(never() for _ in range(floors)), NAMES)


def assessed(given: Panel, differenced: bool = False) -> tuple[Power | Missing, PeopleKept | Missing]:
    found = assess(given, Design(0, 0.1, differenced, draws=199))
    return found.power, found.people


@pytest.mark.parametrize("holdout", [False, True])
@pytest.mark.parametrize("k", [0, 1, 3, 12, N])
def test_a_model_that_knows_some_people_is_told_by_number_and_name(k: int, holdout: bool) -> None:
    power, people = assessed(panel(k, holdout=holdout))
    assert isinstance(people, PeopleKept) and people.of == N
    assert round(people.kept * N) == k and set(people.named) == set(NAMES[:k])
    assert not isinstance(people.ci95, Missing) and people.ci95.lo <= k / N <= people.ci95.hi
    assert isinstance(power, Power) and power.of == N and isinstance(power.share, float) and power.share <= 0.15


def test_holdout_people_stand_for_a_model_that_never_knew_where_none_is_given() -> None:
    given = panel(6, holdout=True, floors=0)
    power, people = assessed(given._replace(null=Sides(np.zeros((N, 3)), np.zeros((N, 3)))), differenced=True)
    assert isinstance(people, PeopleKept) and set(people.named) == set(NAMES[:6]) and round(people.kept * N) == 6
    assert isinstance(power, Power) and isinstance(power.share, float)


def test_without_anybody_unknown_nobody_can_be_named() -> None:
    power, people = assessed(panel(6, floors=0))
    assert isinstance(people, Missing) and "another reference or holdout people" in people.missing
    assert isinstance(power, Power), "the suspect's own people about their mean are the noise then"


def test_a_blind_test_has_neither_power_nor_people() -> None:
    given = panel()
    power, people = assessed(given._replace(base=given.null))
    assert isinstance(power, Missing) and isinstance(people, Missing)


def test_power_does_not_depend_on_what_a_suspect_knows_where_others_say_how_noise_is() -> None:
    assert assessed(panel(0))[0] == assessed(panel(12))[0]


def test_an_error_common_to_all_people_speaks_for_nobody() -> None:
    given = panel(share=0.1)
    alone = assess(given, Design(0, 0.1)).people
    common = assess(given, Design(0, 0.1, shared=0.1)).people
    assert isinstance(alone, PeopleKept) and alone.kept > 0.5
    assert isinstance(common, PeopleKept) and common.kept == 0


def test_the_order_of_people_does_not_matter() -> None:
    order = np.random.default_rng(1).permutation(N)

    def turned(side: Sides) -> Sides:
        return Sides(side.forget[order])

    given = panel(3)
    other = Panel(turned(given.suspect), turned(given.base), turned(given.null), tuple(map(turned, given.floors)),
                  tuple(NAMES[i] for i in order))  # fmt: skip
    assert assessed(given) == assessed(other)


def test_names_of_a_panel_are_the_groups_that_have_an_item_left() -> None:
    sheet = toy_sheet()
    scores = {name: np.arange(len(sheet.person), dtype=float)[:, None] for name in ("base", "suspect")}
    scores["suspect"][sheet.person == 0] = np.nan
    assert panel_of(by_person(sheet, scores), None).names == sheet.people[1:]


def toy_sheet():  # noqa: ANN201
    from audit.probing import PersonRows

    rows = toy.rows(5)
    return PersonRows(rows, (), ("a", "b", "c"), np.array([0, 0, 1, 2, 2]))
