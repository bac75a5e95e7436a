"""The limit of the store: what goes first, what stays, what is not kept, and what killed processes leave behind."""

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch

from audit.schema import AuditError
from audit.storage import Store, drop_abandoned, hold_temporary_folder, leftovers, locked, write_atomic
from audit.storage.store_limit import IN_USE, LEDGER

KEYS = [f"{n:02x}" * 32 for n in range(40)]
ONE = 4 * 1000 + 1024
"""The bytes that are reserved for an entry of a thousand numbers."""
USER = """import sys, time, torch
from pathlib import Path
from audit.storage import Store
store = Store(Path(sys.argv[1]))
assert store.get(sys.argv[2]) is not None
if len(sys.argv) > 3:
    store.folder(sys.argv[3])
print("in use", flush=True)
time.sleep(600)"""
WRITER = """import sys, torch
from pathlib import Path
from audit.storage import Store
store, first = Store(Path(sys.argv[1]), int(sys.argv[2])), int(sys.argv[3])
for n in range(60):
    store.put(f"{first + n:064x}"[::-1], {"t": torch.zeros(1000)}, {})"""


def put(store: Store, key: str, age: int | None = None) -> None:
    """An entry of a thousand numbers that was last used so many nanoseconds after the beginning of time."""
    store.put(key, {"t": torch.zeros(1000)}, {})
    if age is not None:
        os.utime(store.path(key), ns=(age, age))


def held(store: Store) -> list[str]:
    """The keys that the store has, in the order in which they were made."""
    return [key for key in KEYS if store.path(key).exists()]


@contextmanager
def another_user(root: Path, *keys: str) -> Generator[subprocess.Popen[str]]:
    """Another process that uses entries of the store, until it is killed."""
    command = [sys.executable, "-c", USER, str(root), *keys]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None and process.stdout.readline() == "in use\n"
            yield process
        finally:
            process.kill()


def test_what_was_used_longest_ago_leaves_first_and_the_limit_holds(tmp_path: Path) -> None:
    put(Store(tmp_path / "measured"), KEYS[0])
    size = _size(Store(tmp_path / "measured").path(KEYS[0]))
    store = Store(tmp_path, 10 * size + 1024)
    for n, key in enumerate(KEYS[:10]):
        put(store, key, n)
    assert held(store) == KEYS[:10]
    assert store.get(KEYS[1]) is not None  # used again, hence younger than all
    put(store, KEYS[10])
    assert held(store) == KEYS[1:11]
    put(store, KEYS[11])
    assert held(store) == [KEYS[1], *KEYS[3:12]]
    for key in KEYS[12:]:
        put(store, key)
        assert sum(_size(path) for path in tmp_path.glob("??/*")) <= store.limit


def test_an_entry_larger_than_the_limit_is_not_kept_and_drops_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    store = Store(tmp_path, 2 * ONE)
    put(store, KEYS[0])
    store.put(KEYS[1], {"t": torch.zeros(3000)}, {})
    assert held(store) == [KEYS[0]] and store.get(KEYS[1]) is None and "no room" in caplog.text
    none = Store(tmp_path / "none", 0)
    put(none, KEYS[0])
    assert held(none) == []


