"""The run folder: what counts as finished, what is swept away, and what another plan may not touch."""

import hashlib
import json
import logging
import os
from pathlib import Path

import pytest

from audit.runs import RunJournal, Unit, custody, difference
from audit.schema import AuditError, ExitCode, Missing, Plan, Table, Timing
from tests import golden

TABLE = b"items"
TOOL = "1.0+abc"


def plan(**case: object) -> Plan:
    """A plan whose hash follows its case."""
    found = golden.report("consistent").plan
    changed = found.case.model_copy(update=case)
    return found.model_copy(update={"case": changed, "plan_hash": changed.content_hash()})


def unit(key: str) -> Unit:
    """A finished unit with one item table."""
    digest = hashlib.sha256(TABLE).hexdigest()
    table = Table(path="tables/x.parquet", sha256=digest, rows=1, columns=("item",), axis="")
    measured = golden.effect("utility", "retain", "gate", 1.0, 0.1).model_copy(update={"items": table})
    untabled = measured.model_copy(update={"items": Missing(missing="none is kept")})
    return Unit(key=key, probe="utility", measurements=(untabled, measured), timing=Timing(unit="u", cpu_s=1, wall_s=1))


@pytest.fixture
def journal(tmp_path: Path) -> RunJournal:
    """A folder with one finished unit, named ``mine``."""
    (tmp_path / "tables").mkdir()
    (tmp_path / "tables" / "x.parquet").write_bytes(TABLE)
    found = RunJournal(tmp_path)
    found.finish(unit("mine"), TOOL)
    return found


def test_a_finished_unit_is_read_back(journal: RunJournal) -> None:
    assert journal.finished("mine") == unit("mine")
    assert journal.finished("other") is None


def test_a_unit_and_its_tables_are_written_down_before_the_unit_is_there(
    journal: RunJournal, monkeypatch: pytest.MonkeyPatch
) -> None:
    digest = hashlib.sha256((journal.out / "units" / "mine.json").read_bytes()).hexdigest()
    held = custody.held(journal.out)
    assert held == {"units/mine.json": {digest}, "tables/x.parquet": {hashlib.sha256(TABLE).hexdigest()}}

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("audit.runs.journal.write_atomic", killed)
    with pytest.raises(KeyboardInterrupt):
        journal.finish(unit("next"), TOOL)
    assert "units/next.json" in custody.held(journal.out) and journal.finished("next") is None


def test_a_unit_that_the_custody_log_does_not_hold_is_measured_again_and_that_is_said(
    journal: RunJournal, caplog: pytest.LogCaptureFixture
) -> None:
    (journal.out / "units" / "mine.json").rename(journal.out / "units" / "other.json")
    with caplog.at_level(logging.WARNING):
        assert journal.finished("other") is None
    assert "unit other is not in custody.jsonl and is measured again" in caplog.text


def test_a_unit_that_was_changed_after_it_was_finished_is_refused_by_its_name(journal: RunJournal) -> None:
    path = journal.out / "units" / "mine.json"
    path.write_text(path.read_text().replace('"value": 1.0', '"value": 0.4'))
    assert Unit.model_validate_json(path.read_bytes()) != unit("mine"), "it can be read, and says something else"
    with pytest.raises(AuditError, match="units/mine.json was changed after it was written") as caught:
        journal.finished("mine")
    assert caught.value.code == ExitCode.INTEGRITY and "--force-new" in caught.value.do


def test_a_unit_without_its_table_is_not_finished(journal: RunJournal, caplog: pytest.LogCaptureFixture) -> None:
    (journal.out / "tables" / "x.parquet").unlink()
    with caplog.at_level(logging.WARNING):
        assert journal.finished("mine") is None
    assert "unit mine lacks tables/x.parquet and is measured again" in caplog.text


def test_a_table_that_was_changed_is_refused_unless_a_later_unit_wrote_it(journal: RunJournal) -> None:
    path = journal.out / "tables" / "x.parquet"
    path.write_bytes(b"other items")
    with pytest.raises(AuditError, match="tables/x.parquet was changed") as caught:
        journal.finished("mine")
    assert caught.value.code == ExitCode.INTEGRITY
    custody.keep(journal.out, {"tables/x.parquet": hashlib.sha256(b"other items").hexdigest()}, TOOL)
    assert journal.finished("mine") is None


def test_a_pipe_among_the_units_is_refused_and_keeps_nobody_waiting(journal: RunJournal) -> None:
    (journal.out / "units").mkdir(exist_ok=True)
    os.mkfifo(journal.out / "units" / "pipe.json")
    with pytest.raises(AuditError, match=r"pipe\.json: is a named pipe") as raised:
        journal.probes()
    assert raised.value.code == 3


def test_a_unit_of_another_version_is_measured_again_and_that_is_said(
    journal: RunJournal, caplog: pytest.LogCaptureFixture
) -> None:
    data = b'{"key": "mine"}'
    custody.keep(journal.out, {"units/mine.json": hashlib.sha256(data).hexdigest()}, TOOL)
    (journal.out / "units" / "mine.json").write_bytes(data)
    with caplog.at_level(logging.WARNING):
        assert journal.finished("mine") is None
    assert "cannot be read and is measured again" in caplog.text


