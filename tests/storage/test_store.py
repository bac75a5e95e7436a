"""The store keeps whole entries or none, and never believes a broken one."""

import errno
import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file, save

from audit.schema import AuditError, ExitCode
from audit.storage import Store, safetensors_file, write_atomic, write_tensors
from audit.storage.atomic import write_chunks
from audit.storage.store_limit import IN_USE
from audit.storage.tensor_store import tensors_sha256

KEY = "ab12" * 16
DTYPES = (
    torch.float64,
    torch.float32,
    torch.float16,
    torch.bfloat16,
    torch.int64,
    torch.int32,
    torch.uint8,
    torch.bool,
)


def some() -> dict[str, torch.Tensor]:
    rng = torch.Generator().manual_seed(0)
    shapes = [(3, 4), (), (0, 2), (5,), (2, 1, 3), (7,), (1,), (4, 4)]
    drawn = [(torch.randn(shape, generator=rng) * 3).to(dtype) for shape, dtype in zip(shapes, DTYPES, strict=True)]
    return {f"t{n}": tensor for n, tensor in enumerate(drawn)}


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(a[n].dtype == b[n].dtype and torch.equal(a[n], b[n]) for n in a)


def test_what_was_put_comes_back_in_another_process_memory_mapped(tmp_path: Path) -> None:
    Store(tmp_path).put(KEY, some(), {"why": "test"})
    got = Store(tmp_path).get(KEY)
    assert got is not None and same(got, some())
    assert safetensors_file.read_header(Store(tmp_path).path(KEY)).metadata["why"] == "test"
    maps = Path("/proc/self/maps")
    if maps.is_file():
        assert KEY in maps.read_text()


@pytest.mark.parametrize("shape", [(0,), (0, 2), (3, 0)])
@pytest.mark.parametrize("kind", [np.float64, np.float32, np.int64, np.bool_])
def test_an_empty_array_comes_back(tmp_path: Path, shape: tuple[int, ...], kind: type) -> None:
    empty = {"empty": torch.from_numpy(np.zeros(shape, kind)), "other": torch.ones(2)}
    Store(tmp_path).put(KEY, empty, {})
    got = Store(tmp_path).get(KEY)
    assert got is not None and same(got, empty)
    assert same(load_file(Store(tmp_path).path(KEY)), empty)


def test_an_unknown_key_is_none(tmp_path: Path) -> None:
    assert Store(tmp_path / "not there").get(KEY) is None


def test_files_are_those_of_the_safetensors_library(tmp_path: Path) -> None:
    write_tensors(tmp_path / "x.safetensors", some(), {"a": "b"})
    assert same(load_file(tmp_path / "x.safetensors"), some())
    (tmp_path / "y.safetensors").write_bytes(save(some()))
    assert safetensors_file.combined(safetensors_file.tensor_digests(tmp_path / "y.safetensors")) == tensors_sha256(
        some()
    )


def test_equal_tensors_give_equal_bytes_whatever_their_order(tmp_path: Path) -> None:
    write_tensors(tmp_path / "x", some(), {"a": "1", "b": "2"})
    write_tensors(tmp_path / "y", dict(reversed(some().items())), {"b": "2", "a": "1"})
    assert (tmp_path / "x").read_bytes() == (tmp_path / "y").read_bytes()


def test_a_transposed_tensor_is_written_as_it_reads(tmp_path: Path) -> None:
    tensor = torch.arange(6.0).reshape(2, 3).T
    write_tensors(tmp_path / "x", {"t": tensor}, {})
    assert torch.equal(load_file(tmp_path / "x")["t"], tensor)


