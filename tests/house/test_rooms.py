"""The real house: how many rooms, how high, which way the arrows run, and how far two parameters have to climb."""

import tomllib
from functools import cache

import pytest

from tests.house import walks
from tests.house.names import count
from tests.house.rooms import ROOT, Plan, described, lines_of, plan_of

ROOMS, CHAIN, LAYERS = 30, 12, 14
CLIMBS = {"command": 13, "verdict": 3}
"""Four of the command's: what lies in a run folder is read where pipes and endless files are refused, and a finished
run is held against its case before anything of models is asked."""
EVERYDAY_NAMES, EVERYDAY_SHARE = 77, 0.0028
"""The first only ever falls: whoever brings the count down writes the new one here."""


@cache
def plan() -> Plan:
    return plan_of(ROOT)


def test_house_has_few_rooms_and_floors() -> None:
    assert len(plan().rooms) <= ROOMS, "\n".join(lines_of(plan()))
    assert plan().height <= CHAIN, "\n".join(lines_of(plan()))


def test_layer_contract_is_short_and_names_every_room() -> None:
    assert 0 < plan().layers <= LAYERS
    assert plan().unplaced == ()


def test_the_page_on_architecture_draws_the_contract() -> None:
    with (ROOT / "pyproject.toml").open("rb") as file:
        contracts = tomllib.load(file)["tool"]["importlinter"]["contracts"]
    (layers,) = [contract["layers"] for contract in contracts if contract["id"] == "layers"]
    page = (ROOT / "ARCHITECTURE.md").read_text(encoding="utf-8")
    drawn = page.split("```text\n")[1].split("\n```")[0].split("\n")
    assert [line.partition("   ")[0] for line in drawn] == [layer.strip("()") for layer in layers]


def test_no_rooms_import_each_other_in_a_circle_not_even_late_or_for_types() -> None:
    ties = [described(entry) for cycle in plan().cycles for entry in plan().ties(cycle)]
    assert ties == [], "\n".join(ties)


def test_no_import_runs_up_not_even_late_or_for_types() -> None:
    upward = [described(entry) for entry in plan().upward]
    assert upward == [], "\n".join(upward)


def test_rooms_are_entered_by_their_doors() -> None:
    past = [described(entry) for entry in plan().past_doors]
    assert past == [], "\n".join(past)


@pytest.mark.parametrize("name", sorted(walks.STARTS))
def test_walk_climbs_little(name: str) -> None:
    route = walks.walk(ROOT, walks.STARTS[name])
    assert len(route.stays) > 2, "the walk ends where it begins: is it lost?"
    assert route.climbs <= CLIMBS[name], "\n".join(walks.lines_of(route))


def test_everyday_words_among_names_only_fall() -> None:
    counted = count(ROOT)
    print(counted)  # noqa: T201
    assert counted.everyday <= EVERYDAY_NAMES, str(counted)
    assert counted.share <= EVERYDAY_SHARE, str(counted)
