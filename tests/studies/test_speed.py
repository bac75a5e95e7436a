"""The benchmark harness: its arithmetic against known cases, and one run at a size whose numbers mean nothing."""

from pathlib import Path

import numpy as np
import pytest

from audit.schema import Interval
from studies.provenance import stamp
from studies.speed import bounds, checks, commands, many_items, readouts, startup, sweep, vocabulary
from studies.speed.methods import Method, disagreement, methods
from studies.speed.results import MemoryRow, Ratio, Results, TimingRow
from studies.speed.study import Settings, run
from studies.speed.timing import interleaved, ratio, ratio_of_medians


def row(method: str, mode: str, cpu_s: float, *ratios: Ratio) -> TimingRow:
    return TimingRow(
        size="A", method=method, mode=mode, cpu_s=cpu_s, cpu_s_min=cpu_s, cpu_s_max=cpu_s, repeats=15,
        calls_per_repeat=1, ratios=ratios,
    )  # fmt: skip


def against(name: str, median: float, lo: float, hi: float) -> Ratio:
    return Ratio(against=name, median=median, ci95=Interval(lo=lo, hi=hi))


def test_ratio_is_taken_within_repeats_so_a_busy_spell_cancels() -> None:
    theirs = np.array([1.0, 1.0, 5.0, 1.0, 9.0, 1.0, 1.0])
    found = ratio(1.2 * theirs, theirs, "theirs", seed=0)
    assert found.median == pytest.approx(1.2)
    assert found.ci95.lo == pytest.approx(1.2) == found.ci95.hi


def test_ratio_interval_covers_the_true_median_about_as_often_as_it_says() -> None:
    draw = np.random.default_rng(0)
    inside = 0
    for seed in range(200):
        noise = draw.lognormal(0.0, 0.1, 25)
        found = ratio(2 * noise, np.ones(25), "theirs", seed=seed, draws=500)
        inside += found.ci95.lo <= 2 <= found.ci95.hi
    assert 180 <= inside <= 200


def test_ratio_of_different_repeats_is_refused() -> None:
    with pytest.raises(ValueError, match="within repeats"):
        ratio(np.ones(3), np.ones(4), "theirs", seed=0)


@pytest.mark.slow
def test_every_method_is_timed_once_a_repeat_and_order_is_shuffled() -> None:
    seen: list[str] = []
    calls = {name: (lambda name=name: seen.append(name)) for name in "abc"}
    repeats = list(interleaved(calls, repeats=20, calls_per_repeat=1, seed=0))
    assert len(repeats) == 20 and all(set(r) == set("abc") for r in repeats)
    timed = ["".join(seen[3 + 3 * i : 6 + 3 * i]) for i in range(20)]
    assert all(sorted(order) == ["a", "b", "c"] for order in timed) and len(set(timed)) > 1


def test_bound_counts_as_met_when_the_interval_reaches_it() -> None:
    reaches, misses = against("blocks alone", 1.06, 1.04, 1.08), against("blocks alone", 1.06, 1.051, 1.08)
    assert [b.met for b in bounds.of_timings([row("our bench", "last", 1.06, reaches)])] == [True]
    assert [b.met for b in bounds.of_timings([row("our bench", "last", 1.06, misses)])] == [False]


def test_best_alternative_is_the_fastest_of_the_same_mode() -> None:
    ours = row("our bench", "mean", 1.0, against("slow", 0.5, 0.4, 0.6), against("fast", 1.2, 1.1, 1.3))
    found = bounds.of_timings([ours, row("slow", "mean", 2.0), row("fast", "mean", 0.8), row("other", "all", 0.1)])
    assert [(b.claim, b.met) for b in found] == [("extraction, mean: against the best alternative (fast)", False)]


def test_memory_bound_allows_what_is_returned_and_one_blocks_output() -> None:
    def peak(method: str, mib: float, returned: float) -> MemoryRow:
        return MemoryRow(
            size="A", method=method, mode="all", peaks_mib=(mib,) * 3, returned_mib=returned, block_output_mib=8
        )

    fits = bounds.of_memory([peak("blocks alone", 100, 0), peak("our bench", 1.05 * 158 - 0.1, 50)])
    bursts = bounds.of_memory([peak("blocks alone", 100, 0), peak("our bench", 1.05 * 158 + 0.1, 50)])
    assert [b.met for b in fits] == [True] and [b.met for b in bursts] == [False]