@pytest.mark.parametrize("damage", ["cut", "cut header", "empty", "flip data", "flip header", "longer"])
def test_a_damaged_entry_is_dropped_and_not_believed(
    tmp_path: Path, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    Store(tmp_path).put(KEY, some(), {})
    path = Store(tmp_path).path(KEY)
    data = bytearray(path.read_bytes())
    if damage == "flip data":
        data[-3] ^= 1
    elif damage == "flip header":
        data[10] ^= 255
    changed = {"cut": data[:-1], "cut header": data[:20], "empty": b"", "longer": data + b"x"}.get(damage, data)
    path.write_bytes(changed)
    assert Store(tmp_path).get(KEY) is None
    assert not path.exists() and "dropped a broken entry" in caplog.text


@pytest.mark.parametrize("places", [((0, 4), (0, 8)), ((0, 4), (8, 16))], ids=["overlap", "gap"])
def test_tensors_that_overlap_or_leave_a_gap_are_no_whole_file(
    tmp_path: Path, places: tuple[tuple[int, int], ...]
) -> None:
    entries = {
        name: {"dtype": "F32", "shape": [(end - start) // 4], "data_offsets": [start, end]}
        for name, (start, end) in zip("ab", places, strict=True)
    }
    head = json.dumps(entries).encode()
    path = tmp_path / "x.safetensors"
    path.write_bytes(len(head).to_bytes(8, "little") + head + bytes(places[-1][1]))
    with pytest.raises(AuditError, match="place of tensor 'b'") as caught:
        safetensors_file.read_header(path)
    assert caught.value.code == ExitCode.INTEGRITY


@given(place=st.integers(0, 10_000))
def test_any_flipped_byte_is_found(place: int, tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("flip")
    Store(folder).put(KEY, some(), {})
    path = Store(folder).path(KEY)
    data = bytearray(path.read_bytes())
    data[place % len(data)] ^= 0x55
    path.write_bytes(data)
    got = Store(folder).get(KEY)
    # a flip in what is not the tensors (a space of the padding) may leave them whole: then they must be right
    assert got is None or same(got, some())


def test_a_full_disk_is_an_integrity_error_and_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(AuditError, match="No space left") as caught:
        write_atomic(tmp_path / "report", b"whole")
    assert caught.value.code == ExitCode.INTEGRITY
    monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(AuditError, match="No space left"):
        Store(tmp_path).put(KEY, some(), {})
    assert [path for path in tmp_path.rglob("*") if path.is_file() and path.parent.name != IN_USE] == []


def test_a_write_that_fails_midway_keeps_what_was_there(tmp_path: Path) -> None:
    def chunks():  # noqa: ANN202
        yield b"new"
        raise OSError(errno.EIO, "Input/output error")

    write_atomic(tmp_path / "x", b"old")
    with pytest.raises(AuditError):
        write_chunks(tmp_path / "x", chunks())
    assert (tmp_path / "x").read_bytes() == b"old" and [p.name for p in tmp_path.iterdir()] == ["x"]


def test_a_read_only_folder_is_an_integrity_error(tmp_path: Path) -> None:
    # a file where a folder should be refuses even the administrator, whom permissions do not stop
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(AuditError) as caught:
        write_atomic(tmp_path / "file" / "x", b"data")
    assert caught.value.code == ExitCode.INTEGRITY


def test_prune_drops_what_was_used_longest_ago(tmp_path: Path) -> None:
    store = Store(tmp_path)
    keys = [f"{n:02x}" * 32 for n in range(4)]
    for n, key in enumerate(keys):
        store.put(key, {"t": torch.zeros(1000)}, {})
        os.utime(store.path(key), ns=(n, n))
    size = store.path(keys[0]).stat().st_size
    assert store.get(keys[0]) is not None  # used again, hence kept
    assert store.prune(2 * size) == 2 * size
    assert [key for key in keys if store.get(key) is not None] == [keys[0], keys[3]]
    assert store.prune(0) == 2 * size


def test_prune_counts_fitted_checkpoints_and_drops_them_whole(tmp_path: Path) -> None:
    store = Store(tmp_path)
    for n, key in enumerate(("aa" * 32, "bb" * 32)):
        store.folder(key).mkdir(parents=True)
        (store.folder(key) / "edit.json").write_bytes(b"x" * 10)
        (store.folder(key) / "delta.safetensors").write_bytes(b"x" * 1000)
        os.utime(store.folder(key), ns=(n, n))
    store.put(KEY, {"t": torch.zeros(1000)}, {})
    making = store.folder("bb" * 32).with_name(".bb.17.tmp")
    making.mkdir()
    size = store.path(KEY).stat().st_size
    assert store.prune(size + 1010) == 1010
    assert [store.folder(key).exists() for key in ("aa" * 32, "bb" * 32)] == [False, True]
    assert store.prune(size) == 1010 and store.get(KEY) is not None
    assert making.exists(), "another process is at work there"
    os.utime(making, ns=(0, 0))
    store.prune(size)
    assert not making.exists()


def test_a_mapped_tensor_outlives_its_entry(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.put(KEY, some(), {})
    got = store.get(KEY)
    store.prune(0)
    assert got is not None and same(got, some())
