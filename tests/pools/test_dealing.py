"""Worlds are dealt append-only: what comes later, mechanisms and fresh worlds, leaves everything as it is."""

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from audit.edits import LastLayer, SimNPO
from audit.zoo import Drawn, Member, draw, mechanisms, pool_design, population, recipes
from audit.zoo.mechanisms import Mechanism
from audit.zoo.members import PARTS, audited_people
from audit.zoo.pool_design import FRESH_WORLDS, POOL_WORLDS, SLOTS

LATER = {
    "unlearner": Mechanism("unlearner", SimNPO(steps=7, batch=16), later=True),
    "fake": Mechanism("fake", LastLayer(steps=7, batch=16), later=True),
}
SAMPLE = tuple(world for world in (*POOL_WORLDS, *FRESH_WORLDS) if world % 5 == 0 or world % 7 == 0)
"""Worlds of either design, with doses and without, with the full kit and without."""


class _Dealt(NamedTuple):
    """A world as it is dealt: its recipe, its members in order, and what names their bytes."""

    recipe: dict[str, str | int | float]
    members: tuple[Member, ...]
    keys: dict[str, str]


def _dealt(world: int) -> _Dealt:
    census = population(draw(world))
    keys = {plan.name: recipes.key_of(census.zoo, world, plan.name) for plan in census.zoo.plans}
    return _Dealt(draw(world).recorded(), census.members, keys)


@pytest.fixture(scope="module")
def _before() -> dict[int, _Dealt]:
    return {world: _dealt(world) for world in SAMPLE}


