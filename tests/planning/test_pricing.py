"""What a run costs is said before it is made: passes against those that the bench ran, times against the clock."""

import json
import logging
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from audit.bench import passes
from audit.engine import Run, prepare, run
from audit.engine.runner import plan
from audit.planning import Prices, RunSettings, Step, parse_bytes, parse_count, parse_time, pricing, timings
from audit.planning.amounts import parse_memory
from audit.planning.timings import Spent
from audit.schema import AuditError, ExitCode, Read, Site, Texts
from audit.wording import lasting
from audit.zoo import Built
from tests.planted import planted_package, write_probe


class Enough(Exception):
    """The part of a run that is of interest is over."""


@pytest.fixture
def ran(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The tokens that go forward in every pass that any bench runs."""
    compute, counted = passes.compute, list[int]()

    def counting(opened: object, opener: object, job: passes.Job, budget: int) -> passes.Computed:
        done = compute(opened, opener, job, budget)  # type: ignore[arg-type]
        counted.append(done.states)
        return done

    monkeypatch.setattr(passes, "compute", counting)
    return counted


@pytest.mark.thorough
@pytest.mark.parametrize("suspect", ["base", "head_edit"])
def test_declared_reads_are_priced_exactly(suspect: str, zoo: Built, ran: list[int], tmp_path: Path) -> None:
    how = RunSettings(threads=1, store=tmp_path / "store")
    prepared = prepare(zoo.cases[suspect], tmp_path / "run", how)
    prices = prepared.pricer.prices(prepared.planner)
    ran.clear()

    def until_read(step: Step) -> None:
        if step.stage == "roles" and step.finished:
            assert 0 < sum(ran) <= prices.of("roles").cost.fwd_tokens, "an upper bound of its own"
            ran.clear()
        if step.stage == "prefetched":
            raise Enough

    with pytest.raises(Enough):
        Run(prepared, how, until_read).report()
    assert sum(ran) == prices.of("recall").cost.fwd_tokens + prices.of("reads").cost.fwd_tokens
    assert prices.of("recall").cost.kind == prices.of("reads").cost.kind == "exact"


READS = """
PATTERN = Read(site=Site(part="pattern", block=0), at="all")
STATE = Read(site=Site(part="resid_out", block=0))
"""


@pytest.mark.thorough
@pytest.mark.parametrize("attention", ["default", "eager"])
def test_a_pattern_read_runs_by_default_and_its_pass_is_priced(
    attention: str, zoo: Built, ran: list[int], tmp_path: Path
) -> None:
    with planted_package(tmp_path, f"patterns_{attention}_of_a_test") as package:
        write_probe(package, "context_sink", requires="ops=(Op.READ, Op.PATTERN)")
        path = package / "context_sink.py"
        text = path.read_text().replace("(SCORE,)", "(SCORE, PATTERN, STATE)").replace("Requires,", "Op, Requires,")
        path.write_text(text.replace("\n\nclass", f"{READS}\n\nclass"))
        how = RunSettings(threads=1, store=tmp_path / "store", package=package.name, attention=attention)
        prepared = prepare(zoo.cases["base"], tmp_path / "run", how)
        planned = {test.probe: test for test in prepared.planner.plan.tests}
        prices = prepared.pricer.prices(prepared.planner)
        reads = prices.of("reads").cost
        rows, base = prepared.case.rows(Texts(cohort="forget")), prepared.case.base
        once = int(rows.mask.sum())
        state = prepared.bench.tokens_of(base, [(rows, (Read(site=Site(part="resid_out", block=0)),))], like=base)
        assert planned["context_sink"].will_run
        assert planned["context_sink"].cost.fwd_tokens - planned["causal"].cost.fwd_tokens > 0, "the second pass"
        wanted = {"default": (once + state, 2), "eager": (once, 1)}[attention]
        assert (reads.fwd_tokens, reads.resident) == wanted, "the audit of roles read the scores"
        assert 0 < state < once
        ran.clear()

        def until_read(step: Step) -> None:
            if step.stage == "roles" and step.finished:
                assert 0 < sum(ran) <= prices.of("roles").cost.fwd_tokens, "an upper bound of its own"
                ran.clear()
            if step.stage == "prefetched":
                raise Enough

        with pytest.raises(Enough):
            Run(prepared, how, until_read).report()
        assert sum(ran) == prices.of("recall").cost.fwd_tokens + reads.fwd_tokens


@pytest.mark.slow
def test_a_whole_run_stays_below_its_bound_and_within_a_factor_of_two_of_its_time(zoo: Built, tmp_path: Path) -> None:
    first = priced_run(zoo.cases["head_edit"], tmp_path / "first")
    assert first.ran <= first.bound
    within_two(first)
    second = priced_run(zoo.cases["base"], tmp_path / "second")
    assert {price.source for price in second.prices.units} == {"recorded"}
    within_two(second)


def within_two(made: "Made") -> None:
    middle = (made.prices.seconds.lo * made.prices.seconds.hi) ** 0.5
    assert middle / 2 <= made.cpu_s <= 2 * middle, (made.prices.seconds, made.cpu_s)


class Made:
    """A run with what was said of it."""

    def __init__(self, prices: Prices, ran: int, cpu_s: float) -> None:
        self.prices, self.ran, self.cpu_s = prices, ran, cpu_s
        self.bound = sum(price.cost.fwd_tokens for price in prices.units)


def priced_run(case: Path, out: Path) -> Made:
    how = RunSettings(threads=1, store=out / "store")
    prepared = prepare(case, out / "run", how)
    prices = prepared.pricer.prices(prepared.planner)
    started = time.process_time()
    Run(prepared, how, lambda step: None).report()
    return Made(prices, prepared.bench.fwd_tokens, time.process_time() - started)


# ---- with planted probes ----------------------------------------------------------------------------------------
@pytest.fixture
def package(tmp_path: Path) -> Iterator[Path]:
    with planted_package(tmp_path, f"planted_{tmp_path.name.replace('-', '_')}") as folder:
        yield folder


@pytest.fixture
def how(package: Path, tmp_path: Path) -> RunSettings:
    write_probe(package, "context_trained", body="pass")
    path = package / "context_trained.py"
    path.write_text(
        path.read_text().replace("Cost(fwd_tokens=7)", "Cost(fwd_tokens=7, bwd_tokens=10**12, kind='upper')")
    )
    return RunSettings(package=package.name, store=tmp_path / "store", threads=1)


@pytest.mark.thorough
def test_too_little_memory_leaves_out_what_trains_and_the_report_says_so(
    zoo: Built, how: RunSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a process that stays as large as it is: one that runs alone grows by all that it imports meanwhile."""
    monkeypatch.setattr(pricing, "_process_bytes", lambda: 10**9)
    case = zoo.cases["base"]
    prepared = prepare(case, tmp_path / "run", how)
    prices = prepared.pricer.prices(prepared.planner)
    trained, other = prices.of("context_trained").peak_bytes, prices.of("causal").peak_bytes
    assert trained > other
    small = replace(how, max_mem=(trained + other) // 2)
    report = run(case, tmp_path / "run", small)
    (row,) = [test for test in report.plan.tests if not test.will_run]
    assert row.probe == "context_trained" and row.dropped_by == f"--max-mem {small.max_mem}"
    assert "of --max-mem" in row.reason
    assert [skip.reason for skip in report.skips] == [row.reason]
    assert f"--max-mem {small.max_mem}" in report.reproduce
    assert report.plan.plan_hash != plan(case, tmp_path / "other", how).plan_hash


@pytest.mark.thorough
def test_too_little_time_leaves_out_the_longest_first_and_a_resumed_run_leaves_out_the_same(
    zoo: Built, how: RunSettings, tmp_path: Path
) -> None:
    case, out = zoo.cases["base"], tmp_path / "run"
    quick = replace(how, max_time=600.0)
    first = plan(case, out, quick)
    assert [test.probe for test in first.tests if not test.will_run] == ["context_trained"]
    report = run(case, out, quick)
    timings.path().unlink(missing_ok=True)
    for unit in ("causal", "context_trained"):
        slow = Spent(unit=unit, how=conditions_of(quick), parameters=1, fwd_tokens=1, bwd_tokens=0, run_tokens=1,
                     cpu_s=10.0, wall_s=10.0, said_s=1e-6)  # fmt: skip
        timings.record(slow)
    assert [t.probe for t in plan(case, tmp_path / "new", quick).tests if not t.will_run] == [
        "causal",
        "context_trained",
    ]
    assert run(case, out, quick) == report, "what this machine has learnt since does not change a run that was begun"
    timings.path().unlink()


def conditions_of(how: RunSettings) -> str:
    from audit.planning.pricing import conditions

    return conditions(how.settled())


@pytest.mark.thorough
def test_a_limit_that_no_test_fits_is_undecided_and_leaves_nothing(
    zoo: Built, how: RunSettings, tmp_path: Path
) -> None:
    tiny = replace(how, max_mem=1)
    assert not any(test.will_run for test in plan(zoo.cases["base"], tmp_path / "run", tiny).tests)
    with pytest.raises(AuditError, match="no test would run") as caught:
        run(zoo.cases["base"], tmp_path / "run", tiny)
    assert caught.value.code == ExitCode.UNDECIDED
    assert not (tmp_path / "run").exists()


@pytest.mark.thorough
def test_progress_says_how_long_the_rest_takes_and_it_gets_less(zoo: Built, how: RunSettings, tmp_path: Path) -> None:
    steps: list[Step] = []
    run(zoo.cases["base"], tmp_path / "run", how, watch=steps.append)
    left = [step.left.ends for step in steps if step.left is not None]
    assert left and all(0 < lo < hi for lo, hi in left)
    assert [hi for _, hi in left] == sorted((hi for _, hi in left), reverse=True)


# ---- the record -------------------------------------------------------------------------------------------------
def test_timings_are_kept_apart_by_conditions_and_a_broken_line_is_passed_over() -> None:
    spent = Spent(unit="u", how="a", parameters=1, fwd_tokens=1, bwd_tokens=0, run_tokens=1, cpu_s=1, wall_s=1)
    timings.record(spent)
    with timings.path().open("ab") as file:
        file.write(b'{"half": \n')
    timings.record(spent.model_copy(update={"how": "b"}))
    assert timings.recorded("a") == (spent,)
    assert json.loads(timings.path().read_text().splitlines()[-1])["how"] == "b"
    assert [later.how for later in timings.recorded("b")] == ["b"], "what follows a broken line is read"


@pytest.mark.parametrize("beyond", [-1, 0, 1])
def test_no_timing_is_let_go_before_there_are_more_bytes_than_the_most(
    beyond: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(timings, "cache_root", lambda: tmp_path)
    spent = Spent(unit="u", how="a", parameters=1, fwd_tokens=1, bwd_tokens=0, run_tokens=1, cpu_s=1, wall_s=1)
    for _ in range(5):
        timings.record(spent)
    monkeypatch.setattr(timings, "KEPT_LINES", 2)
    monkeypatch.setattr(timings, "MOST_BYTES", timings.path().stat().st_size - beyond)
    timings.record(spent)
    assert len(timings.recorded("a")) == (3 if beyond > 0 else 6)


def test_the_oldest_timings_are_let_go(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(timings, "MOST_BYTES", 1000)
    monkeypatch.setattr(timings, "KEPT_LINES", 3)
    for n in range(40):
        timings.record(Spent(unit=str(n), how="let go", parameters=1, fwd_tokens=1, bwd_tokens=0, run_tokens=1,
                             cpu_s=1, wall_s=1))  # fmt: skip
    size = len(timings.path().read_bytes().splitlines()[-1]) + 1
    assert timings.path().stat().st_size <= 1000 + 2 * size, "let go before it is twice as long"
    kept = [spent.unit for spent in timings.recorded("let go")]
    assert kept[-1] == "39" and len(kept) < 12


def test_timings_are_kept_in_a_folder_that_is_made_where_it_is_missing(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(timings, "cache_root", lambda: tmp_path / "not" / "there")
    spent = Spent(unit="u", how="b", parameters=1, fwd_tokens=1, bwd_tokens=0, run_tokens=1, cpu_s=1, wall_s=1)
    for _ in range(2):
        timings.record(spent)
    assert timings.recorded("b") == (spent, spent) and timings.recorded("a") == timings.recorded("c") == ()


def test_a_cache_that_cannot_be_written_costs_an_estimate_and_no_audit(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setattr(timings, "cache_root", lambda: tmp_path / "file")
    spent = Spent(unit="u", how="b", parameters=1, fwd_tokens=1, bwd_tokens=0, run_tokens=1, cpu_s=1, wall_s=1)
    with caplog.at_level(logging.INFO):
        timings.record(spent)
    assert "timings are not kept: " in caplog.text and timings.recorded("b") == ()


@pytest.mark.parametrize(
    ("text", "seconds"), [("90", 90), ("90s", 90), ("1.5m", 90), ("2h", 7200), ("0.5h", 1800), ("0.1", 0.1)]
)
def test_times_are_read(text: str, seconds: float) -> None:
    assert parse_time(text) == seconds


@pytest.mark.parametrize(
    ("text", "n"), [("123", 123), ("500M", 5e8), ("4G", 4e9), ("1.5gb", 1.5e9), ("2K", 2000), ("3TB", 3e12)]
)
def test_amounts_of_memory_are_read(text: str, n: float) -> None:
    assert parse_bytes(text) == n


@pytest.mark.parametrize(
    ("text", "count"),
    [("0", 0), ("12", 12), ("", None), ("-1", None), ("1.5", None), ("٣", None), ("12\n", None), ("9" * 5000, None)],
)
def test_a_count_is_a_whole_number_in_so_many_digits(text: str, count: int | None) -> None:
    assert parse_count(text) == count


@pytest.mark.parametrize("text", ["", "soon", "-5", "0", "5d", "4 G", "9" * 5000])
def test_what_is_no_limit_is_refused(text: str) -> None:
    with pytest.raises(AuditError):
        parse_time(text)
    if text not in ("0", "5"):
        with pytest.raises(AuditError):
            parse_bytes(text)


@pytest.mark.parametrize(
    ("text", "device", "places"),
    [
        ("2G", "cpu", (("cpu", 2_000_000_000),)), ("2G", "cuda", (("0", 2_000_000_000),)),
        ("2G", "cuda:3", (("3", 2_000_000_000),)), ("2G", "mps", (("mps", 2_000_000_000),)),
        ("0=1G, 1=2G,cpu=3K", "cuda", (("0", 10**9), ("1", 2 * 10**9), ("cpu", 3000))), ("mps=5", "cpu", (("mps", 5),)),
    ],
)  # fmt: skip
def test_memory_is_read_device_by_device(text: str, device: str, places: tuple[tuple[str, int], ...]) -> None:
    assert parse_memory(text, device) == places


@pytest.mark.parametrize("text", ["disk=1G", "0=1G,gpu=2G", "cuda:0=1G", "=1G", "0=much"])
def test_memory_of_what_is_no_device_is_refused_and_named(text: str) -> None:
    with pytest.raises(AuditError) as caught:
        parse_memory(text, "cpu")
    wrong = next((p for p in ("disk", "gpu", "cuda:0") if p in text), "")
    assert caught.value.code == ExitCode.INPUT and wrong in str(caught.value)


def test_ranges_are_told_in_a_unit_that_suits_them() -> None:
    assert [lasting(1.234, 9), lasting(90, 360), lasting(3600, 9000)] == ["1.2 to 9 s", "1.5 to 6 min", "1 to 2.5 h"]