def test_ratio_of_medians_interval_widens_with_the_spread_of_either_sample() -> None:
    calm, wild = np.array([100.0, 101, 99, 100, 100]), np.array([80.0, 120, 100, 90, 110])
    narrow, wide = ratio_of_medians(calm, calm, seed=0), ratio_of_medians(calm, wild, seed=0)
    assert narrow[0] == wide[0] == 1
    assert wide[1].lo < narrow[1].lo <= 1 <= narrow[1].hi < wide[1].hi


@pytest.mark.slow
def test_methods_look_at_the_same_states_and_the_suite_writes_its_results(tmp_path: Path) -> None:
    settings = Settings(("smoke",), ("last", "mean", "all"), ("blocks alone", "our bench", "output_hidden_states"), 2,
                        ("time",), 0)  # fmt: skip
    found = run(settings, tmp_path / "results.json")
    assert Results.model_validate_json((tmp_path / "results.json").read_text()) == found
    assert {(t.method, t.mode) for t in found.timings} == {
        (m.name, m.mode) for m in methods(settings.modes) if m.name in settings.only
    }
    assert set(found.parts) == {"time smoke"} and not found.memory and not found.commands


@pytest.mark.thorough
def test_part_that_is_measured_again_replaces_its_rows_and_leaves_the_others(tmp_path: Path) -> None:
    out = tmp_path / "results.json"
    old = Results(
        timings=(row("our bench", "last", 1.0), row("our bench", "last", 1.0).model_copy(update={"size": "smoke"}))
    )
    out.write_text(old.model_dump_json())
    found = run(Settings(("smoke",), ("last",), ("our bench",), 1, ("time",), 0), out)
    assert [(t.size, t.repeats) for t in found.timings] == [("A", 15), ("smoke", 1)]


def test_states_that_differ_are_noticed() -> None:
    import torch

    same = [torch.zeros(2, 3), torch.zeros(2, 3)]
    assert disagreement([torch.zeros(2, 3), torch.ones(2, 3)], same) == 0  # the last block is left out
    assert disagreement([torch.ones(2, 3), torch.zeros(2, 3)], same) == 1
    with pytest.raises(ValueError, match="shapes differ"):
        disagreement([torch.zeros(2, 2), torch.zeros(2, 2)], same)


def test_method_reads_as_a_row_name() -> None:
    assert (
        str(Method("our bench", "last")) == "our bench, last" and str(Method("blocks alone", "none")) == "blocks alone"
    )


@pytest.mark.thorough
def test_readouts_are_timed_beside_what_they_replace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, small in {
        "ROWS": 16,
        "WIDTH": 4,
        "GROUPS": 4,
        "DRAWS": 9,
        "TEXTS": 2,
        "LENGTH": 5,
        "NEIGHBOURS": 3,
    }.items():
        monkeypatch.setattr(readouts, name, small)
    loop, alone, bare = readouts.grouped(1, 0), *readouts.neighbour_scoring(tmp_path, 1, 0)
    assert loop.ratio == pytest.approx(loop.against_cpu_s / loop.cpu_s) and "times 40" in loop.against
    assert alone.ratio == pytest.approx(alone.against_cpu_s / alone.cpu_s)
    assert bare.ratio == pytest.approx(bare.cpu_s / bare.against_cpu_s)


def test_what_the_page_says_of_a_sweep_is_what_was_measured() -> None:
    folder = Path(sweep.__file__).parent
    measured = sweep.Results.model_validate_json((folder / "sweep.json").read_bytes())
    assert measured.sentence in (folder / "README.md").read_text(encoding="utf-8")
    assert measured.same_reports and measured.times(sweep.EMPTY) <= 0.6 and measured.times(sweep.SHARED) <= 1.0


def test_the_cost_of_checks_is_taken_within_repeats_and_said_in_a_sentence() -> None:
    repeats = [{checks.BEFORE: before, checks.TODAY: 1.01 * before + 0.01} for before in (10.0, 50.0, 9.0, 11.0, 10.5)]
    row = checks.row_of(checks.AUDIT, repeats, seed=0)
    assert row.ratio.median == pytest.approx(1.011, abs=1e-3) and row.ratio.ci95.hi < checks.MOST_TIMES
    assert row.more_s == pytest.approx(0.115, abs=1e-3) and row.more_s_ci95.lo <= row.more_s <= row.more_s_ci95.hi
    report = checks.row_of(checks.REPORT, [{checks.BEFORE: 1.0, checks.TODAY: 1.05}] * 3, seed=0)
    found = checks.Results(stamp=stamp(0), command="", before="x", rows=(row, report))
    assert "**1.011x**" in found.sentence and "**+0.050**" in found.sentence and "5 and 3 repeats" in found.sentence


