"""Ranks of torchrun: the first writes into the run folder, the others into copies of it."""

from pathlib import Path

import pytest

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