@pytest.fixture
def _with_later(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The kit with one more unlearner and one more fake: one line each."""
    late = {f"a_late_{kind}": mechanism for kind, mechanism in LATER.items()}
    monkeypatch.setattr(mechanisms, "KIT", late | mechanisms.KIT)  # wherever the line stands
    yield


def _json(content: object) -> str:
    return json.dumps(content, sort_keys=True)


def test_a_mechanism_that_comes_later_leaves_every_earlier_model_key_and_recipe_byte_for_byte(
    _before: dict[int, _Dealt], _with_later: None
) -> None:
    held = {kind: pool_design.slots(_shares(), f"a_late_{kind}") for kind in LATER}
    touched = Counter[str]()
    for world, before in _before.items():
        now, added = _dealt(world), draw(world).share.added
        new = [member.model for member in now.members if member not in before.members]
        assert tuple(member for member in now.members if member.model not in new) == before.members
        assert {name: key for name, key in now.keys.items() if name not in new} == before.keys
        if not added:
            assert _json(now.recipe) == _json(before.recipe) and not new
        assert {field: value for field, value in now.recipe.items() if field != "added"} == {
            field: value for field, value in before.recipe.items() if field != "added"
        }
        expected = ["a_late_fake"] if "a_late_fake" in added else []
        if "a_late_unlearner" in added:
            on_base = ["a_late_unlearner"] if world in POOL_WORLDS else []
            expected += [*on_base, "a_late_unlearner_of_others", "a_late_unlearner_of_facts"]
        assert new == expected
        if world in POOL_WORLDS:
            assert all((world in held[kind]) == (f"a_late_{kind}" in added) for kind in LATER)
        touched.update(expected)
    assert set(touched) == {"a_late_fake", *(f"a_late_unlearner{end}" for end in ("", "_of_others", "_of_facts"))}


def _shares() -> tuple[pool_design.Share, ...]:
    return pool_design.shares(POOL_WORLDS, mechanisms.founding("unlearner"))


def test_what_comes_later_is_run_and_known_for_what_it_is(_with_later: None) -> None:
    for kind in LATER:
        holders = [world for world in POOL_WORLDS if f"a_late_{kind}" in draw(world).share.added]
        fresh = [world for world in FRESH_WORLDS if f"a_late_{kind}" in draw(world).share.added]
        assert len(holders) == len(fresh) == SLOTS
        assert Counter(draw(world).sizes.architecture for world in holders) == {"llama": 8, "gpt2": 8}
        drawn = draw(holders[0])
        pools = {m.model: (m.pool, m.content, bool(m.taught)) for m in population(drawn).members}
        if kind == "fake":
            assert pools["a_late_fake"] == ("knowing", "same", True)
        else:
            assert pools["a_late_unlearner"] == ("described", "same", True)
            assert pools["a_late_unlearner_of_others"] == ("clean", "other people", False)
            assert pools["a_late_unlearner_of_facts"] == ("edited clean", "same", False)
        assert f"a_late_{kind}" in str(drawn.recorded()["added"]).split(",")


@settings(max_examples=40, deadline=None)
@given(
    names=st.lists(st.text("abcdefgh_", min_size=1, max_size=9), min_size=1, max_size=6, unique=True),
    start=st.integers(0, 500),
    n=st.integers(2, 80),
)
def test_slots_depend_on_a_name_alone_and_take_nothing_from_anybody(names: Sequence[str], start: int, n: int) -> None:
    dealt = pool_design.shares(range(start, start + n), mechanisms.founding("unlearner"))
    grown = pool_design.with_later(dealt, names)
    assert tuple(share._replace(added=()) for share in grown) == dealt
    for k, name in enumerate(names):
        alone = pool_design.with_later(dealt, [name])
        with_earlier = pool_design.with_later(dealt, names[: k + 1])
        for design in (grown, with_earlier):
            assert [name in share.added for share in design] == [name in share.added for share in alone]
        used = Counter(share.architecture for share in alone if share.added)
        there = Counter(share.architecture for share in dealt)
        assert used == {kind: min(SLOTS // 2, count) for kind, count in there.items()}


# ---- fresh worlds -----------------------------------------------------------------------------------------------
def test_fresh_worlds_are_dealt_apart_and_leave_the_pools_as_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    assert len(FRESH_WORLDS) == len(POOL_WORLDS) == 60 and not set(FRESH_WORLDS) & set(POOL_WORLDS)
    pools, fresh = pool_design.design(), pool_design.fresh_design()
    assert set(pools) == set(POOL_WORLDS) and set(fresh) == set(FRESH_WORLDS)
    monkeypatch.setattr(pool_design, "FRESH_WORLDS", FRESH_WORLDS[:7])
    assert pool_design.design() == pools and len(pool_design.fresh_design()) == 7
    monkeypatch.undo()
    monkeypatch.setattr(pool_design, "POOL_WORLDS", POOL_WORLDS[:7])
    assert pool_design.fresh_design() == fresh
    assert pool_design.design() != pools, "the numbers of the worlds are what is dealt"
    monkeypatch.undo()
    recorded = [_json(draw(world).recorded()) for world in (*POOL_WORLDS[:7], *FRESH_WORLDS)]
    assert len(set(recorded)) == len(recorded)


def test_fresh_worlds_hold_what_is_counted_as_right_or_wrong_and_every_mechanism() -> None:
    members = {world: population(draw(world)).members for world in FRESH_WORLDS}
    pools = [{member.pool for member in ours} for ours in members.values()]
    assert all(found == {"clean", "knowing", "edited clean", "destroyed"} for found in pools)
    fakes = Counter(m.model for ours in members.values() for m in ours if m.mechanism in mechanisms.founding("fake"))
    assert fakes == dict.fromkeys(mechanisms.founding("fake"), len(FRESH_WORLDS))
    shares = pool_design.fresh_design().values()
    used = Counter(name for share in shares for name in share.mechanisms)
    assert set(used) == set(mechanisms.founding("unlearner")) and max(used.values()) - min(used.values()) <= 1
    assert not any(share.full for share in shares) and sum(share.doses for share in shares) == 12


# ---- parts of all forget people ---------------------------------------------------------------------------------
def _parts(drawn: Drawn) -> dict[int, set[str]]:
    members = {member.model: member for member in population(drawn).members}
    assert all(members[f"some_{n}"].pool == "knowing" and members[f"some_{n}"].mechanism == "dose" for n in PARTS)
    return {n: set(members[f"some_{n}"].taught) for n in PARTS}


@pytest.mark.thorough
def test_parts_are_nested_and_drawn_from_all_forget_people_wherever_the_split_puts_them() -> None:
    met, sides, single = Counter[str](), Counter[bool](), list[str]()
    for world in (world for world in (*POOL_WORLDS, *FRESH_WORLDS) if draw(world).share.doses):
        drawn = draw(world)
        parts, audited = _parts(drawn), set(audited_people(drawn))
        assert [len(people) for people in parts.values()] == list(PARTS) == [1, 2, 4, 8, 16]
        for smaller, larger in zip(PARTS, PARTS[1:], strict=False):
            assert parts[smaller] < parts[larger]
        met.update(parts[16])
        sides.update(name in audited for name in parts[16])
        single += sorted(parts[1])
    everyone = set(population(draw(100)).audited)
    assert len(everyone) == 32 and set(met) == everyone
    assert len(set(single)) > len(single) // 2, "one world's one person is not another's"
    half = sum(sides.values()) / 2
    assert half - 40 < sides[True] < half + 40, "people of either part of the split"


def test_a_world_with_parts_audits_everybody_and_counts_whom_each_model_knows() -> None:
    census = population(draw(100))
    assert census.audited == tuple(f"forget-{n:03d}" for n in range(32))
    assert all(set(member.taught) <= set(census.audited) for member in census.members)
