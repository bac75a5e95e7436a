"""The run folder: what counts as finished, what is swept away, and what another plan may not touch."""

import hashlib
import json
import logging
from pathlib import Path

import pytest

from audit.runs import RunJournal, Unit, difference
from audit.schema import AuditError, Missing, Plan, Table, Timing
from tests import golden

TABLE = b"items"


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
    found.finish(unit("mine"))
    return found


def test_a_finished_unit_is_read_back(journal: RunJournal) -> None:
    assert journal.finished("mine") == unit("mine")
    assert journal.finished("other") is None


def test_a_unit_under_another_name_is_not_believed(journal: RunJournal) -> None:
    (journal.out / "units" / "mine.json").rename(journal.out / "units" / "other.json")
    assert journal.finished("other") is None


@pytest.mark.parametrize("table", [None, b"other items"])
def test_a_unit_without_its_table_is_not_finished(journal: RunJournal, table: bytes | None) -> None:
    path = journal.out / "tables" / "x.parquet"
    path.unlink() if table is None else path.write_bytes(table)
    assert journal.finished("mine") is None


def test_a_unit_that_cannot_be_read_is_measured_again_and_that_is_said(
    journal: RunJournal, caplog: pytest.LogCaptureFixture
) -> None:
    (journal.out / "units" / "mine.json").write_text('{"key": "mine"}')
    with caplog.at_level(logging.WARNING):
        assert journal.finished("mine") is None
    assert "measured again" in caplog.text


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
    assert {path.name for path in aside.iterdir()} == {"plan.json", "events.jsonl"}
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
