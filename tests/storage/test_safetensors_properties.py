"""Safetensors files as the library writes them, and as they are when something happened to them on the way."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import load_file, save_file

from audit.schema import AuditError, ExitCode
from audit.storage import safetensors_file

KINDS = {"F64": np.float64, "F32": np.float32, "F16": np.float16, "I64": np.int64, "U8": np.uint8, "BOOL": np.bool_}


@st.composite
def arrays(draw: st.DrawFn) -> dict[str, np.ndarray]:
    """A few named arrays, empty ones and scalars among them."""
    names = draw(st.lists(st.text(st.characters(exclude_categories=("Cs",)), max_size=8), max_size=4, unique=True))
    made: dict[str, np.ndarray] = {}
    for n, name in enumerate(name for name in names if name != "__metadata__"):
        shape = tuple(draw(st.lists(st.integers(0, 3), max_size=3)))
        kind = KINDS[draw(st.sampled_from(sorted(KINDS)))]
        numbers = (np.arange(int(np.prod(shape))) + n) % 7
        made[name] = numbers.astype(kind).reshape(shape)
    return made


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("files") / "a.safetensors"


def digests(path: Path) -> dict[str, str]:
    return safetensors_file.tensor_digests(path)


@given(arrays())
def test_what_the_library_wrote_is_read_as_the_library_reads_it(path: Path, tensors: dict[str, np.ndarray]) -> None:
    save_file(tensors, path)
    header, theirs = safetensors_file.read_header(path), load_file(path)
    assert header.entries.keys() == theirs.keys()
    data = path.read_bytes()
    for name, entry in header.entries.items():
        assert (KINDS[entry.dtype], entry.shape) == (theirs[name].dtype.type, theirs[name].shape)
        assert data[entry.start : entry.end] == theirs[name].tobytes()
    sizes = {name: (entry.dtype, entry.shape, entry.end - entry.start) for name, entry in header.entries.items()}
    path.write_bytes(
        safetensors_file.encode(sizes, {"by": "us"}) + b"".join(theirs[n].tobytes() for n in sorted(sizes))
    )
    again = load_file(path)
    assert again.keys() == theirs.keys() and all(np.array_equal(again[name], theirs[name]) for name in theirs)
    assert safetensors_file.read_header(path).metadata == {"by": "us"}


@given(arrays())
def test_a_tensors_hash_is_of_what_it_holds_and_of_nothing_else(path: Path, tensors: dict[str, np.ndarray]) -> None:
    save_file(tensors, path)
    before = digests(path)
    save_file(dict(reversed(tensors.items())), path, {"saved": "again"})
    assert digests(path) == before
    for name in tensors:
        if tensors[name].size:
            other = tensors[name].copy()
            other.flat[-1] = 0 if other.flat[-1] else 1
            save_file(tensors | {name: other}, path)
            after = digests(path)
            assert {n for n in before if after[n] != before[n]} == {name}


@given(arrays(), st.data())
def test_a_file_that_was_cut_off_or_added_to_is_refused_with_code_3(
    path: Path, tensors: dict[str, np.ndarray], data: st.DataObject
) -> None:
    save_file(tensors, path)
    whole = path.read_bytes()
    path.write_bytes(whole[: data.draw(st.integers(0, len(whole) - 1))])
    for damaged in (path.read_bytes(), whole + b"\0"):
        path.write_bytes(damaged)
        with pytest.raises(AuditError) as caught:
            safetensors_file.read_header(path)
        assert caught.value.code == ExitCode.INTEGRITY


@given(arrays(), st.data())
def test_a_byte_of_the_header_that_changed_is_refused_or_read_and_never_anything_else(
    path: Path, tensors: dict[str, np.ndarray], data: st.DataObject
) -> None:
    save_file(tensors, path)
    whole = bytearray(path.read_bytes())
    end = 8 + int.from_bytes(whole[:8], "little")
    whole[data.draw(st.integers(0, end - 1))] = data.draw(st.integers(0, 255))
    path.write_bytes(whole)
    try:
        entries = safetensors_file.read_header(path).entries
    except AuditError as error:
        assert error.code == ExitCode.INTEGRITY
    else:
        assert all(0 <= e.start <= e.end <= len(whole) for e in entries.values())