def test_a_command_is_that_of_the_checkout_in_which_it_is_run(tmp_path: Path) -> None:
    (tmp_path / "audit" / "cli").mkdir(parents=True)
    (tmp_path / "audit" / "__init__.py").touch()
    (tmp_path / "audit" / "cli" / "__init__.py").touch()
    (tmp_path / "audit" / "cli" / "__main__.py").write_text("raise SystemExit(7)\n")
    assert commands.measure(["report"], "", cwd=tmp_path).exit_code == 7
    with pytest.raises(RuntimeError, match="ended with 7"):
        checks.spent(tmp_path, ["report"], tmp_path)


def test_what_the_page_says_of_the_cost_of_checks_is_what_was_measured() -> None:
    folder = Path(checks.__file__).parent
    if not (folder / "checks.json").exists():
        pytest.skip("the cost of checks has not been measured yet")
    found = checks.Results.model_validate_json((folder / "checks.json").read_bytes())
    assert found.sentence in (folder / "README.md").read_text(encoding="utf-8").replace("\n", " ")


def sized(checkout: str, items: int, cpu_s: tuple[float, ...], peak_mb: float) -> many_items.SizeRow:
    scored = items if checkout == many_items.TODAY else items // 2
    return many_items.SizeRow(
        checkout=checkout, items=items, scored=scored, people=scored // many_items.EACH, cpu_s=cpu_s,
        peak_mb=(peak_mb, peak_mb - 1), value=(0.5,), p=(0.1,),
    )  # fmt: skip


def test_how_a_probe_grows_with_items_is_taken_within_repeats_and_said_in_a_sentence() -> None:
    few, many, today, before = many_items.FEW, many_items.MANY, many_items.TODAY, many_items.BEFORE
    rows = (
        sized(today, few, (2.0, 6.0), 600.0), sized(today, many, (5.0, 15.0), 690.0),
        sized(before, few, (5.0, 10.0), 800.0), sized(before, many, (100.0, 300.0), 2500.0),
    )  # fmt: skip
    grows, share = many_items.compared(rows, seed=0)
    assert grows[today].median == pytest.approx(2.5) and grows[before].median == pytest.approx(25.0)
    assert share.median == pytest.approx(0.05)
    found = many_items.Results(stamp=stamp(0), command="", before="x", rows=rows, grows=grows, share=share)
    assert "**2.50** times" in found.sentence and "**0.050** of it" in found.sentence
    assert "for 960 of the items" in found.sentence and "at most 690 MB (promised 700; 2500 before)" in found.sentence


def scored(way: vocabulary.Way, cpu_s: tuple[float, ...], peak_mb: float = 500.0) -> vocabulary.WayRow:
    held = (400.0,) * len(cpu_s)
    return vocabulary.WayRow(way=str(way), cpu_s=cpu_s, peak_mb=(peak_mb,) * len(cpu_s), opened_mb=held)


def test_reads_at_a_large_vocabulary_are_taken_over_the_cheaper_bare_passes_and_said_in_a_sentence() -> None:
    few, many = vocabulary.BARE
    rows = (
        scored(few, (1.0, 2.0), 450.0), scored(many, (2.0, 4.0)), scored(vocabulary.READS, (1.2, 2.4), 460.0),
        scored(vocabulary.READS_BEFORE, (6.0, 12.0), 800.0), scored(vocabulary.USUAL, (2.4, 4.8), 1400.0),
        scored(vocabulary.BARE_LENS, (2.0, 4.0)), scored(vocabulary.LENS, (3.0, 6.0)),
        scored(vocabulary.LENS_BEFORE, (6.0, 12.0)),
    )  # fmt: skip
    ratios = vocabulary.compared(rows, seed=0)
    assert ratios["reads"].against == "bare-8" and ratios["reads"].median == pytest.approx(1.2)
    assert ratios["before over bare"].median == pytest.approx(6.0) and ratios["lens"].median == pytest.approx(1.5)
    found = vocabulary.Results(
        stamp=stamp(0), command="", before="x", rows=rows, ratios=ratios, largest_difference=1e-6, ranks=1.0
    )
    assert "take **1.20** times what the bare passes take" in found.sentence
    assert "holds at most 60 MB (400 before, 50 of the bare passes, 1000 of the usual way)" in found.sentence


