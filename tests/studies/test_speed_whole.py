"""Whole audits, the demo and a benchmark's loop: what is compared, and what the page says of it."""

import json
from pathlib import Path

import numpy as np
import pytest

from audit.schema import Interval, Record
from studies.provenance import stamp
from studies.speed import benchmark_loop, item_counts, whole_demo
from studies.speed.results import Ratio

FOLDER = Path(benchmark_loop.__file__).parent
DATA = Path(__file__).resolve().parents[3] / "shared" / "data"


def _ratio(median: float) -> Ratio:
    return Ratio(against="the other", median=median, ci95=Interval(lo=median - 0.1, hi=median + 0.1))


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("benchmark_loop", benchmark_loop.LoopResults), ("item_counts", item_counts.CountResults),
        ("whole_demo", whole_demo.DemoResults),
    ],
)  # fmt: skip
def test_the_page_says_what_was_measured(name: str, kind: type[Record]) -> None:
    path = FOLDER / f"{name}.json"
    if not path.is_file():
        pytest.skip(f"{name} has not been measured yet")
    page = " ".join((FOLDER / "README.md").read_text(encoding="utf-8").split())
    assert kind.model_validate_json(path.read_bytes()).sentence in page  # type: ignore[attr-defined]


def test_the_loop_and_one_read_of_every_row_are_compared_and_said_in_a_sentence() -> None:
    found = benchmark_loop.LoopResults(
        stamp=stamp(0), command="c", facts=400, ours_s=(2.0,), loop_s=(9.0,), faster=_ratio(4.5), gap=3e-7
    )
    assert "takes **4.5** times as long (4.4 to 4.6; promised at least 6)" in found.sentence
    assert "for 400 facts; the same numbers to 3e-07; 1 repeats" in found.sentence


def test_numbers_of_the_two_ways_that_differ_are_no_comparison() -> None:
    assert benchmark_loop.gap_of({"a": 1.0}, {"a": 1.00001}) == pytest.approx(1e-5, rel=1e-3)
    with pytest.raises(AssertionError, match="two ways differ"):
        benchmark_loop.gap_of({"a": 1.0}, {"a": 1.01})
    with pytest.raises(AssertionError, match="two ways differ"):
        benchmark_loop.gap_of({"a": 1.0, "b": 1.0}, {"a": 1.0})


@pytest.mark.thorough
def test_both_ways_give_the_same_numbers_of_real_facts() -> None:
    if not DATA.is_dir():
        pytest.skip("real facts and models are not here")
    seconds, gap = benchmark_loop.measured(DATA, facts=6, repeats=1)
    assert gap < 1e-5 and set(seconds[0]) == {benchmark_loop.OURS, benchmark_loop.LOOP}


def test_the_tail_of_an_answer_is_what_is_right_to_its_end() -> None:
    for right, share in (([1, 1, 1, 1], 1.0), ([0, 1, 0, 1], 0.25), ([1, 1, 1, 0], 0.0)):
        assert benchmark_loop._tail(np.array(right, dtype=float)) == share


# ---- whole audits -----------------------------------------------------------------------------------------------
def test_four_times_the_people_are_compared_within_repeats_and_said_in_a_sentence() -> None:
    rows = [
        item_counts.CountRow(people=n, cpu_s=(s,), peak_mb=(mb,), units={})
        for n, s, mb in ((20, 10.0, 500.0), (40, 19.0, 510.0), (80, 38.0, 540.0))
    ]
    found = item_counts.CountResults(
        stamp=stamp(0), command="c", rows=tuple(rows), grows=_ratio(3.8), memory=_ratio(1.08)
    )
    assert "take **3.80** times as long" in found.sentence and "**1.08** times the memory" in found.sentence
    assert "500 MB with 40, 510 MB with 80, 540 MB with 160 items; 1 repeats" in found.sentence
    counts = {item_counts.world_of(n).config["vocab_size"] for n in item_counts.PEOPLE}
    assert len(counts) == 1 and item_counts.PEOPLE[-1] == 4 * item_counts.PEOPLE[0]


def test_probes_that_the_build_before_lacks_are_left_out_by_what_their_units_took(tmp_path: Path) -> None:
    (tmp_path / "before" / "probes").mkdir(parents=True)
    (tmp_path / "before" / "probes" / "utility.py").touch()
    taken = (("utility", 2.0), ("trigger_search", 3.0), ("reads", 1.0), ("trigger_search", 4.0))
    lines = [{"unit": unit, "cpu_s": seconds} for unit, seconds in taken]
    (tmp_path / "timings.jsonl").write_text("\n".join(map(json.dumps, lines)))
    later = whole_demo.later_units(tmp_path, tmp_path / "before")
    assert later == {"trigger_search": 7.0}
    row = whole_demo.DemoRow(checkout="today", condition=whole_demo.ANEW, cpu_s=(20.0,), later_s=(later,))
    assert row.shared_s == (13.0,)
    found = whole_demo.DemoResults(
        stamp=stamp(0), command="c", before="b", rows=(row,),
        shares={whole_demo.ANEW: _ratio(0.9), whole_demo.AT_HAND: _ratio(0.5)},
    )  # fmt: skip
    assert "trained anew **0.90** of the build before" in found.sentence and "at most 7 CPU-seconds" in found.sentence
