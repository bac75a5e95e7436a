"""What limits leave out: what needs too much memory, then the longest first; and again the same in a run begun so."""

from collections.abc import Mapping
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest

from audit.planning import RunSettings
from audit.planning.limits import limited
from audit.planning.planner import Dropped
from audit.planning.pricing import Price, Prices
from audit.schema import Cost, Interval

G = 10**9
UNITS = {"a": (5 * G, 1.0), "b": (10 * G, 5.0), "c": (11 * G, 3.0), "report": (G, 2.0)}
"""Peak bytes and the most seconds of every unit."""


class Planned:
    """Three tests, less those that are left out."""

    def __init__(self, dropped: Mapping[str, Dropped]) -> None:
        self.dropped = dict(dropped)
        self.running = [SimpleNamespace(name=name) for name in "abc" if name not in dropped]

    def without(self, dropped: Mapping[str, Dropped]) -> "Planned":
        return Planned(dropped)


def pricer(priced: list[str], **limits: float | None) -> Any:
    def prices(planner: Planned) -> Prices:
        names = [*(planned.name for planned in planner.running), "report"]
        priced.append("".join(names[:-1]))
        return Prices(tuple(Price(n, Cost(), UNITS[n][0], Interval(lo=0.5, hi=UNITS[n][1]), "benchmark")
                            for n in names))  # fmt: skip

    return SimpleNamespace(settings=replace(RunSettings(), **limits), prices=prices)


def registered(**dropped_by: str) -> Any:
    rows = [SimpleNamespace(probe=name, dropped_by=dropped_by.get(name, ""), reason=f"why {name}") for name in "abc"]
    return SimpleNamespace(tests=rows)


@pytest.mark.parametrize(
    ("limits", "dropped"),
    [
        ({}, {}), ({"max_mem": 11 * G}, {}), ({"max_mem": 10 * G}, {"c": "--max-mem 10000000000"}),
        ({"max_mem": 4 * G}, dict.fromkeys("abc", "--max-mem 4000000000")), ({"max_time": 11.0}, {}),
        ({"max_time": 10.9}, {"b": "--max-time 10.9"}), ({"max_time": 6.0}, {"b": "--max-time 6"}),
        ({"max_time": 5.9}, {"b": "--max-time 5.9", "c": "--max-time 5.9"}),
        ({"max_time": 0.5}, dict.fromkeys("abc", "--max-time 0.5")),
        ({"max_mem": 10 * G, "max_time": 7.0}, {"c": "--max-mem 10000000000", "b": "--max-time 7"}),
        ({"max_mem": 10 * G, "max_time": 8.0}, {"c": "--max-mem 10000000000"}),
    ],
)  # fmt: skip
def test_what_is_too_large_goes_and_then_the_longest_until_the_rest_fits(
    limits: dict[str, float], dropped: dict[str, str]
) -> None:
    found: Any = limited(Planned({}), pricer([], **limits), None)  # type: ignore[arg-type]
    assert {name: why.by for name, why in found.dropped.items()} == dropped


def test_the_reasons_say_what_it_would_have_taken() -> None:
    large: Any = limited(Planned({}), pricer([], max_mem=10 * G), None)  # type: ignore[arg-type]
    assert large.dropped["c"].reason == "needs about 11 GB, more than the 10 GB of --max-mem"
    long: Any = limited(Planned({}), pricer([], max_time=7.5), None)  # type: ignore[arg-type]
    assert long.dropped["b"].reason == (
        "takes about 0.5 to 5 s; without it the run keeps to the 7.5 s of --max-time"
    )  # fmt: skip


@pytest.mark.parametrize(
    ("limits", "before", "kept"),
    [
        ({"max_mem": 10 * G}, {"a": "--max-mem 10000000000"}, True), ({"max_mem": 10 * G}, {}, True),
        ({"max_mem": 10 * G}, {"a": "--max-mem 9000000000"}, False),
        ({"max_mem": 10 * G}, {"a": "--max-time 10"}, False),
        ({"max_mem": 10 * G, "max_time": 7.0}, {"a": "--max-mem 10000000000", "b": "--max-time 7"}, True),
        ({"max_time": 7.0}, {"a": "--max-mem 10000000000", "b": "--max-time 7"}, False),
    ],
)  # fmt: skip
def test_a_run_that_was_begun_under_the_same_limits_leaves_out_the_same_and_is_not_priced_again(
    limits: dict[str, float], before: dict[str, str], kept: bool
) -> None:
    priced: list[str] = []
    found: Any = limited(Planned({}), pricer(priced, **limits), registered(**before))  # type: ignore[arg-type]
    if kept:
        assert found.dropped == {name: Dropped(by, f"why {name}") for name, by in before.items()} and not priced
    else:
        anew: Any = limited(Planned({}), pricer([], **limits), None)  # type: ignore[arg-type]
        assert found.dropped == anew.dropped != {} and priced
