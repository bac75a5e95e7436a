"""The long run's parts: what a round does, who is killed and asked again, what counts as left over."""

import subprocess
import time
from pathlib import Path

import pytest

from audit.schema import AuditError
from studies.long_run import study
from studies.long_run.hired import KILLED, TRIES, Hired, InHand
from studies.long_run.results import Results
from studies.long_run.small_disk import SmallDisk, small_disk
from studies.speed.sweep import SUSPECTS, World

ECHO = """import sys, time
print("ready", flush=True)
for line in sys.stdin:
    if "waits" in line:
        time.sleep(600)
    if "broken" in line:
        raise SystemExit(5)
    print("done" if "fine" in line else "refused 3 No space left on device", flush=True)"""


@pytest.fixture
def worker(tmp_path: Path) -> Hired:
    """A worker that answers by the name of the folder."""
    return Hired(["-c", ECHO], {}, tmp_path / "said.log")


def ended(hand: InHand) -> list[str]:
    """The answers of an audit, once it is over."""
    for _ in range(2000):
        if hand.over:
            break
        hand.look()
        time.sleep(0.01)
    return hand.answers


def test_what_a_round_does_is_drawn_from_seed_and_number_alone() -> None:
    drawn = [study.wishes(23, number) for number in range(400)]
    assert drawn == [study.wishes(23, number) for number in range(400)] != [study.wishes(24, n) for n in range(400)]
    for share, name in ((study.KILL, "kill"), (study.PRUNE, "prune"), (study.FILL, "fill")):
        assert sum(getattr(wish, name) is not None for wish in drawn) / 400 == pytest.approx(share, abs=0.07)
    assert {wish.suspects[0] for wish in drawn} == set(range(SUSPECTS)) and {wish.victim for wish in drawn} == {0, 1}


def test_a_killed_audit_is_taken_up_by_a_new_worker_and_one_that_breaks_is_told_apart(worker: Hired) -> None:
    hand = InHand(worker, 0, Path("waits"))
    hand.look()
    worker.kill()
    hand.folder = Path("fine")
    assert ended(hand) == [KILLED, "done"]
    assert ended(InHand(worker, 0, Path("broken")))[0].startswith("broke")
    worker.leave()


def test_an_audit_is_not_tried_for_ever(worker: Hired) -> None:
    hand = InHand(worker, 0, Path("full"))
    assert len(ended(hand)) == TRIES and hand.refused
    worker.leave()


def test_what_is_left_over_is_named(tmp_path: Path) -> None:
    place = study.Place(tmp_path, World(tmp_path / "world", tmp_path), SmallDisk(tmp_path / "disk"))
    for folder in (place.temporary, place.store / "ab", place.store / "in_use", place.disk.root / "runs"):
        folder.mkdir(parents=True)
    (place.store / "in_use" / "ledger").touch()
    (place.store / "ab" / "ab.safetensors").touch()
    assert list(study.leftovers(place)) == []
    for path in (place.temporary / "x", place.store / "ab" / ".y.tmp", place.store / "in_use" / "17-z"):
        path.touch()
    (place.disk.root / "runs" / "1-0").mkdir()
    assert len(list(study.leftovers(place))) == 4


def test_a_small_disk_is_filled_and_emptied(tmp_path: Path) -> None:
    try:
        with small_disk(tmp_path / "disk", 4_000_000) as disk:
            disk.fill(100_000)
            assert disk.free() <= 100_000
            with pytest.raises(OSError, match="No space left"):
                (disk.root / "x").write_bytes(b"x" * 200_000)
            disk.empty()
            (disk.root / "x").write_bytes(b"x" * 200_000)
        subprocess.run(["umount", str(tmp_path / "disk")], check=True)
    except AuditError as error:
        pytest.skip(str(error))


def test_the_committed_figures_keep_what_is_promised() -> None:
    path = Path(study.__file__).parent / "results.json"
    if not path.exists():
        pytest.skip("the long run has not been made yet")
    found = Results.model_validate_json(path.read_bytes())
    assert found.audits >= 500 and found.identical == found.audits and not found.problems and not found.leftovers
    assert found.kills >= 50 and found.peak <= found.limit and found.rounds_with_eviction > 0
    assert found.sentence in (path.parent / "README.md").read_text(encoding="utf-8").replace("\n", " ")