def test_a_plan_that_was_changed_although_its_hash_is_the_same_is_refused(tmp_path: Path) -> None:
    with RunJournal(tmp_path).locked() as journal:
        journal.begin(plan(), force_new=False)
        path = tmp_path / "plan.json"
        path.write_text(path.read_text().replace('"will_run": true', '"will_run": false', 1))
        with pytest.raises(AuditError, match="plan.json was changed") as caught:
            journal.begin(plan(), force_new=False)
    assert caught.value.code == ExitCode.INTEGRITY


def test_plans_differ_by_their_leaves_and_not_by_their_hash() -> None:
    lines = difference(plan(), plan(seed=7, probes={"utility": {"most_variants": 2}}))
    assert lines == ["case.seed: 0 -> 7", "case.probes.utility.most_variants: absent -> 2"]
    many = difference(plan(), plan(probes={"utility": {f"setting{n}": n for n in range(30)}}))
    assert len(many) == 21 and many[-1] == "... and 10 more"


def test_another_plan_is_refused_and_force_new_keeps_what_was_there_aside(tmp_path: Path) -> None:
    with RunJournal(tmp_path).locked() as journal:
        journal.begin(plan(), force_new=False)
        journal.begin(plan(), force_new=False)
        journal.event("started")
        logging.getLogger("audit.runs.journal").warning("something to keep")
        with pytest.raises(AuditError, match=r"case\.seed: 0 -> 7") as caught:
            journal.begin(plan(seed=7), force_new=False)
        assert caught.value.code == 2
        journal.begin(plan(seed=7), force_new=True)
    aside = tmp_path / "superseded" / "run-1"
    assert {path.name for path in aside.iterdir()} == {"plan.json", "events.jsonl", "custody.jsonl"}
    assert "something to keep" in (tmp_path / "run.log").read_text(), "one log tells the folder's whole story"
    assert RunJournal(tmp_path).planned() == plan(seed=7)
    with RunJournal(tmp_path).locked() as journal:
        journal.begin(plan(), force_new=True)
    assert (tmp_path / "superseded" / "run-2").is_dir()


def test_what_a_killed_process_had_in_the_making_is_swept_away(journal: RunJournal) -> None:
    (journal.out / "plan.json").write_text(plan().model_dump_json())
    (journal.out / "units" / ".a.json.1.tmp").write_text("half")
    (journal.out / "readers" / ".b.1.tmp" / ".c.1.tmp").mkdir(parents=True)
    with journal.locked():
        assert not list(journal.out.rglob("*.tmp"))
    assert journal.finished("mine") is not None


def test_an_interrupt_is_written_down_and_the_lock_is_given_back(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), RunJournal(tmp_path).locked() as journal:
        journal.begin(plan(), force_new=False)
        raise KeyboardInterrupt
    events = [json.loads(line)["event"] for line in (tmp_path / "events.jsonl").read_text().splitlines()]
    assert events == ["interrupted"] and not (tmp_path / "run.lock").exists()


def test_a_cancel_file_stops_between_units_and_is_used_up(tmp_path: Path) -> None:
    (tmp_path / "cancel").touch()
    with pytest.raises(KeyboardInterrupt), RunJournal(tmp_path).locked() as journal:
        journal.begin(plan(), force_new=False)
        journal.heed()
    events = [json.loads(line)["event"] for line in (tmp_path / "events.jsonl").read_text().splitlines()]
    assert events == ["cancelled", "interrupted"]
    with RunJournal(tmp_path).locked() as journal:
        journal.heed()


def test_a_plan_that_cannot_be_read_is_told(tmp_path: Path) -> None:
    (tmp_path / "plan.json").write_text("{}")
    with pytest.raises(AuditError, match="cannot be read") as caught:
        RunJournal(tmp_path).planned()
    assert "--force-new" in caught.value.do


def test_the_lock_of_a_folder_that_is_made_for_it_holds_this_process_alone(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    out = tmp_path / "a" / "b"
    with RunJournal(out).locked(), pytest.raises(AuditError, match=rf"\(pid {os.getpid()}\) is running in"):
        assert (out / "run.lock").read_text() == str(os.getpid())
        with RunJournal(out).locked():
            pass
    (out / "run.lock").write_text("123456789")
    with caplog.at_level(logging.INFO), RunJournal(out).locked():
        assert (out / "run.lock").read_text() == str(os.getpid()), "nothing of the longer number stays"
    assert "stale lock of pid 123456789: that process is gone" in caplog.text
    (tmp_path / "file").touch()
    with pytest.raises(AuditError, match="is a file"), RunJournal(tmp_path / "file").locked():
        pass


def test_runs_that_are_kept_aside_are_numbered_on(tmp_path: Path) -> None:
    for seed in range(4):
        with RunJournal(tmp_path).locked() as journal:
            journal.begin(plan(seed=seed), force_new=True)
    names = sorted(path.name for path in (tmp_path / "superseded").iterdir())
    assert names == ["run-1", "run-2", "run-3"]
    for seed, name in enumerate(names):
        assert RunJournal(tmp_path / "superseded" / name).planned() == plan(seed=seed)


def test_a_folder_of_somebody_elses_files_is_refused_by_the_first_of_them(tmp_path: Path) -> None:
    (tmp_path / "run.log").touch()
    (tmp_path / ".half.tmp").touch()
    with RunJournal(tmp_path).locked():
        pass
    for name in ("zebra.txt", "essay.txt"):
        (tmp_path / name).touch()
    with pytest.raises(AuditError, match=r"it holds essay\.txt"), RunJournal(tmp_path).locked():
        pass
