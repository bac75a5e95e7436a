"""Who is judged by what, and how mistakes are counted: on rosters made by hand, with rules that note their use."""

from collections import Counter

import numpy as np
import pytest
from scipy import stats as scipy_stats

from audit.calibration.error_rates import FOLDS, Decision, HeldOut, Roster, held_out, rate, record, stated
from audit.schema import AuditError, Missing

KINDS = (  # mechanism, pool, kept of 16
    ("npo", "clean", 0), ("reference", "clean", 0), ("head_edit", "knowing", 16), ("dose", "knowing", 4),
    ("dose", "knowing", 8), ("scrub", "edited clean", 0), ("base", "knowing", 16), ("destroyed", "destroyed", 16),
)  # fmt: skip


def people(worlds: int = 10, alone: str = "quiet", audited: int = 16) -> Roster:
    """Every kind of model in every world."""
    rows = [(world, *kind) for world in range(worlds) for kind in KINDS]
    columns = list(zip(*rows, strict=True))
    n, kept = len(rows), np.array(columns[3])
    return Roster(
        np.array(columns[0]), np.array(columns[1], object), np.array(columns[2], object),
        np.where(kept == 16, audited, kept),
        np.full(n, audited), np.array(["same"] * n, object), np.array([alone] * n, object),
    )  # fmt: skip


@pytest.mark.parametrize("known", [False, True])
def test_everybody_is_judged_once_by_a_fit_that_knew_neither_world_nor_mechanism(known: bool) -> None:
    roster = people()
    asked: Counter[int] = Counter()
    unlike = np.arange(len(roster.world)) == 3
    usable = ~unlike

    def fit(seen: np.ndarray):  # type: ignore[no-untyped-def]
        assert not (seen & ~(roster.clean | roster.knowing)).any() and not (seen & unlike).any()

        def rule(which: np.ndarray) -> Decision:
            (mechanism,) = set(roster.mechanism[which])
            assert not set(roster.world[seen]) & set(roster.world[which]), "its world was seen"
            assert (mechanism in set(roster.mechanism[seen])) == (known and mechanism not in ("scrub",))
            assert len(set(roster.world[seen])) >= 10 - 10 // FOLDS - 1, "of other worlds all are seen"
            asked.update(np.flatnonzero(which).tolist())
            return Decision(np.ones(which.sum(), bool), np.flatnonzero(which).astype(float))

        return rule

    held = held_out(roster, usable, fit, known=known)
    expected = np.flatnonzero(usable & ~np.isin(roster.mechanism, ("base", "destroyed")))
    assert dict(asked) == dict.fromkeys(expected.tolist(), 1)
    np.testing.assert_array_equal(held.judged, np.isin(np.arange(len(roster.world)), expected))
    np.testing.assert_array_equal(held.trace, held.judged)
    np.testing.assert_array_equal(held.score, np.where(held.judged, np.arange(len(roster.world)), 0.0))


def test_for_a_world_that_holds_nothing_to_fit_on_every_other_world_is_seen() -> None:
    small = people(10)
    alone = Roster(*(column[small.mechanism == "scrub"][:1] for column in small))._replace(world=np.array([99]))
    roster, asked = Roster(*(np.concatenate(pair) for pair in zip(small, alone, strict=True))), list[int]()

    def fit(seen: np.ndarray):  # type: ignore[no-untyped-def]
        def rule(which: np.ndarray) -> Decision:
            if which[-1]:
                asked.append(len(set(roster.world[seen])))
            return Decision(np.zeros(which.sum(), bool), np.zeros(which.sum()))

        return rule

    held_out(roster, np.ones(len(roster.world), bool), fit)
    assert asked == [10]


def test_where_only_one_mechanism_is_clean_nothing_is_left_to_fit_on() -> None:
    roster = people()
    usable = roster.mechanism != "reference"
    with pytest.raises(AuditError, match="without npo nothing clean or nothing knowing is left"):
        held_out(roster, usable, lambda _: lambda which: Decision(which[which], np.zeros(which.sum())))


def decided(roster: Roster, *traced: tuple[int, str]) -> HeldOut:
    """These models (world, mechanism) show a trace, and no others."""
    trace = np.array([(int(w), m) in traced for w, m in zip(roster.world, roster.mechanism, strict=True)])
    return HeldOut(trace & roster.judged, np.zeros(len(trace)), roster.judged)