def test_what_the_page_says_of_reads_at_a_large_vocabulary_is_what_was_measured() -> None:
    folder = Path(vocabulary.__file__).parent
    if not (folder / "vocabulary.json").exists():
        pytest.skip("reads at a large vocabulary have not been measured yet")
    found = vocabulary.Results.model_validate_json((folder / "vocabulary.json").read_bytes())
    assert found.sentence in (folder / "README.md").read_text(encoding="utf-8").replace("\n", " ")


@pytest.mark.slow
@pytest.mark.parametrize("way", ["reads", "lens", "bare-8", "bare-lens-8", "usual-8"])
def test_a_way_of_scoring_is_measured_by_a_process_of_its_own(
    way: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(vocabulary, "VOCABULARY", 400)
    monkeypatch.setattr(vocabulary, "ROWS", 6)
    vocabulary.write_world(tmp_path, 0)
    seen = vocabulary.spent(vocabulary.Way(vocabulary.TODAY, way), {vocabulary.TODAY: vocabulary.HERE}, tmp_path)
    assert 0 < seen["cpu_s"] < 5 and 200 < seen["opened_mb"] <= seen["peak_mb"] < 1500


def test_four_times_the_items_are_four_times_the_people_with_alternates_of_their_own() -> None:
    few, many = (many_items.people_items(items, 0) for items in (160, 640))
    for cohort, times in (("forget", 4), ("holdout", 5), ("retain", 1)):
        groups = [{row["group"] for row in world[cohort]} for world in (few, many)]
        assert len(groups[1]) == times * len(groups[0])
    assert all(len({row["key"], *row["alternate_keys"]}) == 5 for row in many["forget"])
    assert len({row["group"] for rows in many.values() for row in rows}) == 40 + 5 + 5


@pytest.mark.slow
def test_a_probe_is_measured_by_a_process_of_its_own_on_the_checkout_that_is_given(tmp_path: Path) -> None:
    [[row]] = many_items.measured({many_items.TODAY: many_items.HERE}, tmp_path, 1, 0, (256,))
    assert (row.items, row.scored, row.people) == (256, 256, 16)
    assert 0.1 < row.cpu_s[0] < 60 and 200 < row.peak_mb[0] < 1500 and len(row.p) == 2
    with pytest.raises(RuntimeError, match="ended with 1"):
        many_items.spent(many_items.HERE, tmp_path / "none", "cross_sequence")


def test_what_the_page_says_of_many_items_is_what_was_measured() -> None:
    folder = Path(many_items.__file__).parent
    found = many_items.Results.model_validate_json((folder / "many_items.json").read_bytes())
    assert found.sentence in (folder / "README.md").read_text(encoding="utf-8").replace("\n", " ")


def test_what_starting_up_costs_is_told_beside_what_is_promised() -> None:
    seconds = [{startup.TODAY: today, startup.BEFORE: 10.0} for today in (0.6, 0.7, 0.8)]
    rows = tuple(checks.row_of(command, seconds, 0) for command in startup.REPEATS)
    found = startup.Results(stamp=stamp(0), command="", before="x", probes={"today": 16, "before": 8}, rows=rows)
    assert found.lines[2] == "| `run, finished` | 0.70 | 10.00 | **0.07** (0.06 to 0.08) | 0.4 |"
    assert [line.endswith("| - |") for line in found.lines[2:]] == [
        command not in startup.PROMISED for command in startup.REPEATS
    ]


def test_commands_read_the_run_of_their_checkout_and_write_a_folder_of_their_repeat() -> None:
    words = {name: make("today", 3) for name, make in startup.commands(Path("c.toml"), Path("w")).items()}
    assert words.keys() == startup.REPEATS.keys()
    assert words[startup.FINISHED] == ["run", "c.toml", "-o", "w/today"]
    assert words[startup.REPORT] == ["report", "w/today"] and words[startup.VERIFY] == ["verify", "w/today"]
    assert words[startup.CACHED] == ["run", "c.toml", "-o", "w/today-3"]
