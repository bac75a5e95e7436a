"""Why a test cannot decide, what stands in for a model that never knew, and the sentences that say so."""

import pytest

from audit.judging import Given, judge
from audit.judging.in_case import on_scale, too_few
from audit.judging.reasons import is_low, is_of_some, unheard
from audit.schema import (
    Control,
    Measurement,
    Missing,
    Null,
    PeopleKept,
)
from tests.judging.test_judging import ANCESTOR, FULL, HOLDOUT, NONE, NOTHING, SINGLE, family, measured, ruled


def test_a_test_with_too_few_groups_is_blind_for_that_reason_and_a_limit_says_so() -> None:
    from audit.schema import Null

    def few(n: int, some: float = 1.0) -> list[Measurement]:
        null = Null(kind="sign flips over people", quantiles=tuple([0.0] * 101), n=n)
        lost = Control(value=1.0, ci95=NONE, found=False)
        changes = {"null": null, "units": 4, "positive_control": lost}
        return [measured("gate", 1.0), *(measured(kind, some, **changes) for kind in ("output", "causal", "decoding"))]

    short = ruled(few(16))
    assert short.word == "INCONCLUSIVE" and short.limits[0] == (
        "Nothing could be decided: too few groups: 4 person units allow 16 randomisations, so that p cannot be below "
        "0.062, and less than 0.01 is asked."
    )
    assert judge(few(16)[1]).because.startswith("blind here: too few groups: 4 person units allow 16")
    enough = ruled(few(128))
    assert "base in the suspect's place is not found" in judge(few(128)[1]).because
    assert not any("too few groups" in limit for limit in enough.limits)
    mixed = ruled([*few(16)[:2], *few(128)[2:]])
    assert not any("Nothing could be decided" in limit for limit in mixed.limits), "one test has enough of them"
    lacking = [limit for limit in mixed.limits if "without enough groups" in limit]
    unfound = [limit for limit in mixed.limits if "the knowledge is not found in base" in limit]
    assert (len(lacking), len(unfound)) == (1, 1) and lacking[0].startswith("1 of the planned measurements was")
    assert not any("without enough groups" in limit for limit in enough.limits)


@pytest.mark.parametrize(
    ("n", "least", "says"),
    [
        (31, 1 / 32, "32 person units allow 31 randomisations, so that p cannot be below 0.031"),
        (31, NONE, "32 person units allow 31 randomisations, so that p cannot be below 0.032"),
        (31, 0.02, "32 person units are judged at many layers, so that p cannot be below 0.02"),
        (31, 0.009, ""),
        (999, NONE, ""),
        (100, NONE, "so that p cannot be below 0.01, and less than 0.01 is asked"),
    ],
)
def test_why_no_p_can_decide_is_said_by_what_bounds_it(n: int, least: float | Missing, says: str) -> None:
    null = Null.model_validate({"kind": "sign_flip", "n": n, "quantiles": (0.0,) * 101, "least_p": least})
    found = too_few(measured("causal", 0.0, null=null))
    assert says in found and bool(found) == bool(says)


def test_the_first_of_several_reasons_for_too_few_groups_is_the_one_that_is_told() -> None:
    null = {"kind": "sign_flip", "quantiles": (0.0,) * 101, "least_p": NONE}
    tests = [measured(kind, 0.0, probe=kind, null={**null, "n": n}, units=units,
                      positive_control=Control(value=0.0, ci95=NONE, found=False))
             for kind, n, units in (("causal", 7, 3), ("decoding", 15, 4))]  # fmt: skip
    mute = unheard([judge(m) for m in tests])
    assert mute.short.startswith("too few groups: 3 person units allow 7 randomisations")
    assert len(mute.few) == 2 and unheard([judge(measured("causal", 0.0)), *map(judge, tests)]).short == mute.short


@pytest.mark.parametrize(
    ("kept", "ratio", "of_some"), [(0.5, 1.0, True), (0.5, 0.99, False), (1.0, 5.0, False), (0.99, 5.0, True)]
)
def test_all_is_known_of_some_people_where_not_all_are_and_it_is_ten_times_likelier(
    kept: float, ratio: float, of_some: bool
) -> None:
    people = PeopleKept(kept=kept, ci95=NONE, level=1.0, log10_ratio=ratio, named=(), fdr=0.05, of=32)
    assert is_of_some(people) == of_some
    assert not is_of_some(NONE)


def test_below_zero_the_p_for_below_is_quoted() -> None:
    assert (
        is_low(measured("output", -0.3))
        and not is_low(measured("output", 0.0))
        and not is_low(measured("output", NONE))
    )
    low = ruled(family(output=-0.3)).sentence
    assert "p = 0.001" in low or "p = 0.0010" in low


@pytest.mark.parametrize(
    ("roles", "null"),
    [
        (Given(1, False, False), True),
        (Given(0, True, False), True),
        (Given(0, False, True), False),
        (Given(2, True, True), True),
    ],
)
def test_one_reference_is_a_model_that_never_knew(roles: Given, null: bool) -> None:
    assert roles.null == null


def test_a_recovery_counts_by_its_scale_and_everything_else_whatever_its_scale() -> None:
    for kind, scale, counts in (
        ("recovery", "effect", True), ("recovery", "probability", False), ("causal", "probability", True),
    ):  # fmt: skip
        assert on_scale(measured(kind, 0.1).model_copy(update={"scale": scale})) == counts


@pytest.mark.parametrize(("stored", "height"), [(0.1, 0.3), (0.19, 0.57), (0.2, 0.6), (0.21, 0.605), (0.3, 0.65)])
def test_without_a_floor_of_its_own_a_trace_clears_three_floors_of_the_zoo_or_half_way_to_base(
    stored: float, height: float
) -> None:
    floors = {"some_causal.effect": stored}
    said = [
        judge(measured("causal", value, p=0.001, floor=NONE), floors).status
        for value in (height - 0.001, height + 0.001)
    ]
    assert said == ["within_floor", "trace"]


@pytest.mark.parametrize(
    ("roles", "says"),
    [
        (FULL, ""), (SINGLE, ""), (Given(1, False, False), ""),
        (ANCESTOR, "No retrained reference was given: the ancestor"),
        (HOLDOUT, "No model that never knew was given: holdout people stand in"),
        (NOTHING, "No model that never knew was given: the never-trained level is not known."),
    ],
)  # fmt: skip
def test_what_stands_in_for_a_model_that_never_knew_is_a_limit(roles: Given, says: str) -> None:
    told = [line for line in ruled(family(causal=1.0), roles).limits if " was given: " in line]
    assert len(told) == bool(says) and all(line.startswith(says) for line in told)