def test_mistakes_are_worlds_and_every_exception_has_its_name() -> None:
    roster = people(4)
    every = [(w, m) for w in range(4) for m in ("head_edit", "dose")]
    wrong = decided(
        roster, (0, "npo"), (0, "reference"), (2, "npo"), (1, "scrub"), (3, "scrub"), *every[:2], *every[4:]
    )
    found = record(roster, wrong)
    assert (found.false_alarms.k, found.false_alarms.n) == (2, 4), "two clean models of one world are one false alarm"
    assert (found.misses.k, found.misses.n) == (1, 4) and (found.edited_clean.k, found.edited_clean.n) == (2, 4)
    assert found.exceptions == (
        "world 0, npo: false alarm", "world 0, reference: false alarm", "world 1, head_edit: missed",
        "world 2, npo: false alarm",
    )  # fmt: skip
    counted = {c.mechanism: (c.pool, c.found, c.worlds) for c in found.counted}
    assert counted == {
        "npo": ("clean", 2, 4), "reference": ("clean", 1, 4), "head_edit": ("knowing", 3, 4), "dose": ("knowing", 3, 4),
        "scrub": ("edited clean", 2, 4),
    }  # fmt: skip
    assert [(d.kept, d.audited, d.k, d.n) for d in found.doses] == [(4, 16, 3, 4), (8, 16, 3, 4)]


def test_a_pool_of_one_world_is_counted_like_any_other() -> None:
    found = record(people(1), decided(people(1), (0, "npo"), (0, "dose")))
    counted = {c.mechanism: (c.pool, c.found, c.worlds) for c in found.counted}
    assert counted == {
        "npo": ("clean", 1, 1), "reference": ("clean", 0, 1), "head_edit": ("knowing", 0, 1), "dose": ("knowing", 1, 1),
        "scrub": ("edited clean", 0, 1),
    }  # fmt: skip


def test_doses_of_several_sizes_of_audit_are_ordered_by_share_and_the_largest_is_named_where_none_suffices() -> None:
    """4 of 16 is more than 4 of 32, and 8 of 32 is as much."""
    small, large = people(4), people(4, audited=32)
    both = Roster(*(np.concatenate([a, b]) for a, b in zip(large, small, strict=True)))
    found = record(both, decided(both, (0, "dose"), (1, "dose")))
    assert [(d.kept, d.audited) for d in found.doses] == [(4, 32), (4, 16), (8, 32), (8, 16)]
    assert all((d.k, d.n, d.power) == (2, 4, 0.5) for d in found.doses)
    assert found.limit == Missing(missing="even 8 of 16 people kept are found in 2 of 4 worlds only")
    enough = record(both, decided(both, *((w, "dose") for w in range(4))))
    assert not isinstance(enough.limit, Missing) and (enough.limit.kept, enough.limit.audited) == (4, 32)


def test_of_several_models_of_one_dose_in_a_world_all_have_to_be_found() -> None:
    roster = people(4)
    twice = Roster(*(np.concatenate([column, column[roster.mechanism == "dose"]]) for column in roster))
    trace = np.arange(len(twice.world)) < len(roster.world)
    found = record(twice, HeldOut(trace & twice.judged, np.zeros(len(trace)), twice.judged))
    assert [(d.k, d.n) for d in found.doses] == [(0, 4), (0, 4)]


@pytest.mark.parametrize(
    ("alone", "joint", "states"),
    [
        ("quiet", True, True), ("quiet", False, False), ("shown", False, True), ("elsewhere", False, True),
        ("below", False, False), ("stopped", True, False), ("unreadable", True, False), ("shown", True, True),
    ],
)  # fmt: skip
def test_a_verdict_states_a_trace_by_the_joint_rule_or_by_the_case_alone(alone: str, joint: bool, states: bool) -> None:
    roster = people(2, alone)
    held = HeldOut(np.full(len(roster.world), joint) & roster.judged, np.zeros(len(roster.world)), roster.judged)
    found = stated(roster, held)
    assert found.trace.dtype == bool
    np.testing.assert_array_equal(found.trace, np.full(len(roster.world), states) & roster.judged)


@pytest.mark.parametrize(("k", "n"), [(0, 1), (0, 59), (3, 40), (39, 40), (40, 40), (0, 0)])
def test_a_rate_has_the_bound_that_so_few_mistakes_exceed_in_one_of_twenty_pools(k: int, n: int) -> None:
    found = rate(k, n)
    assert (found.k, found.n) == (k, n)
    if k == n:
        assert found.upper95 == 1.0
    else:
        assert found.upper95 == pytest.approx(scipy_stats.beta.ppf(0.95, k + 1, n - k), rel=6e-4)
