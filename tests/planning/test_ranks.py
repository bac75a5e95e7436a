"""Ranks of torchrun: the first writes into the run folder, the others into copies of it."""

from pathlib import Path

import pytest
import torch.distributed as dist

from audit.planning import RunSettings, one_of_ranks, ranks
from audit.schema import AuditError


@pytest.fixture
def two(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> pytest.MonkeyPatch:
    """Two ranks that need not wait for each other, in a run folder."""
    for name, value in (("TORCHELASTIC_RUN_ID", "x"), ("WORLD_SIZE", "2"), ("RANK", "1")):
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(ranks, "_wait", lambda settings: None)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "plan.json").write_text("planned")
    return monkeypatch


@pytest.mark.parametrize("out", ["run", ".", "absent"])
def test_a_rank_above_the_first_works_in_a_copy_of_whatever_folder(out: str, two: pytest.MonkeyPatch) -> None:
    if out == ".":
        two.chdir("run")
    with one_of_ranks(Path(out), RunSettings(store=Path("store"))) as (own, settings):
        assert own.resolve() != Path(out).resolve()
        assert own.is_dir() == (out != "absent")
        assert out == "absent" or (own / "plan.json").read_text() == "planned"
        assert settings.store is not None and settings.store.parent == own.parent
    assert not own.exists()


def test_the_first_rank_writes_where_it_was_told(two: pytest.MonkeyPatch) -> None:
    two.setenv("RANK", "0")
    with one_of_ranks(Path("run"), RunSettings(store=None)) as (own, settings):
        assert own == Path("run") and settings.store is None
    with pytest.raises(AuditError, match="kept by one process"), one_of_ranks(Path("run"), RunSettings(max_time=9.0)):
        pass


def test_without_torchrun_there_is_one_process_and_it_is_the_first(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("WORLD_SIZE", "2"), ("RANK", "1")):
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("TORCHELASTIC_RUN_ID", raising=False)
    assert ranks.Ranks.here() == ranks.Ranks(0, 1)
    with one_of_ranks(Path("run"), RunSettings(max_time=9.0)) as (own, settings):
        assert own == Path("run") and settings.max_time == 9.0, "limits are for one process"
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "x")
    assert ranks.Ranks.here() == ranks.Ranks(1, 2)
    monkeypatch.delenv("RANK")
    monkeypatch.delenv("WORLD_SIZE")
    assert ranks.Ranks.here() == ranks.Ranks(0, 1)


@pytest.mark.parametrize("limits", [{"max_time": 9.0}, {"max_mem": 9}])
def test_several_ranks_keep_to_no_limit(limits: dict[str, int], two: pytest.MonkeyPatch) -> None:
    with pytest.raises(AuditError, match="kept by one process"), one_of_ranks(Path("run"), RunSettings(**limits)):
        pass


@pytest.mark.parametrize("begun", [True, False])
def test_a_process_waits_for_the_others_in_a_group_that_is_made_once(
    begun: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    done: list[str] = []
    monkeypatch.setattr(dist, "is_initialized", lambda: begun)
    monkeypatch.setattr(dist, "init_process_group", done.append)
    monkeypatch.setattr(dist, "barrier", lambda: done.append("met"))
    ranks._wait(RunSettings(device="cpu"))
    assert done == (["met"] if begun else ["gloo", "met"])
    ranks._wait(RunSettings(device="cuda"))
    assert begun or done[2:] == ["cuda:nccl,cpu:gloo", "met"]
