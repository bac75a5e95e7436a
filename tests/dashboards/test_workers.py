"""Work that is started from the dashboard: what is known of it from files alone, and whose process it is."""

import json
import os
import time
from datetime import UTC, datetime
from pathlib import Path

import psutil
import pytest

from audit.schema import Cost, Interval, PlannedTest, Timing
from audit.storage import write_atomic
from dashboards import export, price, progress, workers
from dashboards.vault import Refused, Vault
from dashboards.workers import Worker
from tests import golden

NOW = datetime(2026, 1, 1, 0, 1, 40, tzinfo=UTC)


def worker(vault: Vault, pid: int, born: float, answer: str = "", said: str = "") -> Worker:
    """A record as it would lie there after a start."""
    made = Worker(id="w", verb="run", arguments=(), out="mine", started="2026-01-01T00:00:00", pid=pid, born=born)
    made = made.sealed(workers.own_key())
    place = vault.root / workers.PLACE / "w"
    write_atomic(place / "worker.json", made.model_dump_json().encode())
    write_atomic(place / "answer.json", answer.encode())
    write_atomic(place / "said.log", said.encode())
    return made


def log(folder: Path, *told: tuple[str, str]) -> None:
    """An event log, one event every ten seconds, ending in half a line."""
    folder.mkdir(parents=True, exist_ok=True)
    lines = [{"at": f"2026-01-01T00:00:{10 * i:02d}+00:00", "event": e, "detail": d} for i, (e, d) in enumerate(told)]
    (folder / "events.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines) + '{"at": "2026')


# ---- whose process ----------------------------------------------------------------------------------------------
def test_a_process_that_got_the_number_of_a_dead_one_is_not_the_worker(tmp_path: Path) -> None:
    own = psutil.Process()
    assert workers.process(worker(Vault(tmp_path), os.getpid(), own.create_time())) is not None
    assert workers.process(worker(Vault(tmp_path), os.getpid(), own.create_time() - 100)) is None


@pytest.mark.parametrize(
    ("answer", "said", "ending"),
    [
        ('{"exit_code": 0}', "", "finished"),
        ('{"error": "no such file", "do": "name one"}', "", "failed"),
        ("", "interrupted: finished units are kept, the same command resumes", "cancelled"),
        ('{"error": "interrupted: finished units are kept", "exit_code": 130}', "", "cancelled"),
        ("", "Killed", "failed"),
        ("[1]", "", "failed"),
        ("{" * 100_000, "", "failed"),
    ],
)
def test_how_a_worker_ended_is_read_from_what_it_left(tmp_path: Path, answer: str, said: str, ending: str) -> None:
    vault = Vault(tmp_path)
    found = workers.heard(vault, worker(vault, 2**22, 0.0, answer, said))
    assert found.ending == ending and workers.trouble(found)


def test_a_record_that_cannot_be_read_is_passed_over(tmp_path: Path) -> None:
    vault = Vault(tmp_path)
    kept = worker(vault, 1, 0.0)
    write_atomic(tmp_path / workers.PLACE / "x" / "worker.json", b"{")
    (tmp_path / workers.PLACE / "y").symlink_to(tmp_path / workers.PLACE / "w")
    assert workers.workers(vault) == (kept,)


def test_a_record_that_this_user_did_not_make_is_passed_over_and_nothing_is_stopped_or_started(tmp_path: Path) -> None:
    vault, own = Vault(tmp_path), psutil.Process()
    kept = worker(vault, os.getpid(), own.create_time())
    assert workers.workers(vault) == (kept,)
    changes: list[dict[str, object]] = [
        {"seal": ""}, {"pid": 1}, {"out": "../elsewhere"}, {"arguments": ("other.toml",)}, {"id": "v"},
    ]  # fmt: skip
    for change in changes:
        forged = kept.model_copy(update=change)
        write_atomic(tmp_path / workers.PLACE / "w" / "worker.json", forged.model_dump_json().encode())
        assert workers.workers(vault) == ()
    forged = kept.model_copy(update={"seal": ""}).sealed(b"another user's")
    write_atomic(tmp_path / workers.PLACE / "w" / "worker.json", forged.model_dump_json().encode())
    assert workers.workers(vault) == ()
    moved = tmp_path / workers.PLACE / "copy" / "worker.json"
    write_atomic(moved, kept.model_dump_json().encode())
    assert workers.workers(vault) == ()


@pytest.mark.parametrize("out", ["../elsewhere", "/elsewhere", "link/mine", "link", "a/../../b", "a\0b", ""])
def test_a_run_that_would_lie_outside_the_folder_is_not_started(tmp_path: Path, out: str) -> None:
    root = tmp_path / "runs"
    root.mkdir()
    (tmp_path / "elsewhere").mkdir()
    (root / "link").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(Refused):
        workers.start(Vault(root), "plan", ["none.toml"], out)
    workers.cancel(Vault(root), worker(Vault(root), 1, 0.0).model_copy(update={"out": out}))
    assert not list((tmp_path / "elsewhere").iterdir()) and not (tmp_path / "b").exists()


def test_records_are_not_written_through_a_link(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / workers.PLACE).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(Refused):
        workers.start(Vault(tmp_path / "runs"), "plan", ["none.toml"], "mine")
    assert not list((tmp_path / "elsewhere").iterdir())


def test_a_start_takes_back_a_wish_to_stop_and_the_worker_outlives_it(tmp_path: Path) -> None:
    vault = Vault(tmp_path)
    (tmp_path / "mine").mkdir()
    workers.cancel(vault, worker(vault, 1, 0.0))
    assert (tmp_path / "mine" / "cancel").exists()
    made = workers.start(vault, "plan", [str(tmp_path / "none.toml")], "mine")
    assert not (tmp_path / "mine" / "cancel").exists()
    for _ in range(1500):  # a busy machine takes its time to import torch
        if (found := workers.heard(vault, made)).ending != "running":
            break
        time.sleep(0.1)
    assert found.ending == "failed" and "none.toml" in workers.trouble(found)
    assert made in workers.workers(vault)


# ---- how far ----------------------------------------------------------------------------------------------------
def begun(root: Path, *told: tuple[str, str]) -> progress.Progress:
    found = golden.report("suppressed")
    log(root / "mine", *told)
    (root / "mine" / "plan.json").write_text(found.plan.model_dump_json())
    seen = progress.progress(Vault(root), "mine", [], NOW)
    assert seen is not None
    return seen


def test_progress_counts_tests_since_the_last_start(tmp_path: Path) -> None:
    names = [t.probe for t in golden.report("suppressed").plan.tests if t.will_run]
    early = [("started", ""), ("measured", names[0]), ("interrupted", "")]
    seen = begun(tmp_path, *early, ("started", ""), ("reused", names[0]), ("prefetched", "3 passes"))
    assert (seen.done, seen.total, seen.current, seen.ended) == (1, len(names), names[1], "")
    assert seen.elapsed_s == 70.0  # from the second start, 30 s in, to now, 100 s in
    seen = begun(tmp_path, ("started", ""), ("failed", f"{names[0]} 1234abcd"), ("cancelled", ""))
    assert (seen.done, seen.failed, seen.ended, seen.current) == (1, 1, "cancelled", "")


def test_a_run_without_a_plan_has_no_progress(tmp_path: Path) -> None:
    log(tmp_path / "mine", ("started", ""))
    assert progress.progress(Vault(tmp_path), "mine", [], NOW) is None


def test_time_is_a_range_scaled_by_tokens_and_unknown_without_a_timing() -> None:
    found = golden.report("suppressed")
    test = PlannedTest(probe="x", question="?", will_run=True, reason="", cost=Cost(fwd_tokens=1000, bwd_tokens=500))
    plan = found.plan.model_copy(update={"tests": (test,)})
    timed = [found.model_copy(update={"plan": plan, "timings": (Timing(unit="x", cpu_s=0, wall_s=s),)}) for s in (2, 6)]
    twice = test.model_copy(update={"cost": Cost(fwd_tokens=4000)})
    assert progress.estimate([twice], timed) == Interval(lo=4.0, hi=12.0)
    assert progress.estimate([twice, test.model_copy(update={"probe": "y"})], timed) is None


# ---- prices and exports -----------------------------------------------------------------------------------------
def test_a_price_is_told_in_words_and_a_missing_or_odd_one_is_no_crash() -> None:
    unit = {"unit": "x", "seconds": [1.0, 2.5], "peak_bytes": 2_000_000, "more": 1}
    whole = {"seconds": [100.0, 200.0], "source": "recorded", "peak_bytes": 3_000_000_000, "units": [unit], "more": 2}
    told = price.Price.of({"price": whole})
    assert told.time == "2 min to 3 min, recorded" and told.memory == "about 3.0 GB at most"
    assert told.units == {"x": "1.0 to 2.5 s, 2.0 MB"}
    for answer in ({}, {"price": None}, {"price": [1]}, {"price": {"seconds": "x"}}):
        assert price.Price.of(answer).time == price.UNKNOWN


@pytest.mark.parametrize("label", list(export.FORMATS))
def test_a_report_taken_along_is_the_same_twice(label: str) -> None:
    found = golden.report("calibrated")
    assert export.FORMATS[label].write(found) == export.FORMATS[label].write(found) != b""