@pytest.mark.thorough
def test_what_another_living_process_uses_stays_and_goes_once_it_is_dead(tmp_path: Path) -> None:
    store = Store(tmp_path, 3 * ONE)
    for n, key in enumerate(KEYS[:3]):
        put(store, key, n)
    with another_user(tmp_path, KEYS[0]) as process:
        os.utime(store.path(KEYS[0]), ns=(0, 0))
        put(store, KEYS[3])
        assert KEYS[0] in held(store) and KEYS[1] not in held(store)
        store.prune(0)
        assert held(store) == [KEYS[0]]
        crowded = Store(tmp_path, store.path(KEYS[0]).stat().st_size + ONE // 2)
        put(crowded, KEYS[4])
        assert held(store) == [KEYS[0]], "there is no room beside what is in use"
        process.send_signal(signal.SIGKILL)
        process.wait(30)
    store.prune(0)
    assert held(store) == []
    assert {path.name for path in (tmp_path / IN_USE).iterdir() if path.stat().st_size == 0 or path.name != LEDGER} <= {
        path.name for path in (tmp_path / IN_USE).glob(f"{os.getpid()}-*")
    } | {LEDGER}


def test_an_entry_that_was_dropped_in_the_meantime_is_computed_again(tmp_path: Path) -> None:
    first, second = Store(tmp_path), Store(tmp_path)
    put(first, KEYS[0])
    assert second.get(KEYS[0]) is not None
    first.prune(0)
    assert second.get(KEYS[0]) is None
    put(second, KEYS[0])
    assert first.get(KEYS[0]) is not None


@pytest.mark.thorough
def test_two_processes_that_write_at_once_stay_within_the_limit_together(tmp_path: Path) -> None:
    limit = 20 * ONE
    command = [sys.executable, "-c", WRITER, str(tmp_path), str(limit)]
    writers = [subprocess.Popen([*command, first]) for first in ("0", "1000")]
    peak = 0
    while any(writer.poll() is None for writer in writers):
        peak = max(peak, sum(_size(path) for path in tmp_path.glob("??/*")))
        time.sleep(0.002)
    assert [writer.wait() for writer in writers] == [0, 0]
    left = sum(_size(path) for path in tmp_path.glob("??/*"))
    assert 0 < peak <= limit and limit / 2 < left <= limit
    assert [path.name for path in (tmp_path / IN_USE).iterdir()] == [LEDGER]


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


@pytest.mark.parametrize("text", [b"", b"nonsense", b"0" * 20])
def test_a_broken_ledger_is_counted_anew(tmp_path: Path, text: bytes) -> None:
    for n, key in enumerate(KEYS[:10]):
        put(Store(tmp_path, 10 * ONE), key, n)
    (tmp_path / IN_USE / LEDGER).write_bytes(text)
    store = Store(tmp_path, 5 * ONE)
    for key in KEYS[10:16]:
        put(store, key)
    if text != b"0" * 20:  # too small a number is found out as soon as the limit seems reached
        assert sum(_size(path) for path in tmp_path.glob("??/*")) <= 5 * ONE
    put(store, KEYS[16])
    assert sum(_size(path) for path in tmp_path.glob("??/*")) <= 6 * ONE


def test_fitted_checkpoints_count_and_one_in_the_making_is_spared(tmp_path: Path) -> None:
    store = Store(tmp_path, 10 * ONE)
    fitted, making, dead = (store.folder(key) for key in KEYS[:3])
    fitted.mkdir(parents=True)
    (fitted / "delta.safetensors").write_bytes(b"x" * 6 * ONE)
    os.utime(fitted, ns=(0, 0))
    for key, folder in ((KEYS[1], making), (KEYS[30], store.root / "fitted" / KEYS[30][:32])):
        temp = folder.with_name(f".{folder.name}.17.tmp")
        temp.mkdir(parents=True)
        os.utime(temp, ns=(0, 0))
        assert key[:32] in temp.name
    for key in KEYS[3:9]:
        put(store, key)
    assert not fitted.exists() and not dead.exists()
    assert making.with_name(f".{making.name}.17.tmp").exists(), "this process is at work there"
    assert not (store.root / "fitted" / f".{KEYS[30][:32]}.17.tmp").exists()


# ---- what is left over -------------------------------------------------------------------------------------------
def test_what_a_killed_writer_left_is_dropped_and_what_a_living_one_writes_is_not(tmp_path: Path) -> None:
    store = Store(tmp_path)
    put(store, KEYS[0])
    folder = store.path(KEYS[0]).parent
    dead, alive = folder / ".x.1.tmp", folder / ".y.2.tmp"
    dead.write_bytes(b"half")
    handle = leftovers.held(alive)
    assert handle is not None and locked(alive) is None
    put(Store(tmp_path), KEYS[1])
    assert not dead.exists() and alive.exists()
    os.close(handle)
    store.prune(10**9)
    assert not alive.exists() and held(store) == KEYS[:2]


def test_a_file_in_the_making_is_held_until_it_is_in_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[bool] = []
    replace = Path.replace

    def watched(temp: Path, to: Path) -> Path:
        drop_abandoned([temp])
        seen.append(temp.exists())
        return replace(temp, to)

    monkeypatch.setattr(Path, "replace", watched)
    write_atomic(tmp_path / "x", b"whole")
    assert seen == [True] and (tmp_path / "x").read_bytes() == b"whole" and drop_abandoned([tmp_path / "x"]) == 5


def test_temporary_files_of_a_killed_process_are_dropped_by_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    code = ("import tempfile, time; from audit.storage import hold_temporary_folder; hold_temporary_folder()\n"
            "print(tempfile.mkdtemp(), flush=True); time.sleep(600)")  # fmt: skip
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(leftovers, "YOUNG_S", -1.0)
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, env=environment) as process:
        assert process.stdout is not None
        inside = Path(process.stdout.readline().strip())
        assert inside.is_dir() and inside.parent.parent == tmp_path
        own = hold_temporary_folder()
        assert inside.is_dir(), "its process lives"
        assert Path(tempfile.gettempdir()) == own == hold_temporary_folder() and own.parent == tmp_path
        process.kill()
        process.wait(30)
    tempfile.tempdir = str(tmp_path)
    again = hold_temporary_folder()
    assert not inside.parent.exists() and own.exists() and again.exists()


def test_a_store_that_cannot_be_written_still_serves(tmp_path: Path) -> None:
    put(Store(tmp_path), KEYS[0])
    for path in (tmp_path / IN_USE).iterdir():
        path.unlink()
    (tmp_path / IN_USE).rmdir()
    (tmp_path / IN_USE).write_bytes(b"")  # a file in its place refuses even the administrator
    assert Store(tmp_path).get(KEYS[0]) is not None
    put(Store(tmp_path), KEYS[1])
    with pytest.raises(AuditError):
        write_atomic(tmp_path / IN_USE / "x", b"")
